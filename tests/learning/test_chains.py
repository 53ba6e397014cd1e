"""Learning over plans of several stages and terms, and objectives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toy_methods import SharedBasis, Sums

import edgecomp
from edgecomp.checkpoint import CompressedModel
from edgecomp.exported.executorch_session import ExecutorchModel
from edgecomp.exported.session import OnnxModel
from edgecomp.exporters import ExportOptions, export
from edgecomp.formats import lut, unpack
from edgecomp.passes import PASSES

STEPS = 60


class Mixed(nn.Module):
    """A convolution, two layers on one input, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(32, 32, 3, stride=2, padding=1)
        self.left = nn.Linear(32, 48)
        self.right = nn.Linear(32, 48, bias=False)
        self.head = nn.Linear(48, 40)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).relu().mean(dim=(2, 3))
        y: Tensor = self.head((self.left(x) * self.right(x).tanh()).relu())
        return y


def mixed() -> nn.Module:
    torch.manual_seed(0)
    return Mixed().eval()


def images(count: int = 6) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [
        {"x": (rng.standard_normal((2, 32, 8, 8)) + rng.standard_normal((2, 32, 1, 1))).astype(np.float32)} for _ in range(count)
    ]


def recipe(**settings: Any) -> dict[str, Any]:
    passes = [
        {"method": "shared-basis", "match": ["left", "right"], "rank": 24},
        {"method": "sums", "summed": "head", "chained": "conv", "rank": 48},
        {"method": "lut-kmeans", "bits": 2, "narrow_bits": 2, "refits": 1, "compute": "float"},
        {"method": "jlcm", "steps": STEPS, "batch": 2, "dense_rate": 1e-2, **settings},
    ]
    return {"version": 1, "dense_dtype": "float32", "passes": passes}


def before(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe without its last pass."""
    return recipe | {"passes": recipe["passes"][:-1]}


@pytest.fixture(autouse=True)
def methods(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PASSES, "shared-basis", SharedBasis)
    monkeypatch.setitem(PASSES, "sums", Sums)


@pytest.fixture(scope="module")
def models() -> Iterator[tuple[CompressedModel, CompressedModel]]:
    """The mixed model before and after learning."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PASSES, "shared-basis", SharedBasis)
        patch.setitem(PASSES, "sums", Sums)
        yield edgecomp.compress(mixed(), before(recipe()), images()), edgecomp.compress(mixed(), recipe(), images())


def distance(model: CompressedModel) -> float:
    """Mean squared difference of the outputs over the mean square of the original's."""
    x = torch.cat([torch.from_numpy(sample["x"]) for sample in images()])
    with torch.no_grad():
        got, expected = model.module(x), mixed()(x)
    return float((got - expected).square().mean() / expected.square().mean())


def test_every_factor_of_every_term_and_stage_moves_and_the_loss_falls(models: tuple[CompressedModel, CompressedModel]) -> None:
    start, learned = models
    formats = {name: factor.format for name, factor in learned.factors.items()}
    packed = ["basis", "left.coefficients", "right.coefficients", "even", "odd", "first", "last"]
    assert formats == dict.fromkeys(packed, "lut") | {"depthwise": "lut_narrow"}
    for name, factor in learned.factors.items():
        assert not np.array_equal(unpack(factor), unpack(start.factors[name])), name
    assert [len(term) for plan in learned.plans.values() for term in plan.terms] == [3, 2, 2, 1, 1]
    assert distance(learned) < 0.75 * distance(start)
    assert learned.factors["basis"].packed_bytes == start.factors["basis"].packed_bytes


def test_padding_of_stages_stays_padding(models: tuple[CompressedModel, CompressedModel]) -> None:
    assert models[1].factors["depthwise"].shape == (48, 9)  # `lut_narrow` has none
    last = models[1].factors["last"]
    assert (lut.unpack_codes(last)[:32, 48:] == lut.padding_codes(last.arrays["codebooks"], 2)[0]).all()


def test_both_runtimes_agree_with_pytorch(models: tuple[CompressedModel, CompressedModel], tmp_path: Path) -> None:
    model = models[1]
    x = np.concatenate([sample["x"] for sample in images(3)])
    expected = model.run({"x": x})["output"]
    export(model, "onnx", tmp_path / "m.onnx")
    export(model, "executorch", tmp_path / "m.pte", options=ExportOptions(max_sizes={"batch": 6}))
    with ExecutorchModel(tmp_path / "m.pte") as program:
        results = [OnnxModel(tmp_path / "m.onnx").run({"x": x})["output"], program.run({"x": x})["output"]]
    for got in results:
        assert np.abs(got - expected).max() <= 1e-4 * np.abs(expected).max()
