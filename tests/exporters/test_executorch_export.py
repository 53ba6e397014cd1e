"""What the ExecuTorch exporter writes, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from packed_models import chain_model, compressed, features, gather, linear, plan, random_factor
from torch import Tensor, nn

import edgecomp
from edgecomp.checkpoint import CompressedModel
from edgecomp.errors import ConfigError, ExportError
from edgecomp.exported.executorch_file import read_executorch
from edgecomp.exporters import ExportOptions, export
from edgecomp.exporters.to_executorch.bounds import bounded_sizes
from edgecomp.modules import PackedFactor, PackedLayer
from edgecomp.ops import OPERATORS
from edgecomp.tensor import TensorSpec

IDS = TensorSpec("ids", "int64", ("batch", "sequence"))


def tied_model() -> CompressedModel:
    plans = {"table": plan([gather()]), "hidden": plan([linear("h")], bias=True), "head": plan([linear()])}
    return chain_model(plans, {"w": random_factor(2000, 64), "h": random_factor(64, 64, bits=3)}, IDS)


@pytest.fixture(scope="module")
def large_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tied") / "model.pte"
    export(tied_model(), "executorch", path, options=ExportOptions(max_sizes={"batch": 4}))
    return path


def test_program_calls_our_operators_and_says_what_it_is(large_program: Path) -> None:
    program = read_executorch(large_program)
    assert program.operators == {"edgecomp::lut_gather.out", "edgecomp::lut_matmul.out"}
    assert [(i.name, i.dtype, i.shape, i.max_shape) for i in program.inputs] == [("ids", "int64", ("batch", "sequence"), (4, 512))]
    assert [(o.name, o.dtype, o.max_shape) for o in program.outputs] == [("y", "float32", (4, 512, 2000))]
    assert program.manifest["edgecomp"] == edgecomp.__version__
    assert (program.manifest["recipe"], program.manifest["formats"]) == ({"method": "random"}, ["lut"])
    assert program.files == (large_program,)


def test_constants_are_packed_stored_once_and_aligned(large_program: Path) -> None:
    model, content = tied_model(), large_program.read_bytes()
    packed = sum(factor.packed_bytes for factor in model.factors.values())
    assert packed < len(content) < packed + 16_000
    for factor in model.factors.values():
        codes = factor.arrays["codes"].tobytes()
        assert content.count(codes) == 1
        assert content.index(codes) % 64 == 0


def test_same_model_same_bytes(large_program: Path, tmp_path: Path) -> None:
    export(tied_model(), "executorch", tmp_path / "again.pte", options=ExportOptions(max_sizes={"batch": 4}))
    assert (tmp_path / "again.pte").read_bytes() == large_program.read_bytes()


def test_external_weights_lie_in_a_file_beside(tmp_path: Path) -> None:
    model, path = tied_model(), tmp_path / "m.pte"
    result = export(model, "executorch", path, options=ExportOptions(external_weights=True))
    assert result.files == read_executorch(path).files == (path, tmp_path / "m.ptd")
    assert sorted(tmp_path.iterdir()) == [tmp_path / "m.ptd", path]
    for factor in model.factors.values():
        codes = factor.arrays["codes"].tobytes()
        assert codes not in path.read_bytes()
        assert (tmp_path / "m.ptd").read_bytes().index(codes) % 64 == 0


def test_a_largest_size_of_one_is_fixed(tmp_path: Path) -> None:
    export(tied_model(), "executorch", tmp_path / "m.pte", options=ExportOptions(max_sizes={"sequence": 7}))
    (ids,) = read_executorch(tmp_path / "m.pte").inputs
    assert (ids.shape, ids.max_shape) == ((1, "sequence"), (1, 7))


class _Wrapped(nn.Module):
    """A packed layer in a forward of the test's choice."""

    def __init__(self, forward: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.fc = PackedLayer(plan([linear()]), {"w": PackedFactor(random_factor(64, 64))}, None)
        self.run = forward

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.run(self.fc, x),)


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda fc, x: torch.special.bessel_j0(fc(x)), r"no ExecuTorch form.*node special_bessel_j0 .*\(aten.special_bessel_j0"),
        (lambda fc, x: torch.nonzero(fc(x)), r"sizes must not depend on values, and that of node nonzero"),
        (lambda fc, x: x + 1, "lut_matmul must run the factor w of fc, and none does"),
    ],
    ids=["operator", "size", "unreached"],
)
def test_what_cannot_be_lowered_is_named(tmp_path: Path, forward: Callable[[nn.Module, Tensor], Tensor], message: str) -> None:
    model = compressed(_Wrapped(forward), {"fc": plan([linear()])}, {"w": random_factor(64, 64)}, [features(64)])
    with pytest.raises(ExportError, match=message):
        export(model, "executorch", tmp_path / "m.pte")
    assert list(tmp_path.iterdir()) == []


class _Inner(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(x)


class _Outer(_Wrapped):
    def __init__(self) -> None:
        super().__init__(lambda fc, x: self.inner(fc(x)))
        self.inner = _Inner()


def test_the_module_of_an_operation_is_named(tmp_path: Path) -> None:
    model = compressed(_Outer(), {"fc": plan([linear()])}, {"w": random_factor(64, 64)}, [features(64)])
    with pytest.raises(ExportError, match="in module inner"):
        export(model, "executorch", tmp_path / "m.pte")


@pytest.mark.parametrize(
    ("dims", "max_sizes", "message"),
    [
        (("batch", "height", 64), {}, "dynamic size height has none.*--max-size height=VALUE"),
        (("batch", 64), {"sequence": 3}, "must name a dynamic size of the model .batch., got sequence"),
    ],
)
def test_sizes_need_a_largest_value(tmp_path: Path, dims: tuple[int | str, ...], max_sizes: dict[str, int], message: str) -> None:
    model = chain_model({"fc": plan([linear()])}, {"w": random_factor(64, 64)}, TensorSpec("x", "float32", dims))
    with pytest.raises(ExportError, match=message):
        export(model, "executorch", tmp_path / "m.pte", options=ExportOptions(max_sizes=max_sizes))


def test_options_and_suffix_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="largest size of batch must be at least 1, got 0"):
        ExportOptions(max_sizes={"batch": 0})
    with pytest.raises(ConfigError, match="target onnx leaves sizes free"):
        export(tied_model(), "onnx", tmp_path / "m.onnx", options=ExportOptions(external_weights=True))
    with pytest.raises(ExportError, match=r"suffix \.pte"):
        export(tied_model(), "executorch", tmp_path / "m.bin")
    assert list(tmp_path.iterdir()) == []


def test_out_variants_take_the_output_last() -> None:
    for operator in OPERATORS.values():
        assert operator.executorch_name == f"edgecomp::{operator.name}.out"
        schema = operator.executorch_schema
        assert schema == operator.torch_schema.replace("(", ".out(", 1).replace(") -> Tensor", ", Tensor(a!) out) -> Tensor(a!)")


def test_a_model_without_our_operators_is_exported_too(tmp_path: Path) -> None:
    model = replace(tied_model(), module=nn.Sequential(nn.Linear(8, 4)).eval(), plans={}, factors={}, inputs=(features(8),))
    export(model, "executorch", tmp_path / "m.pte")
    program = read_executorch(tmp_path / "m.pte")
    assert not program.uses_edgecomp
    assert program.backends == {"XnnpackBackend"}
    assert program.activation_bytes < 1000 and math.prod(program.outputs[0].max_shape) == 4


def test_largest_sizes_stay_within_the_limits_of_the_model() -> None:
    specs = (TensorSpec("ids", "int64", ("batch", "sequence", "width")),)
    assert bounded_sizes(specs, {}, {"sequence": 128, "width": 9}) == {"batch": 1, "sequence": 128, "width": 9}
    assert bounded_sizes(specs, {"sequence": 64}, {"sequence": 128, "width": 9}) == {"batch": 1, "sequence": 64, "width": 9}
    with pytest.raises(ExportError, match="the model takes sequence up to 128, and the largest size given is 512"):
        bounded_sizes(specs, {"sequence": 512}, {"sequence": 128})
    with pytest.raises(ExportError, match="--max-size width=VALUE"):
        bounded_sizes(specs, {}, {})
