"""Initialisers as they are stored: float16 where the checkpoint has it, and equal ones once."""

from __future__ import annotations

import hashlib

import numpy as np
import onnx_ir as ir

from edgecomp.array_file import bytes_of
from edgecomp.checkpoint import CompressedModel
from edgecomp.exporters.packed import float16_bytes


def settle_initializers(graph: ir.Graph, model: CompressedModel) -> None:
    """Store each initialiser as the checkpoint has it, and share equal ones; one of them is in memory at a time.

    What the exporter computes of constants, such as a dense matrix transposed, is float32. Where the checkpoint has float16, each
    float32 initialiser of more than one value that float16 holds exactly is stored so, with a Cast behind it: runtimes compute that
    once, when they load the model.
    """
    half = float16_bytes(model) > 0
    owners: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
    for value in list(graph.initializers.values()):
        if value.const_value is None or value.const_value.dtype.is_string() or value.is_graph_input() or value.is_graph_output():
            continue
        array = value.const_value.numpy()
        stored = _as_float16(array) if half else array
        key = (stored.dtype.name, stored.shape, hashlib.sha256(bytes_of(stored)).digest())
        if key not in owners:
            owners[key] = value if stored is array else _cast(graph, value, stored)
        if owners[key] is not value:
            value.replace_all_uses_with(owners[key])
            if graph.initializers.get(value.name or "") is value:
                del graph.initializers[value.name or ""]


def _as_float16(array: np.ndarray) -> np.ndarray:
    if array.dtype != np.float32 or array.size < 2:
        return array
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    return half if np.array_equal(half, array) else array


def _cast(graph: ir.Graph, value: ir.Value, stored: np.ndarray) -> ir.Value:
    """A node that gives `value` of a float16 initialiser, which takes over its name."""
    name = value.name or ""
    del graph.initializers[name]
    initializer = ir.val(name, const_value=ir.tensor(np.ascontiguousarray(stored), name=name))
    graph.register_initializer(initializer)
    output = ir.val(f"{name}.float32", dtype=ir.DataType.FLOAT, shape=ir.Shape(stored.shape))
    node = ir.node("Cast", [initializer], {"to": ir.DataType.FLOAT}, outputs=[output])
    graph.insert_before(graph[0], node)
    return output
