"""Finding the layers of a model that can be compressed, and the draft of them that passes start from."""

from __future__ import annotations

from collections.abc import Collection

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn.utils import parametrize

from edgecomp.columns import ConvColumns
from edgecomp.draft import Draft, Layer
from edgecomp.errors import ModelError
from edgecomp.modules import is_scaled_embedding, is_transposed_linear
from edgecomp.progress import listed
from edgecomp.tensor import ConvParams, LayerPlan, Stage, StageOp
from edgecomp.unfolding import HOOKS, class_of, has_own_ways, obstacle


def find_layers(body: nn.Module) -> dict[str, nn.Module]:
    """The linear, embedding and convolution modules of a model, by name, that a packed layer can stand in for.

    Only those that run as PyTorch's classes do: a subclass with a forward of its own may read its weight in other ways. Those of
    transformers whose ways are known are let in: GPT-2's Conv1D, and Gemma's tables, whose rows are scaled. Layers of other kinds
    are plain ones inside, once they are unfolded (`edgecomp.unfolding`).
    """
    named = body.named_modules(remove_duplicate=False)
    return {name: module for name, module in named if _is_layer(module) and _obstacle(module) is None}


def left_dense(body: nn.Module) -> dict[str, list[str]]:
    """The layers of a model that are never packed, by what keeps them from it."""
    found: dict[str, list[str]] = {}
    for name, module in body.named_modules():
        weighted = any(parameter.ndim > 1 for parameter in module.parameters(recurse=False)) or parametrize.is_parametrized(module)
        known = _kind(module) != "Module"
        if not known or not weighted:
            continue
        why = _obstacle(module) if _is_layer(module) else obstacle(module) or f"layers of the kind {_kind(module)} are not packed"
        if why is not None:
            found.setdefault(why, []).append(name or "the model")
    return found


def _is_layer(module: nn.Module) -> bool:
    return class_of(module) in (nn.Linear, nn.Embedding, nn.Conv2d) or is_transposed_linear(module) or is_scaled_embedding(module)


def _kind(module: nn.Module) -> str:
    """What a message calls a layer; `Module` for what is none of PyTorch's."""
    graph = getattr(module, "graph", None)
    if isinstance(graph, torch.fx.Graph):  # of an exported program: the operator
        return next((str(node.target).removesuffix(".default") for node in graph.nodes if node.op == "call_function"), "Module")
    kind = class_of(module)
    known = kind.__module__.startswith("torch.nn.modules.") or parametrize.is_parametrized(module)
    return kind.__name__ if known or isinstance(module, nn.Linear | nn.Embedding | nn.Conv2d) else "Module"


def _obstacle(layer: nn.Module) -> str | None:
    """What keeps a layer from being packed; None where nothing does."""
    weight = layer._parameters.get("weight")
    if weight is None:
        return "their weights are computed at each run (torch.nn.utils.parametrize.remove_parametrizations makes them plain)"
    if not weight.is_floating_point() or not weight.numel():
        return "their weights are no floats" if weight.numel() else "they have no weights"
    if has_own_ways(layer):
        return HOOKS
    if isinstance(layer, nn.Embedding) and layer.max_norm is not None:
        return "they scale their rows as they look them up (max_norm)"
    if isinstance(layer, nn.Conv2d) and layer.padding_mode != "zeros":
        return f"they pad by {layer.padding_mode}"
    return None


def draft_of(body: nn.Module, without: Collection[str] = ()) -> Draft:
    """The draft that passes start from: every layer a single stage over its own weight; tied weights are one matrix.

    Args:
        body: the model.
        without: layers that are left as they are.

    Raises:
        ModelError: there is no such layer, or a weight holds NaN or infinity.

    """
    layers: dict[str, Layer] = {}
    plans: dict[str, LayerPlan] = {}
    matrices: dict[str, Tensor] = {}
    owners: dict[int, str] = {}
    for name, module in find_layers(body).items():
        if name in without:
            continue
        weight = module.get_parameter("weight")
        factor = owners.setdefault(id(weight), f"{name}.weight")
        if factor not in matrices:
            if not all(torch.isfinite(bound) for bound in weight.detach().aminmax()):
                bad = int((~torch.isfinite(weight)).sum())
                raise ModelError(
                    f"weights must be finite, but {name}.weight holds {bad} NaN or infinite values: repair the model first"
                )
            matrices[factor] = matrix_of(module, weight.detach())
        layer = layer_of(name, module, factor)
        layers[name] = layer
        plans[name] = LayerPlan(((Stage(factor, layer.op, layer.conv),),), layer.bias)
    if "" in layers:
        raise ModelError("a model must hold its layers as submodules, this one is a single layer: wrap it in nn.Sequential")
    if not layers:
        kept = "".join(f"; left dense, since {why}: {listed(names)}" for why, names in left_dense(body).items())
        raise ModelError(f"a model must have nn.Linear, nn.Embedding or nn.Conv2d layers to compress, this one has none{kept}")
    weights = {f"{name}.weight" for name in layers}
    dense = {name: tuple(tensor.shape) for name, tensor in body.state_dict(keep_vars=True).items() if name not in weights}
    return Draft(layers, plans, matrices, dense)


def matrix_of(module: nn.Module, weight: Tensor) -> Tensor:
    """A layer's weight, or a gradient of it, as the matrix `[N, K]` that a factor stands for."""
    if isinstance(module, nn.Conv2d):
        return ConvColumns(conv_params(module)).matrix(weight)
    return weight.T if is_transposed_linear(module) else weight


def layer_of(name: str, module: nn.Module, factor: str) -> Layer:
    """What a module is to a draft, its weight being the matrix named `factor`."""
    bias = f"{name}.bias" if getattr(module, "bias", None) is not None else None
    parameters = module.get_parameter("weight").numel()
    inputs, outputs = _widths(module)
    if isinstance(module, nn.Conv2d):
        return Layer(name, "conv", factor, parameters, inputs, outputs, conv_params(module), bias)
    op: StageOp = "gather" if isinstance(module, nn.Embedding) else "linear"
    return Layer(name, op, factor, parameters, inputs, outputs, bias=bias)


def conv_params(module: nn.Conv2d) -> ConvParams:
    """Geometry of a convolution; the paddings `same` and `valid` are resolved to numbers."""
    kernel, dilation = module.kernel_size, module.dilation
    if module.padding == "same":
        total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        padding = (total[0] // 2, total[1] // 2, total[0] - total[0] // 2, total[1] - total[1] // 2)
    elif isinstance(module.padding, str):
        padding = (0, 0, 0, 0)
    else:
        padding = (module.padding[0], module.padding[1], module.padding[0], module.padding[1])
    return ConvParams(
        in_channels=module.in_channels,
        kernel_size=(kernel[0], kernel[1]),
        stride=(module.stride[0], module.stride[1]),
        padding=padding,
        dilation=(dilation[0], dilation[1]),
        groups=module.groups,
    )


def _widths(layer: nn.Module) -> tuple[int, int]:
    """Input and output features of a layer; an embedding's inputs are its rows."""
    if isinstance(layer, nn.Conv2d):
        return layer.in_channels, layer.out_channels
    first, second = layer.get_parameter("weight").shape
    return (second, first) if isinstance(layer, nn.Linear) else (first, second)
