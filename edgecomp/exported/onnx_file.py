"""What an ONNX model's file says about itself: its external data files, what its nodes call, its signature.

Reads the protobuf wire format directly, since the onnx package would load every weight, and the device side has no onnx. Field
numbers are those of onnx.proto, which only ever grow. Files of ONNX Runtime's own format (`.ort`): `edgecomp.exported.ort_file`.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass, field
from pathlib import Path

from edgecomp.bounded import parse_json
from edgecomp.errors import CheckpointError, ModelError
from edgecomp.exported.external_data import check_data_file, place_of
from edgecomp.exported.protobuf import fields, number, numbers, text
from edgecomp.ops import DOMAIN, OPERATORS

# Metadata of an exported model: a JSON object of the SHA-256 of each data file that was written with it, by location.
DATA_DIGESTS = "edgecomp.data"
CONDITIONS = "edgecomp.conditions"  # a JSON list of what sizes must meet for the outputs to be right, in words
LIMITS = "edgecomp.limits"  # a JSON object of the largest value of dynamic sizes, by name
PARAMETERS = "edgecomp.parameters"  # of the uncompressed model

# TensorProto.DataType by ONNX Runtime's names.
ELEMENT_TYPES = (
    *("undefined", "float", "uint8", "int8", "uint16", "int16", "int32", "int64", "string", "bool", "float16", "double"),
    *("uint32", "uint64", "complex64", "complex128", "bfloat16", "float8e4m3fn", "float8e4m3fnuz", "float8e5m2"),
    *("float8e5m2fnuz", "uint4", "int4", "float4e2m1"),
)
_OWN_NAMES = frozenset(operator.onnx_name for operator in OPERATORS.values())

_MODEL_PRODUCER, _MODEL_GRAPH, _MODEL_METADATA, _MODEL_TRAINING, _MODEL_FUNCTIONS = 2, 7, 14, 20, 25
_TRAINING_GRAPHS = (1, 2)
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_SPARSE_INITIALIZER = 1, 5, 11, 12, 15
_FUNCTION_NAME, _FUNCTION_NODE, _FUNCTION_DOMAIN, _FUNCTION_ATTRIBUTE = 1, 7, 10, 11
_NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN = 4, 5, 7
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = 5, 6, 10, 11
_ATTRIBUTE_SPARSE_TENSOR, _ATTRIBUTE_SPARSE_TENSORS = 22, 23
_SPARSE_PARTS = (1, 2)  # values and indices, each a tensor
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_EXTERNAL_DATA = 1, 2, 8, 13
_ENTRY_KEY, _ENTRY_VALUE = 1, 2  # of external data and of metadata alike
_VALUE_NAME, _VALUE_TYPE, _TYPE_TENSOR, _TENSOR_ELEMENT, _TENSOR_SHAPE = 1, 2, 1, 1, 2
_SHAPE_DIM, _DIM_VALUE, _DIM_NAME = 1, 1, 2

Operator = tuple[str, str]  # domain and name; ONNX's own domain is ""


@dataclass
class OnnxFile:
    """An ONNX model on disk.

    Args:
        path: the `.onnx` or `.ort` file.
        operators: what nodes call, in the graph, those inside its nodes, and in functions.
        functions: that the file defines, by which runtimes run nodes that no library has a kernel for.
        external: bytes that each external data file must have at least, by its location relative to the model.
        inputs: type and shape of each, such as `tensor(int64) ['batch', 5]`.
        outputs: as above.
        producer: the tool that wrote it.
        metadata: by key.
        checked: the files themselves, links followed, as they were when they were checked, in the order of `files`.

    """

    path: Path
    operators: set[Operator] = field(default_factory=set)
    functions: set[Operator] = field(default_factory=set)
    external: dict[str, int] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    producer: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    checked: tuple[Path, ...] = ()

    @property
    def domains(self) -> frozenset[str]:
        """Of what nodes call; `""` is ONNX's own."""
        return frozenset(domain for domain, _ in self.operators)

    @property
    def own_operators(self) -> list[str]:
        """Operators of our library that nodes call, which make the model fast."""
        return sorted(name for domain, name in self.operators if domain == DOMAIN and name in _OWN_NAMES)

    @property
    def unknown_operators(self) -> list[str]:
        """Operators of our domain that our library does not have: renamed by a tool, or of a newer edgecomp."""
        return sorted(name for domain, name in self.operators if domain == DOMAIN and name not in _OWN_NAMES)

    @property
    def uses_edgecomp(self) -> bool:
        """Whether a node calls an operator that our library has."""
        return bool(self.own_operators)

    @property
    def needs_library(self) -> bool:
        """Whether a node calls an operator of ours without its function; ONNX Runtime saves none of them."""
        return any((DOMAIN, name) not in self.functions for name in self.own_operators)

    @property
    def files(self) -> tuple[Path, ...]:
        """The model file and its external data files."""
        return (self.path, *(self.path.parent / location for location in self.external))


def read_onnx(path: Path) -> OnnxFile:
    """Read the structure of an ONNX model, and check that its external data is complete and, for our exports, of the same export.

    Raises:
        ModelError: no such file.
        CheckpointError: the file is no ONNX model or is cut short; a data file is missing, cut short, of another
            export, or outside the folder; an operator of ours is not in this edgecomp's library and brings no function.

    """
    found = OnnxFile(path)
    model = map_model(path)
    try:
        _visit_model(model, found)
        digests = _digests(found.metadata.get(DATA_DIGESTS, "{}"))
    except (ValueError, RecursionError) as error:  # the latter from thousands of graphs inside each other
        raise CheckpointError(
            f"{path} is not a complete ONNX model ({error}; {path.stat().st_size} bytes); copy or export it again"
        ) from error
    data = [check_data_file(path, location, needed, digests.get(location)) for location, needed in found.external.items()]
    found.checked = (path.resolve(), *data)
    require_known(found)
    return found


def map_model(path: Path) -> memoryview:
    """The bytes of a model's file.

    Raises:
        ModelError: no such file.
        CheckpointError: it is empty.

    """
    if not path.is_file():
        raise ModelError(f"no ONNX model at {path}: the path must name an existing .onnx or .ort file")
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path} is empty; export the model again")
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def require_known(model: OnnxFile) -> None:
    """Refuse operators of our domain that nothing can run.

    Raises:
        CheckpointError: naming them.

    """
    lost = [name for name in model.unknown_operators if (DOMAIN, name) not in model.functions]
    if lost:
        raise CheckpointError(
            f"{model.path} calls {', '.join(lost)} of {DOMAIN}, which this edgecomp's library does not have, and which the file "
            "has no function for: install the edgecomp that it was exported by, or export the model again"
        )


def _visit_model(data: memoryview, found: OnnxFile) -> None:
    graphs = []
    for key, value in fields(data):
        if key == _MODEL_GRAPH:
            graphs.append(value)
            _visit_graph(value, found)
        elif key == _MODEL_TRAINING:
            for inner, graph in fields(value):
                if inner in _TRAINING_GRAPHS:
                    _visit_graph(graph, found)
        elif key == _MODEL_FUNCTIONS:
            _visit_function(value, found)
        elif key == _MODEL_METADATA:
            name, content = _entry(value)
            found.metadata[name] = content
        elif key == _MODEL_PRODUCER:
            found.producer = text(value)
    if not graphs:
        raise ValueError("it has no graph")
    _visit_signature(graphs[-1], found)


def _digests(content: str) -> dict[str, str]:
    digests = parse_json(content)
    if not isinstance(digests, dict) or not all(isinstance(digest, str) for digest in digests.values()):
        raise ValueError(f"its metadata {DATA_DIGESTS} is no JSON object of digests")
    return digests


def _visit_function(data: memoryview, found: OnnxFile) -> None:
    names = {_FUNCTION_DOMAIN: "", _FUNCTION_NAME: ""}
    for key, value in fields(data):
        if key == _FUNCTION_NODE:
            _visit_node(value, found)
        elif key == _FUNCTION_ATTRIBUTE:
            _visit_attribute(value, found)
        elif key in names:
            names[key] = text(value)
    found.functions.add((names[_FUNCTION_DOMAIN], names[_FUNCTION_NAME]))


def _visit_graph(data: memoryview, found: OnnxFile) -> None:
    for key, value in fields(data):
        if key == _GRAPH_NODE:
            _visit_node(value, found)
        elif key == _GRAPH_INITIALIZER:
            _visit_tensor(value, found.external)
        elif key == _GRAPH_SPARSE_INITIALIZER:
            _visit_sparse_tensor(value, found.external)


def _visit_node(data: memoryview, found: OnnxFile) -> None:
    names = {_NODE_DOMAIN: "", _NODE_OPERATOR: ""}
    for key, value in fields(data):
        if key in names:
            names[key] = text(value)
        elif key == _NODE_ATTRIBUTE:
            _visit_attribute(value, found)
    found.operators.add((names[_NODE_DOMAIN], names[_NODE_OPERATOR]))


def _visit_attribute(data: memoryview, found: OnnxFile) -> None:
    single = []
    for key, value in fields(data):
        if key in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS):
            _visit_graph(value, found)
        elif key in (_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS):
            _visit_tensor(value, found.external)
        elif key in (_ATTRIBUTE_SPARSE_TENSOR, _ATTRIBUTE_SPARSE_TENSORS):
            _visit_sparse_tensor(value, found.external)
        if key in (_ATTRIBUTE_TENSOR, _ATTRIBUTE_SPARSE_TENSOR):
            single.append(key)
    if len(single) > 1:
        raise ValueError("an attribute has a tensor in parts")  # which readers of protobuf put together


def _visit_sparse_tensor(data: memoryview, external: dict[str, int]) -> None:
    parts = [(key, value) for key, value in fields(data) if key in _SPARSE_PARTS]
    if len(parts) > len({key for key, _ in parts}):
        raise ValueError("a sparse tensor has values or indices in parts")
    for _, part in parts:
        _visit_tensor(part, external)


def _visit_tensor(data: memoryview, external: dict[str, int]) -> None:
    entries: list[tuple[str, str]] = []
    dims: list[int] = []
    element_type = 0
    for key, value in fields(data):
        if key == _TENSOR_EXTERNAL_DATA:
            entries.append(_entry(value))
        elif key == _TENSOR_DIMS:
            dims += numbers(value)
        elif key == _TENSOR_TYPE:
            element_type = next(reversed(numbers(value)), element_type)
    place = place_of(entries, dims, element_type)
    if place is not None:
        location, end = place
        external[location] = max(external.get(location, 0), end)


def _visit_signature(graph: memoryview, found: OnnxFile) -> None:
    """Inputs and outputs of the main graph; old files list their initialisers among the inputs."""
    constants = set()
    for key, value in fields(graph):
        if key == _GRAPH_INITIALIZER:
            constants |= {text(name) for inner, name in fields(value) if inner == _TENSOR_NAME}
    for key, value in fields(graph):
        if key in (_GRAPH_INPUT, _GRAPH_OUTPUT):
            name, described = _value(value)
            if key == _GRAPH_OUTPUT:
                found.outputs[name] = described
            elif name not in constants:
                found.inputs[name] = described


def _value(data: memoryview) -> tuple[str, str]:
    """Name of a ValueInfoProto, and its type and shape."""
    name, described = "", "of another type than tensor"
    for key, value in fields(data):
        if key == _VALUE_NAME:
            name = text(value)
        elif key == _VALUE_TYPE:
            for inner, tensor in fields(value):
                if inner == _TYPE_TENSOR:
                    described = _tensor_type(tensor)
    return name, described


def _tensor_type(data: memoryview) -> str:
    element, dims = 0, None
    for key, value in fields(data):
        if key == _TENSOR_ELEMENT:
            element = number(value)
        elif key == _TENSOR_SHAPE:
            dims = [_dim(dim) for inner, dim in fields(value) if inner == _SHAPE_DIM]
    return describe_tensor(element, dims)


def _dim(data: memoryview) -> int | str | None:
    for key, value in fields(data):
        if key == _DIM_VALUE:
            return number(value)
        if key == _DIM_NAME:
            return text(value)
    return None


def describe_tensor(element: int, dims: list[int | str | None] | None) -> str:
    """Type and shape as ONNX Runtime writes them, such as `tensor(float) ['batch', 5]`."""
    name = ELEMENT_TYPES[element] if 0 <= element < len(ELEMENT_TYPES) else f"type {element}"
    return f"tensor({name}) {'of any rank' if dims is None else dims}"


def _entry(data: memoryview) -> tuple[str, str]:
    """Key and value of a StringStringEntryProto."""
    pair = {key: text(value) for key, value in fields(data) if key in (_ENTRY_KEY, _ENTRY_VALUE)}
    return pair.get(_ENTRY_KEY, ""), pair.get(_ENTRY_VALUE, "")
