"""Operators that write into a buffer of the program, in place of a copy of it: caches of keys and values."""

from __future__ import annotations

from typing import Any

from executorch.exir.dialects._ops import ops
from executorch.exir.passes import MemoryPlanningPass
from executorch.exir.passes.reinplace import reinplace_pass
from torch.export import ExportedProgram
from torch.export.graph_signature import ExportGraphSignature, OutputKind
from torch.fx import GraphModule
from torch.fx.passes.infra.pass_base import PassResult
from torch.library import Library, register_fake
from torch.utils._pytree import tree_map

from edgecomp.exporters.to_executorch.names import operator_name
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


class InPlaceMemory(MemoryPlanningPass):
    """Plans no memory for what an operator wrote into a buffer.

    exir gives the operator's result the memory of the buffer while it collects what to plan, but the outputs, which it collects
    too, still ask for their own: as much again as all buffers take.
    """

    def run(self, graph_module: GraphModule, graph_signature: ExportGraphSignature | None = None) -> PassResult:
        """As exir's."""
        written = {f"{operator.name}_" for operator in _IN_PLACE}
        replaced = {}
        for node in graph_module.graph.nodes:
            if node.op == "call_function" and operator_name(node.target) in written:
                replaced[id(node.meta["spec"])] = node.args[0].meta["spec"]
                node.meta["spec"] = node.args[0].meta["spec"]
        output = graph_module.graph.output_node()
        output.meta["spec"] = tree_map(lambda spec: replaced.get(id(spec), spec), output.meta["spec"])
        done: PassResult = super().run(graph_module, graph_signature)
        return done


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
