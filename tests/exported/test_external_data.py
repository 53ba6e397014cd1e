"""ONNX files of strangers: their data lies in their own folder, in files, within the files' sizes, in whatever part of a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper
from onnx_models import embedding_table, save_encoder

from edgecomp.errors import CheckpointError
from edgecomp.exported.onnx_file import read_onnx
from edgecomp.inspect.exported import inspect_onnx

OUTSIDE = "../secret"
SCALAR = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
OUT = helper.make_tensor_value_info("o", TensorProto.FLOAT, [4])


def external(location: str, **entries: object) -> TensorProto:
    """A tensor of four floats in a file."""
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def graph_with(tensor: TensorProto) -> onnx.GraphProto:
    return helper.make_graph([helper.make_node("Identity", ["w"], ["o"])], "g", [], [OUT], [tensor])


def dense(tensor: TensorProto) -> onnx.ModelProto:
    return helper.make_model(graph_with(tensor))


def sparse_of(values: TensorProto | None = None, indices: TensorProto | None = None) -> onnx.SparseTensorProto:
    return helper.make_sparse_tensor(
        values or numpy_helper.from_array(np.zeros(4, np.float32), "w"),
        indices or numpy_helper.from_array(np.arange(4), "i"),
        [8],
    )


def sparse_values(tensor: TensorProto) -> onnx.ModelProto:
    model = dense(numpy_helper.from_array(np.zeros(4, np.float32), "v"))
    model.graph.sparse_initializer.append(sparse_of(values=tensor))
    return model


def sparse_indices(tensor: TensorProto) -> onnx.ModelProto:
    model = dense(numpy_helper.from_array(np.zeros(4, np.float32), "v"))
    model.graph.sparse_initializer.append(sparse_of(indices=tensor))
    return model


def node_with(name: str, kind: int, value: object, *, several: bool = False) -> onnx.NodeProto:
    attribute = AttributeProto(name=name, type=kind)
    field = {AttributeProto.TENSOR: "t", AttributeProto.SPARSE_TENSOR: "sparse_tensor", AttributeProto.GRAPH: "g"}[kind]
    if several:
        getattr(attribute, {"t": "tensors", "sparse_tensor": "sparse_tensors", "g": "graphs"}[field]).append(value)
    else:
        getattr(attribute, field).CopyFrom(value)
    node = helper.make_node("Constant", [], ["o"])
    node.attribute.append(attribute)
    return node


def of_nodes(node: onnx.NodeProto) -> onnx.ModelProto:
    return helper.make_model(helper.make_graph([node], "g", [], [OUT]))


def training(tensor: TensorProto) -> onnx.ModelProto:
    model = dense(numpy_helper.from_array(np.zeros(4, np.float32), "w"))
    model.training_info.add().algorithm.CopyFrom(graph_with(tensor))
    return model


def function_body(tensor: TensorProto) -> onnx.ModelProto:
    model = dense(numpy_helper.from_array(np.zeros(4, np.float32), "w"))
    node = node_with("value", AttributeProto.TENSOR, tensor)
    model.functions.append(helper.make_function("a", "F", [], ["o"], [node], [helper.make_opsetid("", 17)]))
    return model


def function_default(tensor: TensorProto) -> onnx.ModelProto:
    model = function_body(numpy_helper.from_array(np.zeros(4, np.float32), "w"))
    model.functions[0].attribute_proto.append(node_with("d", AttributeProto.TENSOR, tensor).attribute[0])
    return model


PLACES: dict[str, Callable[[TensorProto], onnx.ModelProto]] = {
    "an initialiser": dense,
    "values of a sparse initialiser": sparse_values,
    "indices of a sparse initialiser": sparse_indices,
    "an attribute": lambda tensor: of_nodes(node_with("value", AttributeProto.TENSOR, tensor)),
    "an attribute of several": lambda tensor: of_nodes(node_with("values", AttributeProto.TENSOR, tensor, several=True)),
    "a sparse attribute": lambda tensor: of_nodes(node_with("value", AttributeProto.SPARSE_TENSOR, sparse_of(tensor))),
    "a sparse attribute of several": lambda tensor: of_nodes(
        node_with("values", AttributeProto.SPARSE_TENSOR, sparse_of(indices=tensor), several=True)
    ),
    "a subgraph": lambda tensor: of_nodes(node_with("body", AttributeProto.GRAPH, graph_with(tensor))),
    "a subgraph of several": lambda tensor: of_nodes(node_with("bodies", AttributeProto.GRAPH, graph_with(tensor), several=True)),
    "a function's body": function_body,
    "a function's default": function_default,
    "a graph for training": training,
}


def save(folder: Path, model: onnx.ModelProto) -> Path:
    (folder / "model").mkdir()
    (folder / "secret").write_bytes(bytes(64))
    (folder / "model" / "w.bin").write_bytes(bytes(64))
    path = folder / "model" / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("place", PLACES)
def test_data_outside_the_folder_is_refused_in_every_part(tmp_path: Path, place: str) -> None:
    path = save(tmp_path, PLACES[place](external(OUTSIDE, length=16)))
    with pytest.raises(CheckpointError, match="outside its folder"):
        inspect_onnx(path)


@pytest.mark.parametrize("place", PLACES)
def test_data_beside_the_model_is_found_in_every_part(tmp_path: Path, place: str) -> None:
    path = save(tmp_path, PLACES[place](external("w.bin", offset=16, length=16)))
    assert read_onnx(path).files == (path, path.parent / "w.bin")


@pytest.mark.parametrize("place", PLACES)
def test_a_link_out_of_the_folder_is_refused_with_where_it_leads(tmp_path: Path, place: str) -> None:
    path = save(tmp_path, PLACES[place](external("link.bin", length=16)))
    (path.parent / "link.bin").symlink_to("../secret")
    with pytest.raises(CheckpointError, match=rf"link\.bin is a link to {tmp_path / 'secret'}"):
        read_onnx(path)


def test_a_linked_folder_leads_out_as_well(tmp_path: Path) -> None:
    path = save(tmp_path, dense(external("inner/secret", length=16)))
    (path.parent / "inner").symlink_to("..")
    with pytest.raises(CheckpointError, match="is a link to"):
        read_onnx(path)


PLACES_IN_A_FILE = [
    ({"offset": 60, "length": 16}, "at least 76 bytes and holds 64"),
    ({"offset": 60}, "at least 76 bytes and holds 64"),  # four floats, without a length
    ({"offset": 2**40, "length": 0}, "at least"),
    ({"offset": -16, "length": 16}, "offset of external data must be a number of bytes, got '-16'"),
    ({"offset": 0, "length": -1}, "length of external data must be"),
    ({"offset": 2**64 - 16, "length": 32}, "offset of external data must be"),
    ({"offset": " 4", "length": 16}, "must be a number of bytes"),
    ({"offset": "0x10", "length": 16}, "must be a number of bytes"),
    ({"offset": "1_0", "length": 16}, "must be a number of bytes"),
    ({"offset": "4" * 5000, "length": 16}, "must be a number of bytes"),
    ({"prepacked_0": "key|0;1000000;x"}, "prepacked"),
]


@pytest.mark.parametrize(("entries", "message"), PLACES_IN_A_FILE)
def test_places_outside_the_file_are_refused(tmp_path: Path, entries: dict[str, object], message: str) -> None:
    path = save(tmp_path, dense(external("w.bin", **entries)))
    with pytest.raises(CheckpointError, match=message):
        inspect_onnx(path)


def test_an_address_of_memory_is_no_file(tmp_path: Path) -> None:
    """A folder may hold a file of the very name that ONNX Runtime has for addresses."""
    location = "*/_ORT_MEM_ADDR_/*"
    path = save(tmp_path, dense(external(location, offset=4096, length=16)))
    named = path.parent / location
    named.parent.mkdir(parents=True)
    named.write_bytes(bytes(8192))
    with pytest.raises(CheckpointError, match="in no file"):
        read_onnx(path)


def test_two_locations_of_one_tensor_are_refused(tmp_path: Path) -> None:
    tensor = external("w.bin", length=16)
    tensor.external_data.add(key="location", value="w.bin")
    with pytest.raises(CheckpointError, match="two entries location"):
        read_onnx(save(tmp_path, dense(tensor)))


def test_a_tensor_in_parts_is_refused(tmp_path: Path) -> None:
    """Readers of protobuf put parts together: an offset of the second part would count for the first."""
    tensor = external("w.bin", length=16)
    more = TensorProto(external_data=[onnx.StringStringEntryProto(key="location", value="w.bin")])
    node = node_with("value", AttributeProto.TENSOR, tensor)
    attribute = node.attribute[0].SerializeToString()
    part = more.SerializeToString()
    attribute += bytes([5 << 3 | 2, len(part)]) + part
    name = b"\x12\x01o\x22\x08Constant"
    raw_node = name + bytes([5 << 3 | 2, len(attribute)]) + attribute
    raw_graph = bytes([1 << 3 | 2, len(raw_node)]) + raw_node
    path = save(tmp_path, dense(external("w.bin", length=16)))
    path.write_bytes(bytes([7 << 3 | 2, len(raw_graph)]) + raw_graph)
    with pytest.raises(CheckpointError, match="in parts"):
        read_onnx(path)


def test_links_of_a_cache_are_inside(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "models--a" / "blobs", tmp_path / "models--a" / "snapshots" / "r"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    save_encoder(tmp_path / "m.onnx", embedding_table(), external=True)
    for name, blob in (("m.onnx", "aa"), ("m.data", "bb")):
        (tmp_path / name).rename(blobs / blob)
        (snapshot / name).symlink_to(f"../../blobs/{blob}")
    read = read_onnx(snapshot / "m.onnx")
    assert read.files == (snapshot / "m.onnx", snapshot / "m.data")
    assert read.checked == ((blobs / "aa").resolve(), (blobs / "bb").resolve())
    (snapshot / "m.data").unlink()
    (snapshot / "m.data").symlink_to("../../../elsewhere")
    (tmp_path / "elsewhere").write_bytes((blobs / "bb").read_bytes())
    with pytest.raises(CheckpointError, match="is a link to"):
        read_onnx(snapshot / "m.onnx")
