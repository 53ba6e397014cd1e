"""No rows, no indices and images of no pixels in ExecuTorch, for every operator and every variant of its kernels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import empty_cases
import numpy as np
import pytest
from lut_cases import narrow_factor
from packed_models import compressed, conv, conv_factor, gather, linear, plan, random_factor
from torch import Tensor, nn

from edgecomp import native
from edgecomp.exported.executorch_session import ExecutorchModel
from edgecomp.exporters import ExportOptions, export
from edgecomp.modules import PackedFactor, PackedLayer
from edgecomp.ops import STAGE_OPERATORS
from edgecomp.tensor import Factor, Stage, TensorSpec

WIDTH, ROWS = empty_cases.WIDTH, empty_cases.ROWS
SPECS = {
    "matmul2": TensorSpec("matmul2", "float32", ("rows", WIDTH)),
    "matmul3": TensorSpec("matmul3", "float32", ("samples", "tokens", WIDTH)),
    "gather1": TensorSpec("gather1", "int64", ("rows",)),
    "gather2": TensorSpec("gather2", "int64", ("samples", "tokens")),
    "image": TensorSpec("image", "float32", ("batch", 8, "height", "width")),
}
IMAGE_CASES = ("strided", "grouped", "depthwise")


class Apart(nn.Module):
    """Layers that are each given one of the inputs."""

    def __init__(self, layers: dict[str, PackedLayer], input_of: dict[str, str]) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(layers)
        self.input_of = input_of

    def forward(self, matmul2: Tensor, matmul3: Tensor, gather1: Tensor, gather2: Tensor, image: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(SPECS, (matmul2, matmul3, gather1, gather2, image), strict=True))
        return tuple(layer(given[self.input_of[name]]) for name, layer in self.layers.items())


def cases() -> dict[str, tuple[str, Stage, Factor]]:
    """Input, stage and factor of each layer."""
    table = random_factor(ROWS, WIDTH, bits=3, permuted=True)
    made = {name: (name, gather() if name.startswith("gather") else linear(), table) for name in list(SPECS)[:4]}
    for name in IMAGE_CASES:
        outputs, params = empty_cases.CONVOLUTIONS[name]
        made[name] = ("image", conv(params), conv_factor(outputs, params, bits=3))
        if name in empty_cases.NARROW:
            made[f"{name}-narrow"] = ("image", conv(params), narrow_factor(outputs, params))
    return made


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    layers, plans, factors, input_of = {}, {}, {}, {}
    for name, (given, stage, factor) in cases().items():
        own = Stage(f"{name}.w", stage.op, stage.conv)
        plans[f"layers.{name}"] = plan([own], compute="int8")
        factors[own.factor], input_of[name] = factor, given
        layers[name] = PackedLayer(plans[f"layers.{name}"], {own.factor: PackedFactor(factor)}, None)
    model = compressed(Apart(layers, input_of), plans, factors, list(SPECS.values()))
    model = type(model)(**{**model.__dict__, "outputs": tuple(layers)})
    path = tmp_path_factory.mktemp("empty") / "m.pte"
    symbols = {size for spec in SPECS.values() for size in spec.dims if isinstance(size, str)}
    export(model, "executorch", path, options=ExportOptions(max_sizes=dict.fromkeys(symbols, 9)))
    return path


def test_every_operator_is_there() -> None:
    assert {STAGE_OPERATORS[factor.format, stage.op].name for _, stage, factor in cases().values()} == {
        operator.name for operator in STAGE_OPERATORS.values()
    }


def shapes_of(name: str) -> Sequence[tuple[int, ...]]:
    """Empty shapes of an input."""
    case = {"matmul": "matmul", "gather": "gather", "image": "strided"}[name.rstrip("0123456789")]
    return [shape for shape in empty_cases.CASES[case].shapes if len(shape) == len(SPECS[name].dims)]


@pytest.mark.parametrize("variant", [v.name for v in native.variants()])
def test_empty_outputs(program: Path, variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not next(v for v in native.variants() if v.name == variant).available:
        pytest.skip(f"this CPU cannot run {variant}")
    monkeypatch.setenv("EDGECOMP_FORCE_ISA", variant)
    given_of = {name: given for name, (given, _, _) in cases().items()}
    with ExecutorchModel(program) as artifact:
        for run in range(max(len(shapes_of(name)) for name in SPECS)):
            shapes = {name: shapes_of(name)[run % len(shapes_of(name))] for name in SPECS}
            outputs = artifact.run({name: np.zeros(shape, SPECS[name].dtype) for name, shape in shapes.items()})
            for name, given in given_of.items():
                case = empty_cases.CASES[name.partition("-")[0].rstrip("0123456789")]
                assert outputs[name].shape == case.output_shape(shapes[given]), (name, shapes[given])
                assert not outputs[name].any()  # where only padding is left to see, there is no bias to see it with
