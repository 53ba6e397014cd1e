"""A language model's folder with ONNX Runtime's MatMulNBits in the place of our products: the peer of llm.py."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgecomp import formats
from edgecomp.tensor import Factor


def matmulnbits(source: Path, target: Path) -> Path:
    """The folder's model with MatMulNBits in the place of every LutMatMul."""
    if target.exists():
        return target
    model = onnx.load(source / "model.onnx")
    arrays = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    added: dict[str, onnx.TensorProto] = {}
    for node in model.graph.node:
        if node.op_type != "LutMatMul":
            nodes.append(node)
            continue
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        n, k = attributes["N"], attributes["K"]
        names = ("codes", "codebooks", "tile_book", "scales", "row_scale")
        held = {name: numpy_helper.to_array(arrays[given]) for name, given in zip(names, node.input[1:6], strict=True)}
        bias, addend = (name for name in node.input[7:9])
        prefix, y = node.input[1], node.output[0]
        if f"{prefix}.B" not in added:
            factor = Factor("lut", (n, k), {"bits": attributes["bits"], "block_size": attributes["block_size"]}, held)
            for key, array in zip("BS", _four_bits(formats.unpack(factor)), strict=True):
                added[f"{prefix}.{key}"] = numpy_helper.from_array(array, f"{prefix}.{key}")
        product = {"N": n, "K": k, "bits": 4, "block_size": 32, "accuracy_level": 4}

        def step(op: str, inputs: list[str], outputs: list[str], domain: str = "", **given: Any) -> None:
            nodes.append(helper.make_node(op, inputs, outputs, domain=domain, **given))

        parts = [f"{y}.product"]
        step("MatMulNBits", [node.input[0], f"{prefix}.B", f"{prefix}.S"], parts, "com.microsoft", **product)
        for name in (bias, addend):
            if not name.startswith("absent"):
                parts.append(f"{y}.{len(parts)}")
                step("Add", [parts[-2], name], [parts[-1]])
        if attributes["activation"] == b"silu":
            step("Split", [parts[-1]], [f"{y}.gate", f"{y}.up"], axis=-1, num_outputs=2)
            step("QuickGelu", [f"{y}.gate"], [f"{y}.silu"], "com.microsoft", alpha=1.0)
            step("Mul", [f"{y}.silu", f"{y}.up"], [y])
        elif attributes["activation"] == b"none" and not attributes["gated"]:
            nodes[-1].output[0] = y
        else:
            sys.exit(f"{node.name} has an epilogue that this benchmark does not know")
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend([*kept, *added.values()])
    del model.metadata_props[:]
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("model.onnx*"))
    onnx.save(model, target / "model.onnx", save_as_external_data=True, location="model.onnx.data", size_threshold=256)
    return target


def _four_bits(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes uint8 `[N, K / 32, 16]` and scales float32 `[N, K / 32]` of the nearest symmetric 4-bit values."""
    blocks = weights.reshape(len(weights), -1, 32)
    extreme = np.take_along_axis(blocks, np.abs(blocks).argmax(-1, keepdims=True), -1)
    scales = np.where(extreme == 0, 1, extreme / -8).astype(np.float32)
    codes = (np.clip(np.round(blocks / scales), -8, 7) + 8).astype(np.uint8)
    return codes[..., ::2] | codes[..., 1::2] << 4, scales[..., 0]
