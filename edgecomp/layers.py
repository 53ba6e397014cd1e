"""Finding the layers of a model that can be compressed, and putting packed ones in their place."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from edgecomp.draft import Draft, Layer
from edgecomp.errors import CheckpointError, ModelError
from edgecomp.formats import lut, lut_narrow
from edgecomp.formats.lut import Compute
from edgecomp.modules import PackedFactor, PackedLayer, conv_kernel, conv_matrix, set_module
from edgecomp.tensor import ConvParams, Factor, LayerPlan, Stage, StageOp


def find_layers(body: nn.Module) -> dict[str, nn.Module]:
    """The linear, embedding and convolution modules of a model, by name.

    Only the exact classes: a subclass may read its weight in ways of its own.
    """
    return {name: module for name, module in body.named_modules(remove_duplicate=False) if _is_compressible(module)}


def _is_compressible(module: nn.Module) -> bool:
    if "weight" not in module._parameters:  # weight norm and pruning compute it from other parameters
        return False
    if type(module) is nn.Embedding:
        return module.max_norm is None
    if type(module) is nn.Conv2d:
        return module.padding_mode == "zeros"
    return type(module) is nn.Linear or _is_transposed_linear(module)


def _is_transposed_linear(module: nn.Module) -> bool:
    """GPT-2's Conv1D: a linear layer whose weight is stored `[K, N]`."""
    return type(module).__name__ == "Conv1D" and type(module).__module__ == "transformers.pytorch_utils"


def draft_of(body: nn.Module) -> Draft:
    """The draft that passes start from: every layer a single stage over its own weight; tied weights are one matrix.

    Raises:
        ModelError: there is no such layer, or a weight holds NaN or infinity.

    """
    layers: dict[str, Layer] = {}
    plans: dict[str, LayerPlan] = {}
    matrices: dict[str, Tensor] = {}
    owners: dict[int, str] = {}
    for name, module in find_layers(body).items():
        weight = module.get_parameter("weight")
        factor = owners.setdefault(id(weight), f"{name}.weight")
        if factor not in matrices:
            if not torch.isfinite(weight).all():
                bad = int((~torch.isfinite(weight)).sum())
                raise ModelError(
                    f"weights must be finite, but {name}.weight holds {bad} NaN or infinite values: repair the model first"
                )
            matrices[factor] = matrix_of(module, weight.detach())
        layer = _layer(name, module, factor)
        layers[name] = layer
        plans[name] = LayerPlan(((Stage(factor, layer.op, layer.conv),),), layer.bias)
    if "" in layers:
        raise ModelError("a model must hold its layers as submodules, this one is a single layer: wrap it in nn.Sequential")
    if not layers:
        raise ModelError("a model must have nn.Linear, nn.Embedding or nn.Conv2d layers to compress, this one has none")
    return Draft(layers, plans, matrices)


def matrix_of(module: nn.Module, weight: Tensor) -> Tensor:
    """A layer's weight, or a gradient of it, as the matrix `[N, K]` that a factor stands for."""
    if isinstance(module, nn.Conv2d):
        return conv_matrix(weight)
    return weight.T if _is_transposed_linear(module) else weight


def weight_of(module: nn.Module, matrix: Tensor) -> Tensor:
    """The layer's weight that `matrix_of` made the matrix from."""
    if isinstance(module, nn.Conv2d):
        return conv_kernel(matrix, conv_params(module))
    return matrix.T if _is_transposed_linear(module) else matrix


def _layer(name: str, module: nn.Module, factor: str) -> Layer:
    bias = f"{name}.bias" if getattr(module, "bias", None) is not None else None
    parameters = module.get_parameter("weight").numel()
    if isinstance(module, nn.Conv2d):
        return Layer(name, "conv", factor, parameters, conv_params(module), bias)
    return Layer(name, "gather" if isinstance(module, nn.Embedding) else "linear", factor, parameters, bias=bias)


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


def install(
    body: nn.Module, plans: Mapping[str, LayerPlan], factors: Mapping[str, Factor], dense: Mapping[str, Tensor], compute: Compute
) -> None:
    """Replace the layers that `plans` names by packed ones, and fill in every other tensor from `dense` (float32 in memory).

    Raises:
        CheckpointError: a tensor is none of the model's, or its shape does not fit.

    """
    packed = {name: PackedFactor(factor) for name, factor in factors.items()}
    for name, plan in plans.items():
        bias = None if plan.bias is None else dense[plan.bias].float()
        set_module(body, name, PackedLayer(plan, packed, bias, compute))
    biases = {plan.bias for plan in plans.values()}
    parameters: dict[int, nn.Parameter] = {}
    for name, tensor in dense.items():
        if name not in biases:
            _fill(body, name, tensor, parameters)
    for module in body.modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0  # its fused path reads the linear layers' weights; this says not to take it


def require_complete(
    body: nn.Module, plans: Mapping[str, LayerPlan], factors: Mapping[str, Factor], dense: Mapping[str, Tensor]
) -> None:
    """Check that plans, factors and dense tensors make up the whole model, before `install`.

    Raises:
        CheckpointError: a layer, factor or tensor is missing, or a plan does not lead from its layer's inputs to its outputs.

    """
    layers = find_layers(body)
    for name, plan in plans.items():
        if name not in layers:
            raise CheckpointError(f"the model has no layer {name}, which the checkpoint has a plan for")
        missing = {stage.factor for term in plan.terms for stage in term} - set(factors)
        if missing:
            raise CheckpointError(f"the plan of {name} needs the factors {sorted(missing)}, which the checkpoint does not hold")
        op = _layer(name, layers[name], "").op
        inputs, outputs = _widths(layers[name])
        if not all(_leads(term, factors, op, inputs, outputs) for term in plan.terms):
            shapes = [[(stage.op, factors[stage.factor].shape) for stage in term] for term in plan.terms]
            raise CheckpointError(f"the plan of {name} must lead from {inputs} inputs to {outputs} outputs by {op}, got {shapes}")
        if plan.bias is not None and plan.bias in dense and tuple(dense[plan.bias].shape) != (outputs,):
            raise CheckpointError(f"{plan.bias} must have the shape [{outputs}], got {list(dense[plan.bias].shape)}")
    biases = {plan.bias for plan in plans.values() if plan.bias is not None}
    lacking = [name for name in {*body.state_dict(), *biases} - {f"{name}.weight" for name in plans} if name not in dense]
    if lacking:
        raise CheckpointError(f"the checkpoint must hold every tensor of the model, but lacks {', '.join(sorted(lacking)[:5])}")


def _widths(layer: nn.Module) -> tuple[int, int]:
    """Input and output features of a layer; an embedding's inputs are its rows."""
    if isinstance(layer, nn.Conv2d):
        return layer.in_channels, layer.out_channels
    first, second = layer.get_parameter("weight").shape
    return (second, first) if isinstance(layer, nn.Linear) else (first, second)


def _leads(term: tuple[Stage, ...], factors: Mapping[str, Factor], op: StageOp, inputs: int, outputs: int) -> bool:
    """Whether each stage of a chain takes what the one before it gives, the first the layer's inputs."""
    width = inputs
    for depth, stage in enumerate(term):
        n, k = factors[stage.factor].shape
        if stage.op != ("linear" if depth and op == "gather" else op):
            return False
        takes, gives = (n, k) if stage.op == "gather" else (k, n)
        if stage.conv is not None:
            channels = stage.conv.in_channels // stage.conv.groups
            if factors[stage.factor].format != lut_narrow.FORMAT:
                channels = lut.round_up(channels, lut.SPAN_COLUMNS)
            takes = stage.conv.in_channels if k == channels * math.prod(stage.conv.kernel_size) else -1
        if takes != width:
            return False
        width = gives
    return width == outputs


def _fill(body: nn.Module, name: str, tensor: Tensor, parameters: dict[int, nn.Parameter]) -> None:
    """Put a tensor in its place; names that share one tensor share one parameter."""
    parent_name, _, leaf = name.rpartition(".")
    try:
        parent = body.get_submodule(parent_name)
        present = getattr(parent, leaf)
    except AttributeError as error:
        raise CheckpointError(f"the model has no tensor {name}, which the checkpoint holds: {error}") from error
    if tuple(present.shape) != tuple(tensor.shape):
        raise CheckpointError(f"{name} must have the shape {list(present.shape)}, the checkpoint holds {list(tensor.shape)}")
    value = tensor.to(present.dtype)
    if isinstance(present, nn.Parameter):
        setattr(parent, leaf, parameters.setdefault(id(tensor), nn.Parameter(value, requires_grad=False)))
    else:
        parent.register_buffer(leaf, value, persistent=True)


def dense_tensors(
    body: nn.Module, compressed: Mapping[str, LayerPlan], changed: Mapping[str, Tensor], dtype: torch.dtype
) -> dict[str, Tensor]:
    """Every tensor of the model that is no compressed weight, by name: floats rounded to `dtype`, shared ones shared.

    Args:
        body: the original model.
        compressed: the layers whose weights are packed.
        changed: tensors that passes put in the place of the original's.
        dtype: `torch.float16` or `torch.float32`.

    Raises:
        ModelError: a value is too large for `dtype`.

    """
    weights = {f"{name}.weight" for name in compressed}
    rounded: dict[int, Tensor] = {}
    tensors: dict[str, Tensor] = {}
    for name, original in body.state_dict(keep_vars=True).items():
        if name in weights:
            continue
        tensor = changed.get(name, original)
        if id(tensor) not in rounded:
            value = tensor.detach()
            rounded[id(tensor)] = value.to(dtype) if value.is_floating_point() else value
            if (torch.isfinite(value) & ~torch.isfinite(rounded[id(tensor)])).any():
                raise ModelError(f'{name} holds values beyond {dtype}: set dense_dtype = "float32" in the recipe')
        tensors[name] = rounded[id(tensor)]
    return tensors
