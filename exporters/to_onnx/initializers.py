"""Initialisers as they are stored: float16 where the checkpoint has it, and what is equal once."""

from __future__ import annotations

import hashlib

import numpy as np
import onnx_ir as ir

from edgecomp.array_file import bytes_of
from edgecomp.checkpoint import CompressedModel
from edgecomp.exporters.packed import has_float16

_Key = tuple[str, tuple[int, ...], bytes]


def settle_initializers(graph: ir.Graph, model: CompressedModel) -> None:
    """Store each initialiser as the checkpoint has it, and those of equal values once; one of them is in memory at a time.

    What the exporter computes of constants, such as a dense matrix transposed, is float32. Where the checkpoint has float16, each
    float32 initialiser of more than one value that float16 holds exactly is stored so, with a Cast behind it. A matrix that another
    one is transposed, as a table and a head that share their weight, is that one with a Transpose behind it. Runtimes compute both
    once, when they load the model, into memory of their own; which costs products and convolutions nothing, since they keep their
    weights in another order anyway. Tables are gathered from as they are stored, and what was gathered is cast.
    """
    half = has_float16(model)
    owners: dict[_Key, ir.Value] = {}
    for value in list(graph.initializers.values()):
        if value.const_value is None or value.const_value.dtype.is_string() or value.is_graph_input() or value.is_graph_output():
            continue
        array = value.const_value.numpy()
        stored = _as_float16(array) if half else array
        key, turned = _key(stored), _key(stored.T) if _may_be_transposed(stored, owners) else None
        if key not in owners:
            if turned in owners:
                name, dtype = f"{value.name}.transposed", value.const_value.dtype
                owners[key] = _behind(graph, owners[turned], name, "Transpose", dtype, array.shape, {"perm": [1, 0]})
            else:
                owners[key] = value if stored is array else _cast(graph, value, stored)
        if owners[key] is not value:
            value.replace_all_uses_with(owners[key])
            if graph.initializers.get(value.name or "") is value:
                del graph.initializers[value.name or ""]
    for node in [node for node in graph if (node.domain, node.op_type) == ("", "Cast")]:
        _gather_before(graph, node)


def _key(array: np.ndarray) -> _Key:
    return array.dtype.name, array.shape, hashlib.sha256(bytes_of(array)).digest()


def _may_be_transposed(array: np.ndarray, owners: dict[_Key, ir.Value]) -> bool:
    return array.ndim == 2 and any(dtype == array.dtype.name and shape == array.shape[::-1] for dtype, shape, _ in owners)


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
    return _behind(graph, initializer, f"{name}.float32", "Cast", ir.DataType.FLOAT, stored.shape, {"to": ir.DataType.FLOAT})


def _behind(
    graph: ir.Graph,
    value: ir.Value,
    name: str,
    op_type: str,
    dtype: ir.DataType,
    shape: tuple[int, ...],
    attributes: dict[str, int | list[int]],
) -> ir.Value:
    """The output of a node behind a constant: behind the node that makes it, or in front of all."""
    output = ir.val(name, dtype=dtype, shape=ir.Shape(shape))
    node = ir.node(op_type, [value], attributes, outputs=[output])
    maker = value.producer()
    if maker is None:
        graph.insert_before(graph[0], node)
    else:
        graph.insert_after(maker, node)
    return output


def _gather_before(graph: ir.Graph, cast: ir.Node) -> None:
    """Let what gathers rows of a cast initialiser gather them before the cast, which then is of these rows alone."""
    table, widened = cast.inputs[0], cast.outputs[0]
    if table is None or not table.is_initializer():
        return
    for gather, position in list(widened.uses()):
        if (gather.domain, gather.op_type, position) != ("", "Gather", 0) or gather.graph is not graph:
            continue
        old = gather.outputs[0]
        half = ir.val(f"{old.name}.float16", dtype=table.dtype, shape=old.shape)
        gathered = ir.node("Gather", [table, gather.inputs[1]], {"axis": gather.attributes.get_int("axis", 0)}, outputs=[half])
        rows = ir.node(
            "Cast", [half], {"to": ir.DataType.FLOAT}, outputs=[ir.val(f"{old.name}.float32", dtype=old.dtype, shape=old.shape)]
        )
        ir.convenience.replace_nodes_and_values(graph, gather, [gather], [gathered, rows], [old], rows.outputs)
    if not widened.uses():
        graph.remove(cast, safe=True)
