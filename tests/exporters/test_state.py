"""Buffers that forward changes, as inputs and outputs: a file run step by step gives what the module gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_strangers import TRUSTED, floats, runners
from torch import Tensor, nn

import edgecomp
from edgecomp.checkpoint import load
from edgecomp.cli import main
from edgecomp.errors import CalibrationError, ModelError
from edgecomp.models import LoadedModel
from edgecomp.tensor import TensorSpec


class Smoothing(nn.Module):
    """Keeps a running mean in place and counts its runs by assignment, one buffer in a module below."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.inner = nn.Linear(32, 32), nn.Module()
        self.inner.register_buffer("mean", torch.full((1, 32), 0.5))
        self.register_buffer("runs", torch.zeros((), dtype=torch.int64))
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        self.inner.mean.mul_(0.5).add_(x.mean(dim=0, keepdim=True))
        self.runs = self.runs + 1
        return self.linear(x + self.inner.mean) * self.scale + self.runs


def smoothing() -> nn.Module:
    torch.manual_seed(0)
    return Smoothing()


SAMPLES = [{"x": floats(2, 32, seed=seed)} for seed in range(4)]


@pytest.mark.parametrize("kind", ["module", "program"])
def test_state_goes_from_run_to_run(kind: str, tmp_path: Path) -> None:
    module: nn.Module | str = smoothing().eval()
    if kind == "program":
        shapes = ({0: torch.export.Dim.DYNAMIC},)
        torch.export.save(torch.export.export(module, (torch.ones(2, 32),), dynamic_shapes=shapes), tmp_path / "m.pt2")
        module = str(tmp_path / "m.pt2")
    settings = {"overrides": ["passes.0.compute=float"], "state": True, "trust": TRUSTED}
    model = edgecomp.compress(module, "lut-4bit", SAMPLES, **settings)
    assert [spec.name for spec in model.inputs] == ["x", "runs", "inner.mean"]
    assert model.outputs == ("output", "runs_out", "inner.mean_out")
    if isinstance(module, nn.Module):
        assert torch.equal(module.inner.mean, torch.full((1, 32), 0.5))  # as it was before
    model.save(tmp_path / "model.ec")
    model = load(tmp_path / "model.ec", model=module, trust=TRUSTED)
    reference = smoothing().eval()
    reference.linear.weight.data = model.module.body.linear.weight
    with runners(model, tmp_path) as running:
        hold({**running, "checkpoint": model.run}, reference)


def hold(runs: dict[str, Any], reference: nn.Module) -> None:
    """Hold what runs a model step by step to the module."""
    for name, run in runs.items():
        mean, count = reference.inner.mean.fill_(0.5), reference.runs.zero_()
        state = {"inner.mean": mean.numpy().copy(), "runs": count.numpy().copy()}
        for sample in SAMPLES:
            got = run({**sample, **state})
            state = {key: got[f"{key}_out"] for key in state}
            with torch.no_grad():
                expected = reference(torch.from_numpy(sample["x"])).numpy()
            np.testing.assert_allclose(got["output"], expected, rtol=1e-4, atol=1e-4, err_msg=name)
        assert state["runs"] == len(SAMPLES)


def test_state_is_refused_where_there_is_none() -> None:
    with pytest.raises(ModelError, match="changes none"):
        edgecomp.compress(nn.Sequential(nn.Linear(32, 32)), "lut-4bit", SAMPLES, state=True)
    with pytest.raises(CalibrationError, match="--state needs calibration inputs"):
        known = LoadedModel(smoothing(), (TensorSpec("x", "float32", ("batch", 32)),), ())
        edgecomp.compress(known, "lut-4bit", None, state=True)


def test_verify_starts_from_the_state_of_the_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    np.savez(tmp_path / "x.npz", x=SAMPLES[0]["x"])
    model, inputs = "test_state:smoothing", str(tmp_path / "x.npz")
    compress = ["compress", model, "--calibration", inputs, "--state", "-o", str(tmp_path / "m.ec"), "--quiet"]
    assert main(compress) == 0
    assert main(["export", str(tmp_path / "m.ec"), "--model", model, "-o", str(tmp_path / "m.onnx"), "--quiet"]) == 0
    assert (
        main(["verify", str(tmp_path / "m.onnx"), "--against", str(tmp_path / "m.ec"), "--model", model, "--inputs", inputs]) == 0
    )
    assert "inner.mean_out" in capsys.readouterr().out
    assert main(["verify", str(tmp_path / "m.onnx"), "--against", model, "--state", "--inputs", inputs]) == 0
    assert "inner.mean_out" in capsys.readouterr().out
