from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx_models import embedding_table, save_encoder

from edgecomp.errors import ConfigError
from edgecomp.formats import dense, lut
from edgecomp.inspect.exported import inspect_executorch, inspect_onnx
from edgecomp.inspect.model import inspect_layers, inspect_model
from edgecomp.size import compared, count_bytes, shipped
from edgecomp.tensor import ConvParams, Factor, LayerPlan, Stage, TensorSpec


def lut_factor(n: int, k: int, bits: int = 4) -> Factor:
    blocks = lut.round_up(k, 32) // 32
    return lut.pack(
        np.zeros((n, k), np.uint8),
        np.arange(2**bits, dtype=np.int8)[None],
        np.ones((n, blocks), np.int8),
        np.ones(n, np.float32),
        bits=bits,
        block_size=32,
    )


def plan(*stages: Stage, bias: str | None = None) -> LayerPlan:
    return LayerPlan((stages,), bias)


FACTORS = {
    "table": lut_factor(100, 64),
    "basis": dense.pack(np.ones((8, 64), np.float32)),
    "first": lut_factor(48, 8),
    "second": lut_factor(32, 8),
    "kernel": lut_factor(16, 9 * 32, 3),
}
PLANS = {
    "embedding": plan(Stage("table", "gather")),
    "first": plan(Stage("basis", "linear"), Stage("first", "linear")),
    "second": plan(Stage("basis", "linear"), Stage("second", "linear")),
    "conv": plan(Stage("kernel", "conv", ConvParams(3, (3, 3)))),
    "head": plan(Stage("table", "linear")),
}
PARAMETERS = {"embedding": 6400, "first": 48 * 64, "second": 32 * 64, "conv": 16 * 27, "head": 0}
DENSE = {"norm": np.ones(64, np.float32), "positions": np.arange(7)}


def test_bytes_are_those_of_the_arrays_and_the_formula_of_the_format() -> None:
    report = count_bytes({"w": lut_factor(1536, 384)}, {}, 1536 * 384)
    assert report.packed_bytes == 319696  # lut.md, "Size"
    assert report.bits_per_weight == pytest.approx(4.336, abs=5e-4)
    assert report.ratio_to(32) == pytest.approx(4 * 1536 * 384 / 319696)
    assert sum(report.array_bytes.values()) == report.packed_bytes
    assert report.array_bytes["lut.codes"] == 294912


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (1000, "4.00x smaller than float32, 2.00x than float16"),
        (3000, "1.33x smaller than float32, 1.50x larger than float16"),
        (5000, "1.25x larger than float32, 2.50x than float16"),
    ],
)
def test_what_ships_is_compared_with_the_parameters(size: int, expected: str) -> None:
    assert compared(size, 1000) == expected
    assert shipped(size, 1000) == f"total: {size:,} bytes in the files for 1,000 parameters, {expected}"
    assert shipped(size, None) == f"total: {size:,} bytes"  # of another tool's


def test_no_parameters_is_an_error() -> None:
    with pytest.raises(ConfigError, match="positive"):
        count_bytes({}, {}, 0)


def test_rows_add_up_and_mark_what_is_shared() -> None:
    notes = {"kernel": {"relative_error": 0.25}, "basis": {"relative_error": 0.5}}
    rows = {row.name: row for row in inspect_layers(PLANS, FACTORS, PARAMETERS, notes)}
    assert sum(row.packed_bytes for row in rows.values()) == sum(factor.packed_bytes for factor in FACTORS.values())
    assert (rows["head"].packed_bytes, rows["head"].parameters, rows["head"].shared_with) == (0, 0, ("embedding",))
    assert rows["second"].shared_with == ("first",)
    assert rows["second"].packed_bytes == FACTORS["second"].packed_bytes
    assert rows["second"].bits_per_weight is None
    assert rows["first"].formats == "dense + lut"
    assert rows["first"].bits == (None, 4)
    assert rows["conv"].bits_per_weight == pytest.approx(8 * FACTORS["kernel"].packed_bytes / (16 * 27))
    assert (rows["conv"].relative_error, rows["first"].relative_error) == (0.25, None)


def test_a_model_is_inspected_with_each_tensor_once(tmp_path: Path) -> None:
    from torch import nn

    from edgecomp.checkpoint import CompressedModel
    from edgecomp.modules import PackedFactor, PackedLayer

    factors = {"w": lut_factor(32, 64)}
    layer = PackedLayer(plan(Stage("w", "linear")), {"w": PackedFactor(factors["w"])}, None)
    module = nn.Sequential(layer, nn.LayerNorm(32), layer)
    model = CompressedModel(
        module=module,
        inputs=(TensorSpec("x", "float32", ("batch", 64)),),
        outputs=("y",),
        plans={"0": layer.plan, "2": layer.plan},
        source={"kind": "factory", "model": "toy"},
        factors=factors,
        dense={"1.weight": module[1].weight.detach(), "1.bias": module[1].bias.detach()},
        recipe={"name": "lut-4bit"},
        parameters=32 * 64 + 2 * 32,
        layer_parameters={"0": 32 * 64, "2": 0},
        provenance={"factors": {"w": {"relative_error": 0.1}}},
    )
    result = inspect_model(model, "toy.ec")
    assert result.size.packed_bytes == factors["w"].packed_bytes + 2 * 32 * 4
    assert result.size.parameters == 32 * 64 + 2 * 32
    assert (result.dense_tensors, result.dense_bytes, result.source) == (2, 256, "toy")
    assert f"{result.size.bits_per_weight:.3f} bits per weight" in result.to_markdown()
    assert result.to_json()["size"]["bits_per_weight"] == result.size.bits_per_weight
    assert "checkpoint" not in result.summary()
    model.provenance = {"dense": {"1.weight": {"kept": "float32"}, "1.bias": {"relative_error": 1e-4}}}
    model.save(tmp_path / "toy.ec")
    told = inspect_model(model, "toy.ec", tmp_path / "toy.ec").summary()
    assert "256 bytes, 1 of them float32 for what float16 would lose" in told
    assert f"checkpoint: {sum(path.stat().st_size for path in (tmp_path / 'toy.ec').iterdir()):,} bytes" in told


def test_an_exported_model_is_inspected_by_its_files(tmp_path: Path) -> None:
    path = save_encoder(tmp_path / "m.onnx", embedding_table(), external=True)
    result = inspect_onnx(path)
    assert result.bytes == path.stat().st_size + (tmp_path / "m.data").stat().st_size
    assert result.inputs["input_ids"] == "tensor(int64) ['batch', 'sequence']"
    assert "sha256" in result.to_markdown()


def test_a_program_is_inspected_by_its_files(external_program: Path) -> None:
    result = inspect_executorch(external_program)
    assert result.bytes == external_program.stat().st_size + external_program.with_suffix(".ptd").stat().st_size
    assert result.inputs == {"ids": "int64 [batch <= 4, sequence <= 16]"}
    assert result.outputs == {"y": "float32 [any <= 4, any <= 16, any <= 200]"}
    assert (result.operators, result.backends) == (("edgecomp::lut_gather.out", "edgecomp::lut_matmul.out"), ())
    text = result.to_markdown()
    assert '- recipe: {"method": "random"}' in text
    assert "- backends: none" in text
    assert result.to_json()["manifest"]["provenance"] == {"source": "test"}
