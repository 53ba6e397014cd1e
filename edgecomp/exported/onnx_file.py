"""What an `.onnx` file says about itself: its external data files and the operator domains that it calls.

Reads the protobuf wire format directly (https://protobuf.dev/programming-guides/encoding/), since the onnx package would load every
weight, and the device side has no onnx. Field numbers are those of onnx.proto, which only ever grow.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgecomp.bounded import parse_json
from edgecomp.errors import CheckpointError, ModelError
from edgecomp.exported.external_data import check_data_file, place_of
from edgecomp.ops import DOMAIN

# Metadata of an exported model: a JSON object of the SHA-256 of each data file that was written with it, by location.
DATA_DIGESTS = "edgecomp.data"

_MODEL_GRAPH, _MODEL_METADATA, _MODEL_TRAINING, _MODEL_FUNCTIONS = 7, 14, 20, 25
_TRAINING_GRAPHS = (1, 2)
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE_INITIALIZER = 1, 5, 15
_FUNCTION_NODE, _FUNCTION_ATTRIBUTE = 7, 11
_NODE_ATTRIBUTE, _NODE_DOMAIN = 5, 7
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = 5, 6, 10, 11
_ATTRIBUTE_SPARSE_TENSOR, _ATTRIBUTE_SPARSE_TENSORS = 22, 23
_SPARSE_PARTS = (1, 2)  # values and indices, each a tensor
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_EXTERNAL_DATA = 1, 2, 13
_ENTRY_KEY, _ENTRY_VALUE = 1, 2  # of external data and of metadata alike


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX model on disk.

    Args:
        path: the `.onnx` file.
        domains: domains of the nodes in the graph and in the functions; `""` is ONNX's own.
        external: bytes that each external data file must have at least, by its location relative to the model.
        checked: the files themselves, links followed, as they were when they were checked, in the order of `files`.

    """

    path: Path
    domains: frozenset[str]
    external: Mapping[str, int] = field(default_factory=dict)
    checked: tuple[Path, ...] = ()

    @property
    def uses_edgecomp(self) -> bool:
        """Whether a node belongs to our domain, so that our library makes the model fast."""
        return DOMAIN in self.domains

    @property
    def files(self) -> tuple[Path, ...]:
        """The model file and its external data files."""
        return (self.path, *(self.path.parent / location for location in self.external))


def read_onnx(path: Path) -> OnnxFile:
    """Read the structure of an ONNX model, and check that its external data is complete and, for our exports, of the same export.

    Raises:
        ModelError: no such file.
        CheckpointError: the file is no ONNX model or is cut short; a data file is missing, cut short, of another
            export, or outside the folder.

    """
    if not path.is_file():
        raise ModelError(f"no ONNX model at {path}: the path must name an existing .onnx file")
    domains: set[str] = set()
    external: dict[str, int] = {}
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path} is empty; export the model again")
    with path.open("rb") as file:
        model = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        digests = _visit_model(memoryview(model), domains, external)
    except (ValueError, RecursionError) as error:  # the latter from thousands of graphs inside each other
        raise CheckpointError(
            f"{path} is not a complete ONNX model ({error}; {path.stat().st_size} bytes); copy or export it again"
        ) from error
    data = [check_data_file(path, location, needed, digests.get(location)) for location, needed in external.items()]
    return OnnxFile(path, frozenset(domains), external, (path.resolve(), *data))


def _visit_model(data: memoryview, domains: set[str], external: dict[str, int]) -> dict[str, str]:
    """Collect domains and data files; returns the digests of data files that the model's metadata tells."""
    has_graph = False
    digests: dict[str, str] = {}
    for number, value in _fields(data):
        if number == _MODEL_GRAPH:
            has_graph = True
            _visit_graph(value, domains, external)
        elif number == _MODEL_TRAINING:
            for inner, graph in _fields(value):
                if inner in _TRAINING_GRAPHS:
                    _visit_graph(graph, domains, external)
        elif number == _MODEL_FUNCTIONS:
            for inner, part in _fields(value):
                if inner == _FUNCTION_NODE:
                    _visit_node(part, domains, external)
                elif inner == _FUNCTION_ATTRIBUTE:
                    _visit_attribute(part, domains, external)
        elif number == _MODEL_METADATA:
            key, text = _entry(value)
            if key == DATA_DIGESTS:
                digests = _digests(text)
    if not has_graph:
        raise ValueError("it has no graph")
    return digests


def _digests(text: str) -> dict[str, str]:
    digests = parse_json(text)
    if not isinstance(digests, dict) or not all(isinstance(digest, str) for digest in digests.values()):
        raise ValueError(f"its metadata {DATA_DIGESTS} is no JSON object of digests")
    return digests


def _visit_graph(data: memoryview, domains: set[str], external: dict[str, int]) -> None:
    for number, value in _fields(data):
        if number == _GRAPH_NODE:
            _visit_node(value, domains, external)
        elif number == _GRAPH_INITIALIZER:
            _visit_tensor(value, external)
        elif number == _GRAPH_SPARSE_INITIALIZER:
            _visit_sparse_tensor(value, external)


def _visit_node(data: memoryview, domains: set[str], external: dict[str, int]) -> None:
    domain = ""
    for number, value in _fields(data):
        if number == _NODE_DOMAIN:
            domain = _text(value)
        elif number == _NODE_ATTRIBUTE:
            _visit_attribute(value, domains, external)
    domains.add(domain)


def _visit_attribute(data: memoryview, domains: set[str], external: dict[str, int]) -> None:
    single = []
    for number, value in _fields(data):
        if number in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS):
            _visit_graph(value, domains, external)
        elif number in (_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS):
            _visit_tensor(value, external)
        elif number in (_ATTRIBUTE_SPARSE_TENSOR, _ATTRIBUTE_SPARSE_TENSORS):
            _visit_sparse_tensor(value, external)
        if number in (_ATTRIBUTE_TENSOR, _ATTRIBUTE_SPARSE_TENSOR):
            single.append(number)
    if len(single) > 1:
        raise ValueError("an attribute has a tensor in parts")  # which readers of protobuf put together


def _visit_sparse_tensor(data: memoryview, external: dict[str, int]) -> None:
    parts = [(number, value) for number, value in _fields(data) if number in _SPARSE_PARTS]
    if len(parts) > len({number for number, _ in parts}):
        raise ValueError("a sparse tensor has values or indices in parts")
    for _, part in parts:
        _visit_tensor(part, external)


def _visit_tensor(data: memoryview, external: dict[str, int]) -> None:
    entries: list[tuple[str, str]] = []
    dims: list[int] = []
    element_type = 0
    for number, value in _fields(data):
        if number == _TENSOR_EXTERNAL_DATA:
            entries.append(_entry(value))
        elif number == _TENSOR_DIMS:
            dims += _numbers(value)
        elif number == _TENSOR_TYPE:
            element_type = next(reversed(_numbers(value)), element_type)
    place = place_of(entries, dims, element_type)
    if place is not None:
        location, end = place
        external[location] = max(external.get(location, 0), end)


def _entry(data: memoryview) -> tuple[str, str]:
    """Key and value of a StringStringEntryProto."""
    pair = {number: _text(text) for number, text in _fields(data)}
    return pair.get(_ENTRY_KEY, ""), pair.get(_ENTRY_VALUE, "")


def _text(value: memoryview) -> str:
    return bytes(value).decode("utf-8")


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and bytes of each field of a message; a number's are a varint (`_numbers`), or empty where it is of fixed size."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        start = position
        match key & 7:
            case 0:
                _, position = _varint(data, position)
            case 1:
                start = position = position + 8
            case 2:
                length, start = _varint(data, position)
                position = start + length
            case 5:
                start = position = position + 4
            case wire_type:
                raise ValueError(f"unknown wire type {wire_type}")
        if position > len(data):
            raise ValueError("a field runs past the end")
        yield key >> 3, data[start:position]


def _numbers(data: memoryview) -> list[int]:
    """The numbers of a field, one or packed."""
    numbers, position = [], 0
    while position < len(data):
        number, position = _varint(data, position)
        numbers.append(number)
    return numbers


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(data) and shift < 64:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError("a number runs past the end")
