"""Sizes that forward computes, in ExecuTorch: minima, maxima and floats of dynamic sizes."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import edgecomp
from edgecomp.errors import ExportError
from edgecomp.exported.executorch_session import ExecutorchModel
from edgecomp.exporters import ExportOptions, export

QUICK = ["passes.0.compute=float", "passes.0.weighting=none", "passes.0.refits=0"]
SAMPLES = [{"x": np.random.default_rng(n).standard_normal((1, n, 32)).astype(np.float32)} for n in (4, 9, 17)]


class Last(nn.Module):
    """Looks at the last eight steps, at those before them, and divides by a number of them."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(32, 32)

    def forward(self, x: Tensor) -> Tensor:
        steps = x.shape[1]
        before = x[:, : max(steps - 8, 1)].sum(dim=1) / steps
        return self.linear(x[:, -min(steps, 8) :]).sum(dim=1) + before


def test_minima_and_maxima_of_sizes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = edgecomp.compress(Last().eval(), "lut-8bit", SAMPLES, overrides=QUICK)
    export(model, "executorch", tmp_path / "model.pte", options=ExportOptions(max_sizes={"x_1": 30}))
    with ExecutorchModel(tmp_path / "model.pte") as program:
        for sample in SAMPLES:
            expected = model.run(sample)["output"]
            np.testing.assert_allclose(program.run(sample)["output"], expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_an_error_of_no_words_is_told_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("edgecomp.exporters.to_executorch.lower"), "_SIZE_FUNCTIONS", [])
    model = edgecomp.compress(nn.Sequential(Last()).eval(), "lut-8bit", SAMPLES, overrides=QUICK)
    with pytest.raises(ExportError, match=r"no ExecuTorch form: AssertionError \(at node sym_m.* in module 0\)"):
        export(model, "executorch", tmp_path / "model.pte", options=ExportOptions(max_sizes={"x_1": 30}))


class Remainders(nn.Module):
    """Of integers by the sign of the divisor, in tensors and in sizes: pads to a multiple of four, too."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(32, 32)

    def forward(self, x: Tensor, ids: Tensor) -> dict[str, Tensor]:
        y = nn.functional.pad(self.linear(x), (0, 0, 0, -x.shape[1] % 4))
        steps = x[:, : 1 + (3 - x.shape[1]) % 4]
        left = {
            "scalar": ids % 7,
            "negative": ids % -3,
            "tensor": ids % (ids.abs() + 1),
            "float": x % 0.7,
        }
        return {"y": y, "steps": steps, **left}


def test_remainders_have_the_sign_of_the_divisor(tmp_path: Path) -> None:
    torch.manual_seed(0)
    samples = [{**sample, "ids": np.arange(-20, 20)[None].repeat(1, 0)} for sample in SAMPLES]
    model = edgecomp.compress(Remainders().eval(), "lut-8bit", samples, overrides=QUICK)
    export(model, "executorch", tmp_path / "model.pte", options=ExportOptions(max_sizes={"x_1": 30}))
    with ExecutorchModel(tmp_path / "model.pte") as program:
        for sample in samples:
            got = program.run(sample)
            for name, value in model.run(sample).items():
                np.testing.assert_allclose(got[name], value, rtol=1e-4, atol=1e-4, err_msg=name)


class Positions(nn.Module):
    """Takes 32 steps at most."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.positions = nn.Linear(32, 32), nn.Parameter(torch.randn(32, 32))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x + self.positions[: x.shape[1]])


def test_a_model_s_own_limit_is_the_largest_size(tmp_path: Path) -> None:
    model = edgecomp.compress(Positions().eval(), "lut-8bit", SAMPLES, overrides=QUICK)
    export(model, "executorch", tmp_path / "model.pte")
    x = np.ones((1, 32, 32), np.float32)
    with ExecutorchModel(tmp_path / "model.pte") as program:
        np.testing.assert_allclose(program.run({"x": x})["output"], model.run({"x": x})["output"], rtol=1e-4, atol=1e-4)
