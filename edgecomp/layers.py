"""Finding the layers of a model that can be compressed, and the draft of them that passes start from."""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

import torch
from torch import Tensor, nn

from edgecomp.columns import ConvColumns
from edgecomp.draft import Draft, Layer
from edgecomp.errors import ModelError
from edgecomp.modules import is_scaled_embedding, is_transposed_linear
from edgecomp.tensor import ConvParams, LayerPlan, Stage, StageOp


def find_layers(body: nn.Module) -> dict[str, nn.Module]:
    """The linear, embedding and convolution modules of a model, by name.

    Only the exact classes: a subclass may read its weight in ways of its own. Those of transformers whose ways are known are let
    in: GPT-2's Conv1D, and Gemma's tables, whose rows are scaled.
    """
    return {name: module for name, module in body.named_modules(remove_duplicate=False) if _is_compressible(module)}


def _is_compressible(module: nn.Module) -> bool:
    if "weight" not in module._parameters:  # weight norm and pruning compute it from other parameters
        return False
    if type(module) is nn.Embedding or is_scaled_embedding(module):
        return cast(nn.Embedding, module).max_norm is None
    if type(module) is nn.Conv2d:
        return module.padding_mode == "zeros"
    return type(module) is nn.Linear or is_transposed_linear(module)


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
        raise ModelError("a model must have nn.Linear, nn.Embedding or nn.Conv2d layers to compress, this one has none")
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
