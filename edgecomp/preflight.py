"""What is found out about a model before the passes: whether it can be exported, and which of its layers can be packed.

The original is traced once, as exporters will trace the packed model. Only its structure counts: no value is computed, and weights
take no memory, unless a sample wants another way through `forward` than the trace took.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Node

from edgecomp.calibration import Sample, to_tensors
from edgecomp.decisions import Decision, ways
from edgecomp.errors import ExportError
from edgecomp.graph import describe, live_nodes, path_of, random_nodes, readers_within
from edgecomp.layers import find_layers
from edgecomp.models import LoadedModel, body_of
from edgecomp.models.shapes import BATCH, sizes_of
from edgecomp.modules import take_plain_paths
from edgecomp.support import TARGETS, lacking
from edgecomp.trace import Trace, trace
from edgecomp.unfolding import copied, products, unfold_weights

_TOLERANCE = 1e-3  # of the largest value: rounding in another order, and no other way


@dataclass(frozen=True)
class Preflight:
    """What a trace tells.

    Args:
        model: the model, its sizes settled.
        elsewhere: of layers whose weights `forward` reads past them: the node that does. They stay dense.
        unused: layers whose weights no output depends on. They are left out.
        uses: parameters that became those of layers, and how they are used, for `edgecomp.unfolding.unfold_weights`.
        readers: of parameters that are no layer's weights: the node that reads them.

    """

    model: LoadedModel
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    unused: frozenset[str] = frozenset()
    uses: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    readers: Mapping[str, str] = field(default_factory=dict)


def preflight(
    model: LoadedModel, samples: Sequence[Sample], say: Callable[[str | None], None], targets: Sequence[str] = ()
) -> Preflight:
    """Trace a bound model.

    Args:
        model: its weights may be of any float dtype.
        samples: inputs that it must take as the trace does.
        say: is told what is left dense or out, which sizes had to be fixed, and what a target lacks.
        targets: that must have all operators.

    Raises:
        ExportError: it cannot be exported, or not for the sizes of all samples: with the node, module or line, and the remedy.

    """
    notices: list[str] = []
    model, plain, found = _traced(model, samples, notices)
    uses = _uses(found.program, plain.module)
    if uses:
        module = copied(model.module)
        unfold_weights(body_of(module), uses)
        further: list[str] = []
        try:
            model, plain, found = _traced(replace(model, module=module), samples, further)
            notices = further
        except ExportError:  # a forward that takes nothing but a parameter: what stays float is said, with what reads it
            uses = {}
    for notice in notices:
        say(notice)
    _check_operators(found.program, targets, say)
    say(ways(found.decisions, model.limits))
    if found.kept:
        say(f"forward leaves {', '.join(found.kept[:5])} for its next run, and an exported file starts each run anew")
    drawn = random_nodes(found.program)
    if drawn:
        say(
            f"outputs depend on random numbers, so that no two runs agree: {describe(drawn[0])} draws them. If they are not "
            "wanted, as by dropout that does not ask for self.training, mend it; else take the noise as an input"
        )
    layers = find_layers(body_of(plain.module))
    elsewhere, unused = _readers(found.program, plain.module, layers)
    for name, reader in elsewhere.items():
        say(f"{name} stays dense, since its weight is read outside of it too: by {reader}")
    if unused:
        say(f"left out, since no output depends on them: {', '.join(sorted(unused))}")
    return Preflight(model, elsewhere, unused, uses, _others(found.program, plain.module, layers))


def _traced(model: LoadedModel, samples: Sequence[Sample], notices: list[str]) -> tuple[LoadedModel, LoadedModel, Trace]:
    """The model, its sizes settled, the copy of it that was traced, and the trace."""
    plain = replace(model, module=_without_values(model.module))
    try:
        found = trace(plain)
        _require_one_way(found, model, samples)
    except ExportError as error:
        if not model.guessed:
            raise
        fixed = {size: model.examples[size] for size in model.guessed}
        specs = tuple(
            replace(spec, dims=tuple(fixed.get(dim, dim) if isinstance(dim, str) else dim for dim in spec.dims))
            for spec in model.inputs
        )
        try:
            found = trace(replace(plain, inputs=specs))
            _require_one_way(found, replace(model, inputs=specs), samples)
        except ExportError:
            raise error from None
        model = replace(model, inputs=specs, guessed=frozenset())
        notices.append(
            f"the sizes {', '.join(f'{name} = {size}' for name, size in fixed.items())} are fixed as in the samples: {error}"
        )
    return model, plain, found


def _uses(program: ExportedProgram, module: nn.Module) -> dict[str, dict[str, Any]]:
    """Parameters that a forward multiplies by itself, by their names below the body."""
    body = body_of(module)
    names = {name for name, _ in body.named_parameters(remove_duplicate=False)}
    prefix = "" if body is module else "body."
    found = products(program, module, find_layers(body))
    return {name: use for path, use in found.items() if (name := path.removeprefix(prefix)) in names}


def _others(program: ExportedProgram, module: nn.Module, layers: Mapping[str, nn.Module]) -> dict[str, str]:
    """Parameters that are no layer's weights, and what reads them, by their names below the body."""
    weights = {id(layer.get_parameter("weight")) for layer in layers.values()}
    live = live_nodes(program)
    found: dict[int, str] = {}
    for node in program.graph.find_nodes(op="placeholder"):
        target = program.graph_signature.inputs_to_parameters.get(node.name)
        reader = next((user for user in node.users if user in live), None)
        if target is not None and reader is not None and id(module.get_parameter(target)) not in weights:
            found[id(module.get_parameter(target))] = describe(reader)
    named = body_of(module).named_parameters(remove_duplicate=False)
    return {name: found[id(parameter)] for name, parameter in named if id(parameter) in found}


def _check_operators(program: ExportedProgram, targets: Sequence[str], say: Callable[[str | None], None]) -> None:
    """Refuse or say operators that a target, or every target, has no form for."""
    lacks = lacking(program)
    wanted = next((target for target in targets if target in lacks), None)
    if wanted is None and len(lacks) == len(TARGETS):
        wanted = TARGETS[0]
    reasons = {target: f"target {target} has no form for {describe(node)}" for target, node in lacks.items()}
    if wanted is not None:
        raise ExportError(
            f"{reasons[wanted]}: replace this operation in the model's forward, or compress for another target (--target)"
        )
    for reason in reasons.values():
        say(f"{reason}, so that the model cannot be exported to it")


def _require_one_way(found: Trace, model: LoadedModel, samples: Sequence[Sample]) -> None:
    """Check that samples of whose sizes forward decided otherwise get from the trace what the model gives them."""
    seen: set[tuple[Decision, ...]] = set()
    for sample in _with_one(found, model, samples):
        sizes = sizes_of([sample], model.inputs)
        others = tuple(decision for decision in found.decisions if not decision.holds(sizes))
        if not others or others in seen:
            continue
        seen.add(others)
        if not _agrees(found.program, model, sample):
            raise ExportError(
                "an exported file can hold one way through forward, but forward takes another for the sizes "
                f"{', '.join(f'{name} = {size}' for name, size in sizes.items())} than where {' and '.join(map(str, others))}. "
                "Give samples of one way alone and fix the size (`--dim INPUT=SIZES` of compress, or TensorSpecs), or write both "
                "ways with masks or torch.where"
            )


def _with_one(found: Trace, model: LoadedModel, samples: Sequence[Sample]) -> Iterator[Sample]:
    """The samples, and where forward asks for the batch a batch of one, which is what most devices run."""
    yield from samples
    if samples and any(BATCH in decision.sizes for decision in found.decisions):
        first = samples[0]
        yield {
            spec.name: np.asarray(first[spec.name])[tuple(slice(1) if dim == BATCH else slice(None) for dim in spec.dims)]
            for spec in model.inputs
        }


def _agrees(program: ExportedProgram, model: LoadedModel, sample: Sample) -> bool:
    module = program.module(check_guards=False)
    module.load_state_dict(model.module.state_dict(), strict=False)  # values, which weights other than float32 had none of
    try:
        with torch.no_grad():
            got = module(*to_tensors(sample, model.inputs))
    except (RuntimeError, AssertionError):  # of sizes that no longer fit each other
        return False
    outputs = got if isinstance(got, tuple | list) else (got,)
    return all(_close(a.float(), b.float()) for a, b in zip(outputs, model(sample), strict=True))


def _close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=_TOLERANCE * float(b.abs().max() if b.numel() else 0))


def _loops(reader: Node, weight: Node, own: Collection[str]) -> bool:
    """Whether a loop of a module multiplies by the weight of a layer of that module, as unfolded recurrent layers do."""
    within = path_of(reader) + "."
    found = readers_within(reader, weight)
    return (
        bool(found)
        and any(path.startswith(within) for path in own)
        and all(node.target is torch.ops.aten.linear.default and node.args[1] is inner for inner, node in found)
    )


def _without_values(module: nn.Module) -> nn.Module:
    """A copy to trace, its parameters float32 whatever they are stored as, and without values: memory that nobody touches."""
    memo: dict[int, Any] = {}
    for tensor in (*module.parameters(), *module.buffers()):
        same = tensor.dtype == torch.float32 or not tensor.is_floating_point()
        empty = tensor.detach() if same else torch.empty(tensor.shape, dtype=torch.float32)
        memo[id(tensor)] = nn.Parameter(empty, requires_grad=False) if isinstance(tensor, nn.Parameter) else empty
    copied = copy.deepcopy(module, memo).eval()
    take_plain_paths(copied)
    return copied


def _readers(program: ExportedProgram, module: nn.Module, layers: Mapping[str, nn.Module]) -> tuple[dict[str, str], frozenset[str]]:
    """Layers whose weights are read past them, each with what reads it, and layers whose weights no output depends on."""
    paths = {name: id(part) for name, part in module.named_modules(remove_duplicate=False)}
    owners: dict[int, set[int]] = {}  # of a weight: the layers that have it
    for layer in layers.values():
        owners.setdefault(id(layer.get_parameter("weight")), set()).add(id(layer))
    placeholders = {
        id(module.get_parameter(target)): node
        for node in program.graph.find_nodes(op="placeholder")
        if (target := program.graph_signature.inputs_to_parameters.get(node.name)) is not None
    }
    live = live_nodes(program)
    elsewhere: dict[str, str] = {}
    unused = set()
    for name, layer in layers.items():
        weight = layer.get_parameter("weight")
        readers = [node for node in placeholders[id(weight)].users if node in live] if id(weight) in placeholders else []
        own = {path for path, part in paths.items() if part in owners[id(weight)]}
        others = [node for node in readers if path_of(node) not in own and not _loops(node, placeholders[id(weight)], own)]
        if others:
            elsewhere[name] = describe(others[0])
        if not readers:
            unused.add(name)
    return elsewhere, frozenset(unused)
