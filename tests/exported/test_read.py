from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import embedding_table, save_encoder, save_images, save_with_our_node

from edgecomp.errors import CheckpointError, ConfigError
from edgecomp.exported.inputs import InputSizes, InputSpec, make_inputs
from edgecomp.exported.onnx_file import read_onnx
from edgecomp.exported.session import OnnxModel


def test_domains_and_files(tmp_path: Path) -> None:
    ours = read_onnx(save_with_our_node(tmp_path / "ours.onnx"))
    assert (ours.domains, ours.uses_edgecomp, ours.external) == ({"", "ai.edgecomp"}, True, {})
    assert ours.operators == {("", "Add"), ("ai.edgecomp", "LutMatMul")}
    assert (ours.own_operators, ours.unknown_operators, ours.needs_library) == (["LutMatMul"], [], False)
    plain = read_onnx(save_encoder(tmp_path / "m.onnx", embedding_table(), external=True))
    assert (plain.domains, plain.uses_edgecomp) == ({""}, False)
    assert plain.files == (tmp_path / "m.onnx", tmp_path / "m.data")


def renamed(path: Path, target: Path, change: Callable[[onnx.ModelProto], onnx.ModelProto | None]) -> Path:
    model = onnx.load(path)
    target.write_bytes((change(model) or model).SerializeToString())
    return target


def test_operators_are_ours_by_domain_and_name(tmp_path: Path) -> None:
    ours = save_with_our_node(tmp_path / "ours.onnx")
    prefixed = read_onnx(renamed(ours, tmp_path / "p.onnx", lambda model: onnx.compose.add_prefix(model, "p_")))
    assert (prefixed.uses_edgecomp, prefixed.unknown_operators, prefixed.needs_library) == (False, ["p_LutMatMul"], False)

    def move(model: onnx.ModelProto) -> None:
        model.graph.node[0].domain = model.functions[0].domain = model.opset_import[1].domain = "other"

    other = read_onnx(renamed(ours, tmp_path / "o.onnx", move))
    assert (other.uses_edgecomp, other.own_operators, other.unknown_operators) == (False, [], [])

    def strip(model: onnx.ModelProto) -> None:
        del model.functions[:]

    assert read_onnx(renamed(ours, tmp_path / "s.onnx", strip)).needs_library
    with pytest.raises(CheckpointError, match=r"calls p_LutMatMul of ai\.edgecomp.*no function for"):
        read_onnx(renamed(tmp_path / "p.onnx", tmp_path / "ps.onnx", strip))


def test_the_signature_is_what_onnx_runtime_says(tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    for path in (save_encoder(tmp_path / "m.onnx", embedding_table()), save_images(tmp_path / "i.onnx")):
        session, found = ort.InferenceSession(path), read_onnx(path)
        assert found.inputs == {spec.name: f"{spec.type} {spec.shape}" for spec in session.get_inputs()}
        assert found.outputs == {spec.name: f"{spec.type} {spec.shape}" for spec in session.get_outputs()}


def test_initialisers_are_no_inputs(tmp_path: Path) -> None:
    """Files of IR versions before 4 list them there."""

    def list_table(model: onnx.ModelProto) -> None:
        model.graph.input.append(helper.make_tensor_value_info("table", TensorProto.FLOAT, [100, 64]))

    path = renamed(save_encoder(tmp_path / "m.onnx", embedding_table()), tmp_path / "old.onnx", list_table)
    assert read_onnx(path).inputs.keys() == {"input_ids", "attention_mask"}


def test_external_data_inside_a_subgraph_is_found(tmp_path: Path) -> None:
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "inner.bin", "offset": "4096", "length": "16"}.items():
        tensor.external_data.add(key=key, value=value)
    out = helper.make_tensor_value_info("o", TensorProto.FLOAT, [4])
    branch = helper.make_graph([helper.make_node("Identity", ["w"], ["o"])], "branch", [], [out], [tensor])
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    graph = helper.make_graph([node], "g", [helper.make_tensor_value_info("c", TensorProto.BOOL, [])], [out])
    path = tmp_path / "if.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    (tmp_path / "inner.bin").write_bytes(bytes(4111))
    with pytest.raises(CheckpointError, match="4112 bytes and holds 4111"):
        read_onnx(path)


@pytest.mark.parametrize("location", ["../outside.bin", "/etc/passwd"])
def test_external_data_outside_the_folder_is_refused(tmp_path: Path, location: str) -> None:
    path = save_encoder(tmp_path / "m.onnx", embedding_table(), external=True)
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].external_data[0].value = location
    path.write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointError, match="outside its folder"):
        read_onnx(path)


@pytest.mark.parametrize("content", [b"", b"\x00", b"plain text, no model", b"\x3a\xff\xff\xff\xff\x0f", b"\x08\x08"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(CheckpointError):
        read_onnx(path)


def message(number: int, data: bytes) -> bytes:
    """A field of protobuf's wire format that holds bytes."""
    size, length = len(data), bytearray()
    while size >= 0x80:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([number << 3 | 2, *length, size]) + data


def graphs_inside_each_other() -> bytes:
    graph = b""
    for _ in range(2000):
        graph = message(1, message(5, message(6, graph)))  # a node with an attribute that is a graph
    return message(7, graph)


def data_file_of_a_long_name() -> bytes:
    return message(7, message(5, message(13, message(1, b"location") + message(2, b"n" * 300))))


@pytest.mark.parametrize(
    ("model", "words"),
    [(graphs_inside_each_other, "not a complete ONNX model"), (data_file_of_a_long_name, "needs its data file nnn")],
)
def test_hostile_models_are_refused(tmp_path: Path, model: Callable[[], bytes], words: str) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(model())
    with pytest.raises(CheckpointError, match=words):
        read_onnx(path)


def test_outputs_by_name_and_surplus_inputs_left_out(tmp_path: Path) -> None:
    table = embedding_table()
    artifact = OnnxModel(save_encoder(tmp_path / "m.onnx", table))
    ids = np.array([[3, 4]])
    outputs = artifact.run({"input_ids": ids, "attention_mask": np.ones_like(ids), "surplus": ids})
    np.testing.assert_array_equal(outputs["last_hidden_state"], table[ids])


def spec(name: str, dtype: str, shape: list[int | str | None]) -> InputSpec:
    return InputSpec(name, dtype, tuple(shape))


def test_inputs_follow_names_and_dynamic_sizes() -> None:
    specs = [
        spec("input_ids", "int64", ["batch", "sequence"]),
        spec("attention_mask", "int64", ["batch_size", "past_sequence_length + 1"]),
        spec("position_ids", "int64", ["batch", "sequence_length"]),
        spec("token_type_ids", "int64", [None, None]),
        spec("past_key_values.0.key", "float32", ["batch", 3, "past_sequence_length", 8]),
        spec("pixels", "float32", ["N", 3, "height", 4]),
    ]
    inputs = make_inputs(specs, InputSizes(2, 5, {"height": 6}))
    assert [list(value.shape) for value in inputs.values()] == [[2, 5], [2, 5], [2, 5], [2, 5], [2, 3, 0, 8], [2, 3, 6, 4]]
    assert 1 <= inputs["input_ids"].min() <= inputs["input_ids"].max() < 100
    assert (inputs["attention_mask"] == 1).all()
    assert not inputs["token_type_ids"].any()
    assert inputs["position_ids"].tolist() == [[0, 1, 2, 3, 4]] * 2
    with pytest.raises(ConfigError, match="--size height=VALUE"):
        make_inputs(specs, InputSizes())
    with pytest.raises(ConfigError, match=r"axis 2 of input pixels.*\.npz"):
        make_inputs([spec("pixels", "float32", [1, 3, None])], InputSizes())
