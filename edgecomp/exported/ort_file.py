"""What a file of ONNX Runtime's own format says about itself: a model as it was optimised, its weights inside.

The format is a FlatBuffer (`onnxruntime/core/flatbuffers/schema/ort.fbs`), whose tables only ever grow. ONNX Runtime writes it
where the option `session.save_model_format` of a session says `ORT`. Functions are not in it: operators of ours need our library.
"""

from __future__ import annotations

from pathlib import Path

from edgecomp.errors import CheckpointError
from edgecomp.exported.flatbuffer import Table
from edgecomp.exported.onnx_file import OnnxFile, describe_tensor, map_model, require_known

_IDENTIFIER = b"ORTM"
_SESSION_MODEL = 1
_MODEL_PRODUCER, _MODEL_GRAPH, _MODEL_METADATA = 2, 7, 9
_GRAPH_VALUES, _GRAPH_NODES, _GRAPH_INPUTS, _GRAPH_OUTPUTS = 1, 2, 5, 6
_NODE_DOMAIN, _NODE_OPERATOR, _NODE_ATTRIBUTES = 2, 5, 10
_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS = 7, 12
_VALUE_NAME, _VALUE_TYPE, _TYPE_KIND, _TYPE_VALUE, _TENSOR_KIND = 0, 2, 1, 2, 1
_TENSOR_ELEMENT, _TENSOR_SHAPE, _SHAPE_DIMS, _DIM_VALUE = 0, 1, 0, 0
_DIM_KIND, _DIM_NUMBER, _DIM_NAME, _KIND_NUMBER, _KIND_NAME = 0, 1, 2, 1, 2
_ENTRY_KEY, _ENTRY_VALUE = 0, 1


def read_ort(path: Path) -> OnnxFile:
    """Read the structure of a model.

    Raises:
        ModelError: no such file.
        CheckpointError: the file is no such model or is cut short; an operator of ours is not in this edgecomp's library.

    """
    data = map_model(path)
    found = OnnxFile(path, checked=(path.resolve(),))
    try:
        if bytes(data[4:8]) != _IDENTIFIER:
            raise ValueError(f"it does not begin with {_IDENTIFIER.decode()}")
        model = _required(Table.root(data), _SESSION_MODEL, "model")
        graph = _required(model, _MODEL_GRAPH, "graph")
        _visit_graph(graph, found)
        _visit_signature(graph, found)
        found.producer = model.text(_MODEL_PRODUCER)
        found.metadata = {entry.text(_ENTRY_KEY): entry.text(_ENTRY_VALUE) for entry in model.tables(_MODEL_METADATA)}
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is not a complete model of ONNX Runtime's format ({error}; {path.stat().st_size} bytes); copy it again"
        ) from error
    require_known(found)
    return found


def _required(table: Table, field: int, what: str) -> Table:
    inner = table.table(field)
    if inner is None:
        raise ValueError(f"it has no {what}")
    return inner


def _visit_graph(graph: Table, found: OnnxFile) -> None:
    for node in graph.tables(_GRAPH_NODES):
        found.operators.add((node.text(_NODE_DOMAIN), node.text(_NODE_OPERATOR)))
        for attribute in node.tables(_NODE_ATTRIBUTES):
            inner = attribute.table(_ATTRIBUTE_GRAPH)
            for part in (*([] if inner is None else [inner]), *attribute.tables(_ATTRIBUTE_GRAPHS)):
                _visit_graph(part, found)


def _visit_signature(graph: Table, found: OnnxFile) -> None:
    values = {value.text(_VALUE_NAME): value for value in graph.tables(_GRAPH_VALUES)}
    for kind, described in ((_GRAPH_INPUTS, found.inputs), (_GRAPH_OUTPUTS, found.outputs)):
        for name in graph.texts(kind):
            described[name] = _describe(values[name]) if name in values else "of an unknown type"


def _describe(value: Table) -> str:
    type_ = value.table(_VALUE_TYPE)
    tensor = None if type_ is None or type_.number(_TYPE_KIND, "B") != _TENSOR_KIND else type_.table(_TYPE_VALUE)
    if tensor is None:
        return "of another type than tensor"
    shape = tensor.table(_TENSOR_SHAPE)
    return describe_tensor(
        tensor.number(_TENSOR_ELEMENT, "i"), None if shape is None else [_dim(dim) for dim in shape.tables(_SHAPE_DIMS)]
    )


def _dim(dim: Table) -> int | str | None:
    value = dim.table(_DIM_VALUE)
    if value is None:
        return None
    kind = value.number(_DIM_KIND, "b")
    return value.number(_DIM_NUMBER, "q") if kind == _KIND_NUMBER else value.text(_DIM_NAME) if kind == _KIND_NAME else None
