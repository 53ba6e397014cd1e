"""The exporter's promise, checked: every packed layer is a node of ours, with all of the operator table's inputs."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgecomp.checkpoint import CompressedModel
from edgecomp.exporters.packed import check_calls, factor_of_buffer
from edgecomp.ops import DOMAIN, OPERATORS

_CODES_INPUT = 1  # x, then the factor's arrays in the format's order
_MERGED_BYTES = 4096  # more than what the exporter merges


def check_packed(graph: ir.Graph, model: CompressedModel) -> None:
    """Check that the graph, whose initialisers still carry the names of the module's buffers, runs every stage of the plans packed.

    Raises:
        ExportError: a stage has no node.

    """
    factor_of, alike = factor_of_buffer(model), _alike(model)
    operators = {operator.onnx_name: operator for operator in OPERATORS.values()}
    found = set()
    for node in graph.all_nodes():
        if node.domain == DOMAIN:
            factor = factor_of.get(node.inputs[_CODES_INPUT].name or "", "")  # type: ignore[union-attr]
            found |= {(name, operators[node.op_type]) for name in alike.get(factor, (factor,))}
    check_calls(model, found)


def _alike(model: CompressedModel) -> dict[str, list[str]]:
    """For each factor with few codes those that have the same ones: PyTorch's exporter gives small equal tensors one name."""
    named: dict[bytes, list[str]] = {}
    for name, factor in model.factors.items():
        codes = factor.arrays.get("codes")
        if codes is not None and codes.nbytes <= _MERGED_BYTES:
            named.setdefault(codes.tobytes(), []).append(name)
    return {name: names for names in named.values() for name in names}


def fill_absent_inputs(graph: ir.Graph) -> None:
    """Give absent optional inputs an empty tensor of shape [0], one for each element type, as the operator table demands."""
    operators = {operator.onnx_name: operator for operator in OPERATORS.values()}
    empty: dict[str, ir.Value] = {}
    for node in graph.all_nodes():
        if node.domain != DOMAIN:
            continue
        declared_inputs = operators[node.op_type].inputs
        node.resize_inputs(len(declared_inputs))  # absent inputs at the end were dropped
        for index, declared in enumerate(declared_inputs):
            if node.inputs[index] is None:
                if declared.dtype not in empty:
                    empty[declared.dtype] = _empty_initializer(graph, declared.dtype)
                node.replace_input_with(index, empty[declared.dtype])


def _empty_initializer(graph: ir.Graph, dtype: str) -> ir.Value:
    name = f"absent_{dtype}"
    value = ir.val(name, const_value=ir.tensor(np.empty(0, dtype), name=name))
    graph.register_initializer(value)
    return value
