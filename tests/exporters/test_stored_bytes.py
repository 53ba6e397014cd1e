"""What is counted of a model is what its files hold, for every format, stage, target and dtype."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import tiny_models
import torch
from packed_models import chain_model, conv, conv_factor, features, gather, linear, plan, random_factor
from torch import nn

import edgecomp
from edgecomp.checkpoint import CompressedModel
from edgecomp.exporters import ExportOptions, export
from edgecomp.formats import dense
from edgecomp.inspect.model import unique_tensors
from edgecomp.models.base import LoadedModel
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
    dense = {name: tensor.numpy() for name, tensor in unique_tensors(model.dense).items()}
    return count_bytes(model.factors, dense, model.parameters).packed_bytes


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


class Tables(nn.Module):
    """A table, one that the head shares, and one whose indices are computed."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.tied, self.few = nn.Embedding(96, 64), nn.Embedding(96, 64), nn.Embedding(16, 64)
        self.fc, self.head = nn.Linear(64, 64), nn.Linear(64, 96, bias=False)
        self.head.weight = self.tied.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(self.fc(self.tokens(ids) + self.tied(ids) + self.few(ids % 16)))
        return y


def half_tables() -> CompressedModel:
    torch.manual_seed(0)
    passes = [
        {"method": "lut-kmeans", "refits": 0, "weighting": "none", "compute": "float", "skip": ["tokens", "tied", "few", "head"]}
    ]
    model = LoadedModel(Tables(), (IDS,), ("y",))
    return edgecomp.compress(model, {"version": 1, "dense_dtype": "float16", "passes": passes})


def test_tables_in_float16_are_gathered_from_before_they_are_cast(tmp_path: Path) -> None:
    """A cast table would be float32 in the runtime's own memory."""
    model = half_tables()
    export(model, "onnx", tmp_path / "m.onnx")
    assert weight_bytes(tmp_path / "m.onnx") == counted(model)
    nodes = list(ir.load(tmp_path / "m.onnx").graph)
    gathers = [node for node in nodes if node.op_type == "Gather" and node.inputs[0].is_initializer()]
    assert [node.inputs[0].dtype for node in gathers] == [ir.DataType.FLOAT16] * 3
    assert all([user.op_type for user in node.outputs[0].consumers()] == ["Cast"] for node in gathers)
    cast = [node.inputs[0].shape for node in nodes if node.op_type == "Cast" and node.inputs[0].is_initializer()]
    assert sorted(map(tuple, cast)) == [(64,), (96, 64)]  # the bias, and the shared table for the head
    ids = {"ids": np.array([[0, 95, 17, 1, 5]])}
    np.testing.assert_allclose(run_onnx(tmp_path / "m.onnx", ids), model(ids)[0], rtol=1e-4, atol=1e-5)


def test_a_program_for_executorch_has_tables_in_float16_and_says_what_it_widens(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("executorch")
    from edgecomp.exported.executorch_session import ExecutorchModel

    model, path = half_tables(), tmp_path / "m.pte"
    size = export(model, "executorch", path, quiet=False).total_bytes
    alone, shared, bias = 2 * (96 + 16) * 64, 2 * 96 * 64, 2 * 64
    widened = shared + bias
    assert f"{widened:,} bytes that the checkpoint has in float16 are {2 * widened:,} in the program" in capsys.readouterr().err
    # The delegate keeps the head's weight, and the program the table.
    packed = sum(factor.packed_bytes for factor in model.factors.values())
    assert size == pytest.approx(packed + alone + 4 * shared + 2 * bias, abs=12_000)
    ids = {"ids": np.array([[0, 95, 17, 1, 5]])}
    with ExecutorchModel(path) as program:
        np.testing.assert_allclose(program.run(ids)["y"], model(ids)[0], rtol=1e-3, atol=1e-3)
        assert program.file.activation_bytes < 8 * 1024


def test_executorch_says_nothing_of_float16_where_it_widens_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("executorch")
    passes = [{"method": "lut-kmeans", "refits": 0, "weighting": "none", "skip": ["table"]}]
    model = LoadedModel(nn.Sequential(OrderedDict(table=nn.Embedding(96, 64), fc=nn.Linear(64, 64, bias=False))), (IDS,), ("y",))
    settings = {"version": 1, "dense_dtype": "float16", "passes": passes}
    export(edgecomp.compress(model, settings), "executorch", tmp_path / "m.pte", quiet=False)
    assert "notice" not in capsys.readouterr().err
