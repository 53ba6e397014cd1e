"""Tiny ONNX models for tests that run them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

VOCABULARY, HIDDEN = 100, 64


def embedding_table() -> np.ndarray:
    return np.random.default_rng(7).standard_normal((VOCABULARY, HIDDEN)).astype(np.float32)


def save_encoder(path: Path, table: np.ndarray, *, external: bool = False, output: str = "last_hidden_state") -> Path:
    """`output[b, s] = table[input_ids[b, s]]`; the attention mask is an input that only the callers use."""
    features = table.shape[1]
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])
    mask = helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch", "sequence"])
    hidden = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", "sequence", features])
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], [output]),
        helper.make_node("Identity", ["attention_mask"], ["mask_out"]),
    ]
    mask_out = helper.make_tensor_value_info("mask_out", TensorProto.INT64, ["batch", "sequence"])
    graph = helper.make_graph(nodes, "encoder", [ids, mask], [hidden, mask_out], [numpy_helper.from_array(table, "table")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save_model(
        model, path, save_as_external_data=external, all_tensors_to_one_file=True, location=f"{path.stem}.data", size_threshold=0
    )
    return path


def save_images(path: Path) -> Path:
    """`y = x` of images whose height is known by its name only."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3, "height", 4]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "images", [x], [y])
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def save_with_our_node(path: Path) -> Path:
    """A node of ai.edgecomp with a function body, as the exporter writes them, that no kernel runs: y = x + x."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.edgecomp", 1)]
    body = helper.make_function("ai.edgecomp", "LutMatMul", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], opsets[:1])
    graph = helper.make_graph([helper.make_node("LutMatMul", ["x"], ["y"], domain="ai.edgecomp")], "twice", [x], [y])
    onnx.save_model(helper.make_model(graph, opset_imports=opsets, functions=[body], ir_version=8), path)
    return path


def save_loop(path: Path, times: int) -> Path:
    """`y = x + 1`, so many times: a loop whose body is one addition."""
    scalar = helper.make_tensor_value_info
    one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    condition = [scalar(name, TensorProto.BOOL, []) for name in ("go_on_in", "go_on_out")]
    body = helper.make_graph(
        [helper.make_node("Identity", ["go_on_in"], ["go_on_out"]), helper.make_node("Add", ["sum_in", "one"], ["sum_out"])],
        "body",
        [scalar("step", TensorProto.INT64, []), condition[0], scalar("sum_in", TensorProto.FLOAT, [1])],
        [condition[1], scalar("sum_out", TensorProto.FLOAT, [1])],
        [one],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["times", "", "x"], ["y"], body=body)],
        "loop",
        [scalar("x", TensorProto.FLOAT, [1])],
        [scalar("y", TensorProto.FLOAT, [1])],
        [helper.make_tensor("times", TensorProto.INT64, [], [times])],
    )
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path
