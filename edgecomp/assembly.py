"""Putting a packed model together: packed layers in their places, and every other tensor as the checkpoint holds it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor, nn

from edgecomp.draft import leads, must_lead
from edgecomp.errors import CheckpointError, ModelError
from edgecomp.layers import find_layers, layer_of
from edgecomp.modules import PackedFactor, PackedLayer, set_module, take_plain_paths
from edgecomp.rounding import Rounding, require_float32
from edgecomp.tensor import Factor, LayerPlan


def install(
    body: nn.Module,
    plans: Mapping[str, LayerPlan],
    factors: Mapping[str, Factor],
    dense: Mapping[str, Tensor],
    unused: Collection[str] = (),
) -> None:
    """Replace the layers that `plans` names by packed ones, and fill in every other tensor from `dense` (float32 in memory).

    Layers that are `unused` give zeros from here on, which nothing depends on.

    Raises:
        CheckpointError: a tensor is none of the model's, or its shape does not fit.

    """
    packed = {name: PackedFactor(factor) for name, factor in factors.items()}
    for name, plan in plans.items():
        bias = None if plan.bias is None else dense[plan.bias].float()
        set_module(body, name, PackedLayer(plan, packed, bias, body.get_submodule(name)))
    biases = {plan.bias for plan in plans.values()}
    parameters: dict[int, nn.Parameter] = {}
    for name, tensor in dense.items():
        if name not in biases:
            _fill(body, name, tensor, parameters)
    take_plain_paths(body)
    for name in unused:
        layer = body.get_submodule(name)
        for kind in ("weight", "bias"):
            parameter = layer._parameters.pop(kind, None)
            setattr(layer, kind, None if parameter is None else torch.zeros(()).expand(parameter.shape))


def _tensors_of(layers: Iterable[str]) -> set[str]:
    """Names of what layers have that are packed or left out."""
    return {f"{name}.{kind}" for name in layers for kind in ("weight", "bias")}


def require_complete(
    body: nn.Module,
    plans: Mapping[str, LayerPlan],
    factors: Mapping[str, Factor],
    dense: Mapping[str, Tensor],
    unused: Collection[str] = (),
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
        layer = layer_of(name, layers[name], "")
        if not leads(plan, factors, layer):
            raise CheckpointError(must_lead(plan, factors, layer))
        if plan.bias is not None and plan.bias in dense and tuple(dense[plan.bias].shape) != (layer.outputs,):
            raise CheckpointError(f"{plan.bias} must have the shape [{layer.outputs}], got {list(dense[plan.bias].shape)}")
    biases = {plan.bias for plan in plans.values() if plan.bias is not None}
    lost = sorted({*unused} - layers.keys())
    if lost:
        raise CheckpointError(f"the model has no layer {lost[0]}, which the checkpoint leaves out")
    lacking = ({*body.state_dict()} - _tensors_of([*plans, *unused]) | biases) - dense.keys()
    if lacking:
        raise CheckpointError(f"the checkpoint must hold every tensor of the model, but lacks {', '.join(sorted(lacking)[:5])}")


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
    value = tensor.to(torch.float32 if present.is_floating_point() else present.dtype)
    if isinstance(present, nn.Parameter):
        setattr(parent, leaf, parameters.setdefault(id(tensor), nn.Parameter(value, requires_grad=False)))
    else:
        parent.register_buffer(leaf, value, persistent=True)


def dense_tensors(
    body: nn.Module,
    compressed: Mapping[str, LayerPlan],
    changed: Mapping[str, Tensor],
    rounding: Rounding,
    unused: Collection[str] = (),
) -> dict[str, Tensor]:
    """Every tensor of the model that is no compressed weight, and the biases that passes add, by name.

    Shared tensors stay shared.

    Args:
        body: the original model.
        compressed: the plans of the layers whose weights are packed.
        changed: tensors that passes put in the place of the original's, or added as biases of plans.
        rounding: brings them to the dtype that they are stored in.
        unused: layers that are left out.

    Raises:
        ModelError: a value is too large for float32.

    """
    biases = [plan.bias for plan in compressed.values() if plan.bias is not None]
    replaced = _tensors_of([*compressed, *unused]) - set(biases)
    stored = {**body.state_dict(keep_vars=True), **changed}
    rounded: dict[int, Tensor] = {}
    tensors: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        if name in replaced:
            continue
        if id(tensor) not in rounded:
            rounded[id(tensor)] = rounding(name, tensor.detach())
        tensors[name] = rounded[id(tensor)]
    return tensors


def require_storable(body: nn.Module, names: Collection[str]) -> None:
    """Check before long work that tensors of the model, which stay dense whatever the passes do, can be stored.

    Raises:
        ModelError: a value is too large for float32, or a tensor holds complex numbers.

    """
    for name, tensor in body.state_dict(keep_vars=True).items():
        if name in names:
            if tensor.is_complex():
                raise ModelError(
                    f"{name} holds complex numbers, which checkpoints and runtimes do not store: keep real and imaginary parts "
                    "(torch.view_as_real), or register the buffer with persistent=False"
                )
            require_float32(name, tensor.detach())
