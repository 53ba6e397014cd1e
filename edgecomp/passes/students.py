"""From the draft to what is learned of the model, or of a part of it, and back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgecomp import formats
from edgecomp.context import PassContext
from edgecomp.draft import Draft
from edgecomp.layers import weight_of
from edgecomp.passes.learned_lut import MapGradient
from edgecomp.passes.learning import Place, Student


def factors_within(draft: Draft, context: PassContext, names: Sequence[str], root: str) -> list[str]:
    """Those of the factors that a layer of the submodule `root` uses."""
    parts = {id(part) for part in context.module.get_submodule(root).modules()}
    return [name for name in names if any(id(context.modules[use.layer]) in parts for use in draft.uses(name))]


def student_of(
    draft: Draft, context: PassContext, names: Sequence[str], root: str, map_gradient: MapGradient, *, dense: bool
) -> Student:
    """What is learned of the submodule `root`: the factors `names`, all of them within it, and perhaps its dense tensors."""
    part = context.module.get_submodule(root)
    parameters = _names(part)
    layers = {name: _layer(draft, context, name, part) for name in names}
    places = {name: Place(parameters[id(layer.get_parameter("weight"))], layer) for name, layer in layers.items()}
    learned: dict[str, Tensor] = {}
    if dense:
        weights = {id(module.get_parameter("weight")) for module in context.modules.values()}
        outside = _outside(root)
        chosen = {name: tensor for name, tensor in part.named_parameters() if id(tensor) not in weights}
        drafted = {name: (outside + name).removeprefix(_prefix(context)) for name in chosen}
        learned = {name: draft.tensors.get(drafted[name], tensor) for name, tensor in chosen.items()}
    return Student({name: draft.factors[name] for name in names}, places, learned, context.device, map_gradient)


def take(draft: Draft, context: PassContext, student: Student, root: str) -> None:
    """Put what a student of `root` has learned into the draft."""
    draft.factors |= student.to_factors()
    draft.records |= {name: {"relative_error": error} for name, error in student.relative_errors().items()}
    take_dense(draft, context, {name: tensor.detach().cpu() for name, tensor in student.dense.items()}, root)


def take_dense(draft: Draft, context: PassContext, learned: dict[str, Tensor], root: str) -> None:
    """Put dense tensors, by their names in `root`, into the draft."""
    parameters = dict(context.module.named_parameters(remove_duplicate=False))
    for learned_name, tensor in learned.items():
        for name, parameter in parameters.items():
            if parameter is parameters[_outside(root) + learned_name]:  # a tensor may have several names
                draft.tensors[name.removeprefix(_prefix(context))] = tensor


def settled_weights(draft: Draft, context: PassContext, learned: Sequence[str], root: str) -> dict[str, Tensor]:
    """Weights, by their names in `root`, of the packed factors there that are not `learned`: each a layer's only one."""
    part = context.module.get_submodule(root)
    parameters = _names(part)
    weights: dict[str, Tensor] = {}
    for name in factors_within(draft, context, [name for name in draft.factors if name not in learned], root):
        plan = draft.plans[draft.uses(name)[0].layer]
        if len(plan.terms) == 1 and len(plan.terms[0]) == 1:
            layer = _layer(draft, context, name, part)
            matrix = torch.from_numpy(formats.unpack(draft.factors[name])).to(context.device)
            weights[parameters[id(layer.get_parameter("weight"))]] = weight_of(layer, matrix)
    return weights


def settled_tensors(draft: Draft, context: PassContext, root: str) -> dict[str, Tensor]:
    """Dense tensors of `root` that the draft has changed, by their names there."""
    part, outside = context.module.get_submodule(root), _outside(root)
    names = {(outside + name).removeprefix(_prefix(context)): name for name, _ in part.named_parameters()}
    return {names[name]: tensor.to(context.device) for name, tensor in draft.tensors.items() if name in names}


def _names(part: nn.Module) -> dict[int, str]:
    return {id(parameter): name for name, parameter in part.named_parameters()}


def _layer(draft: Draft, context: PassContext, factor: str, part: nn.Module) -> nn.Module:
    """A layer of `part` that uses the factor."""
    parts = {id(module) for module in part.modules()}
    return next(layer for use in draft.uses(factor) if id(layer := context.modules[use.layer]) in parts)


def _outside(root: str) -> str:
    return f"{root}." if root else ""


def _prefix(context: PassContext) -> str:
    """What comes before the names of the draft's tensors in those of the module that is run."""
    name, layer = next(iter(context.modules.items()))
    whole = next(full for full, module in context.module.named_modules() if module is layer)
    return str(whole).removesuffix(name)
