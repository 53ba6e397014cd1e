"""What is counted of a model is what its files hold, for every format, stage, target and dtype."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import tiny_models
import torch
from packed_models import chain_model, conv, conv_factor, features, gather, linear, plan, random_factor

import edgecomp
from edgecomp.checkpoint import CompressedModel
from edgecomp.exporters import ExportOptions, export
from edgecomp.formats import dense
from edgecomp.inspect.model import unique_tensors
from edgecomp.size import count_bytes
from edgecomp.tensor import ConvParams, Factor, TensorSpec

ort = pytest.importorskip("onnxruntime")

IDS, X = TensorSpec("ids", "int64", ("batch", 5)), np.random.default_rng(0).standard_normal
CONV = ConvParams(64, (3, 3), (2, 1), (1, 1, 1, 1), groups=2)
STAGES = {
    "linear": (plan([linear()], bias=True), features(96), X((3, 96)), (40, 96)),
    "gather": (plan([gather()]), IDS, np.array([[0, 39, 17, 1, 5]]), (40, 96)),
    "conv": (plan([conv(CONV)], bias=True), TensorSpec("x", "float32", ("batch", 64, 9, 7)), X((2, 64, 9, 7)), (40, 9 * 32)),
}
DTYPES = {"float16": np.float16, "float32": np.float32}


def factor(kind: str, stage: str, shape: tuple[int, int]) -> Factor:
    if kind == "lut":
        return conv_factor(shape[0], CONV, permuted=True) if stage == "conv" else random_factor(*shape, books=2, permuted=True)
    values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    if stage == "linear":
        values[:, ::2] = 0.1  # so that equal values alone tell nothing
    return dense.pack(values, DTYPES[kind])


def counted(model: CompressedModel) -> int:
    return count_bytes(model.factors, unique_tensors(model.dense), model.parameters).packed_bytes


def weight_bytes(path: Path) -> int:
    """Bytes of the initialisers of an ONNX file; whole numbers of 64 bits are sizes of the graph."""
    graph = ir.load(path).graph
    tensors = [value.const_value for value in graph.initializers.values()]
    return sum(tensor.nbytes for tensor in tensors if tensor is not None and tensor.dtype != ir.DataType.INT64)


def run_onnx(path: Path, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    (y,) = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, dict(inputs))
    return np.asarray(y)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("kind", ["lut", *DTYPES])
def test_an_onnx_file_holds_what_is_counted_of_a_stage(tmp_path: Path, kind: str, stage: str) -> None:
    layer_plan, spec, values, shape = STAGES[stage]
    model = chain_model({"layer": layer_plan}, {"w": factor(kind, stage, shape)}, spec)
    path = tmp_path / "model.onnx"
    export(model, "onnx", path)
    bias = 4 * shape[0] if layer_plan.bias else 0  # random float32, which `chain_model` does not count
    assert weight_bytes(path) == counted(model) + bias
    x = values if spec is IDS else values.astype(np.float32)
    with torch.no_grad():
        (expected,) = model.module(torch.from_numpy(x))
    np.testing.assert_allclose(run_onnx(path, {spec.name: x}), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("groups", [1, 2, 24])
@pytest.mark.parametrize("n", [24, 48])
def test_dense_convolutions_of_every_layout_run(tmp_path: Path, groups: int, n: int) -> None:
    """Of few channels the exporter makes kernels of strides that are not C's."""
    params = ConvParams(24, (3, 2), (1, 2), (1, 0, 1, 1), (2, 1), groups)
    weights = np.random.default_rng(0).standard_normal((n, 6 * 32)).astype(np.float32)
    spec = TensorSpec("x", "float32", ("batch", 24, "height", "width"))
    model = chain_model({"layer": plan([conv(params)])}, {"w": dense.pack(weights, np.float32)}, spec)
    path = tmp_path / "model.onnx"
    export(model, "onnx", path)
    x = X((2, 24, 11, 13)).astype(np.float32)
    with torch.no_grad():
        (expected,) = model.module(torch.from_numpy(x))
    np.testing.assert_allclose(run_onnx(path, {"x": x}), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_onnx_file_holds_what_is_counted_of_a_model(tmp_path: Path, dtype: str) -> None:
    """A table and a head that share a dense weight, a dense bias, and a packed layer."""
    passes = [{"method": "lut-kmeans", "refits": 1, "compute": "float", "skip": ["table", "head"]}]
    settings = {"version": 1, "dense_dtype": dtype, "passes": passes}
    sample = tiny_models.tokens()
    model = edgecomp.compress(tiny_models.tied_tokens(), settings, sample)
    path = tmp_path / "model.onnx"
    export(model, "onnx", path)
    assert weight_bytes(path) == counted(model)
    (expected,) = model(sample[0])
    np.testing.assert_allclose(run_onnx(path, sample[0]), expected, rtol=1e-4, atol=1e-5)
    model.save(tmp_path / "model.ec")
    loaded = edgecomp.load(tmp_path / "model.ec", model=tiny_models.tied_tokens())
    assert counted(loaded) == counted(model)
    size = (tmp_path / "model.ec" / "weights.safetensors").stat().st_size
    assert counted(model) < size < counted(model) + 2048


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("kind", ["lut", *DTYPES])
def test_a_program_for_executorch_holds_what_is_counted_of_a_stage(tmp_path: Path, kind: str, stage: str) -> None:
    pytest.importorskip("executorch")
    layer_plan, spec, _, (n, k) = STAGES[stage]
    model = chain_model({"layer": layer_plan}, {"w": factor(kind, stage, (32 * n, k))}, spec)
    options = ExportOptions(max_sizes={"batch": 2}) if "batch" in spec.dims else ExportOptions()
    size = export(model, "executorch", tmp_path / "model.pte", options=options).total_bytes
    bias = 4 * 32 * n if layer_plan.bias else 0
    assert counted(model) + bias < size < counted(model) + bias + 12_000


def test_executorch_says_what_it_makes_of_float16_tensors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("executorch")
    passes = [{"method": "lut-kmeans", "refits": 0, "skip": ["table", "head"]}]
    sizes, files = {}, {}
    for dtype in DTYPES:
        model = edgecomp.compress(
            tiny_models.tied_tokens(), {"version": 1, "dense_dtype": dtype, "passes": passes}, tiny_models.tokens()
        )
        sizes[dtype] = counted(model)
        files[dtype] = export(model, "executorch", tmp_path / f"{dtype}.pte", options=ExportOptions(), quiet=False).total_bytes
    half = 2 * (96 * 64 + 64)
    assert f"the {half:,} bytes that the checkpoint has in float16 are {2 * half:,} in the program" in capsys.readouterr().err
    assert sizes["float32"] - sizes["float16"] == half
    assert files["float16"] == pytest.approx(files["float32"], abs=256)
