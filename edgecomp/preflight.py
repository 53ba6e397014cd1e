"""What is found out about a model before the passes: whether it can be exported, and which of its layers can be packed.

The original is traced once, as exporters will trace the packed model. Only its structure counts: no value is computed, and weights
take no memory.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from edgecomp.errors import ExportError
from edgecomp.layers import find_layers
from edgecomp.models import LoadedModel, body_of
from edgecomp.modules import take_plain_paths
from edgecomp.trace import describe, live_nodes, path_of, trace


@dataclass(frozen=True)
class Preflight:
    """What a trace tells.

    Args:
        model: the model, its sizes settled.
        elsewhere: of layers whose weights `forward` reads past them: the node that does. They stay dense.
        unused: layers whose weights no output depends on. They are left out.

    """

    model: LoadedModel
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    unused: frozenset[str] = frozenset()


def preflight(model: LoadedModel, say: Callable[[str | None], None]) -> Preflight:
    """Trace a bound model.

    Args:
        model: its weights may be of any float dtype.
        say: is told what is left dense or out, and which sizes had to be fixed.

    Raises:
        ExportError: it cannot be exported: with the node or module, and the remedy.

    """
    plain = replace(model, module=_without_values(model.module))
    try:
        program = trace(plain)
    except ExportError as error:
        if not model.guessed:
            raise
        fixed = {size: model.examples[size] for size in model.guessed}
        specs = tuple(
            replace(spec, dims=tuple(fixed.get(dim, dim) if isinstance(dim, str) else dim for dim in spec.dims))
            for spec in model.inputs
        )
        try:
            program = trace(replace(plain, inputs=specs))
        except ExportError:
            raise error from None
        model = replace(model, inputs=specs, guessed=frozenset())
        say(f"the sizes {', '.join(f'{name} = {size}' for name, size in fixed.items())} are fixed as in the samples: {error}")
    elsewhere, unused = _readers(program, plain.module, find_layers(body_of(plain.module)))
    for name, reader in elsewhere.items():
        say(f"{name} stays dense, since its weight is read outside of it too: by {reader}")
    if unused:
        say(f"left out, since no output depends on them: {', '.join(sorted(unused))}")
    return Preflight(model, elsewhere, unused)


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
        others = [node for node in readers if paths.get(path_of(node)) not in owners[id(weight)]]
        if others:
            elsewhere[name] = describe(others[0])
        if not readers:
            unused.add(name)
    return elsewhere, frozenset(unused)
