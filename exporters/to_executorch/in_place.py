"""Operators that write into a buffer of the program, in place of a copy of it: caches of keys and values."""

from __future__ import annotations

from typing import Any

from executorch.exir.dialects._ops import ops
from executorch.exir.passes.reinplace import reinplace_pass
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind
from torch.library import Library, register_fake

from edgecomp.ops import NAMESPACE, OPERATORS

_IN_PLACE = [operator for operator in OPERATORS.values() if operator.writes_first]

_library = Library(NAMESPACE, "FRAGMENT")
for _operator in _IN_PLACE:
    _library.define(_operator.executorch_in_place_schema)
    register_fake(f"{_operator.torch_name}_", lambda past, *_, **__: past, lib=_library)


def write_in_place(program: ExportedProgram) -> None:
    """Have operators that make a buffer's next value write into the buffer, where nothing reads it afterwards."""
    _drop_copies(program)
    edge = getattr(ops.edge, NAMESPACE)
    reinplace_pass(
        program,
        ops_to_inplace=(),
        inplace_overrides={
            getattr(edge, operator.name).default: getattr(edge, f"{operator.name}_").default for operator in _IN_PLACE
        },
    )


def _drop_copies(program: ExportedProgram) -> None:
    """A buffer becomes the value that is copied into it, and not the copy."""
    graph = program.graph_module.graph
    output = graph.output_node()
    values: list[Any] = list(output.args[0])
    for index, spec in enumerate(program.graph_signature.output_specs):
        node = values[index]
        if spec.kind is not OutputKind.BUFFER_MUTATION or node.target is not ops.edge.aten.copy.default:
            continue
        buffer, new = node.args[:2]
        if buffer.meta["val"].shape == new.meta["val"].shape and buffer.meta["val"].dtype == new.meta["val"].dtype:
            values[index] = new
            spec.arg.name = new.name
    output.args = (tuple(values),)
    graph.eliminate_dead_code()
    program.graph_module.recompile()
