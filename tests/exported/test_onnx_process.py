"""ONNX models in a process of their own: as in this one, and a runtime that dies takes nothing with it."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import onnx
import onnx_models
import pytest
from onnx import TensorProto, helper

from edgecomp.errors import CheckpointError, ModelError, RuntimeUnavailableError
from edgecomp.exported.onnx_process import OnnxProcess
from edgecomp.exported.session import OnnxModel

X = {"input_ids": np.array([[0, 2, 1]]), "attention_mask": np.ones((1, 3), np.int64)}


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    return onnx_models.save_encoder(tmp_path / "m.onnx", np.arange(16, dtype=np.float32).reshape(4, 4), external=True)


def test_as_in_this_process(encoder: Path) -> None:
    here, there = OnnxModel(encoder), OnnxProcess(encoder)
    assert there.inputs == here.inputs
    assert there.library == here.library
    expected, got = here.run(X), there.run({**X, "unknown": np.ones(1)})
    assert got.keys() == expected.keys()
    assert all(np.array_equal(got[name], expected[name]) for name in expected)


def test_errors_are_those_of_the_model(encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not run on inputs"):
        OnnxProcess(encoder).run({"input_ids": X["input_ids"]})
    with pytest.raises(ModelError, match="input input_ids must be numbers or truth values, got <U1"):
        OnnxProcess(encoder).run({**X, "input_ids": np.array([["a"]])})
    node = helper.make_node("Nothing", ["x"], ["y"])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), tmp_path / "bad.onnx")
    with pytest.raises(CheckpointError, match=r"ONNX Runtime .* refuses"):
        OnnxProcess(tmp_path / "bad.onnx")


def test_texts_are_not_handed_over(tmp_path: Path) -> None:
    text = helper.make_tensor("t", TensorProto.STRING, [1], [b"a"])
    node = helper.make_node("Constant", [], ["y"], value=text)
    graph = helper.make_graph([node], "g", [], [helper.make_tensor_value_info("y", TensorProto.STRING, [1])])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="output y must be a tensor of numbers"):
        OnnxProcess(tmp_path / "m.onnx").run({})


def test_a_runtime_that_dies_is_said_to_have_died(encoder: Path, crashing_library: Path) -> None:
    with pytest.raises(RuntimeUnavailableError, match=r"m\.onnx died of SIGABRT: the model is damaged, or made to end the runtime"):
        OnnxProcess(encoder, str(crashing_library))


def test_the_process_goes_with_the_object(encoder: Path) -> None:
    model = OnnxProcess(encoder)
    process = model._worker._process
    assert process.poll() is None
    del model
    gc.collect()
    assert process.poll() is not None
