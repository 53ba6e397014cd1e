"""Operators that a target lacks are told before the passes, and those that it has are not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import edgecomp
from edgecomp.cli import main
from edgecomp.errors import ConfigError, ExportError
from edgecomp.exporters import TARGETS
from edgecomp.support import TARGETS as CHECKED

IMAGE = [{"x": np.ones((2, 3, 8, 8, 8), np.float32)}]
ROWS = [{"x": np.ones((2, 32), np.float32)}]


class Inverts(nn.Module):
    """Neither target has an inverse of matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(32, 32)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return torch.linalg.inv(y.mT @ y + torch.eye(32))


class Volumes(nn.Module):
    """Computes the kernel of its convolution at each run, so that it stays one over three axes."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel, self.linear = nn.Parameter(torch.randn(32, 3, 8, 8, 8)), nn.Linear(32, 32)

    def forward(self, volume: Tensor) -> Tensor:
        return self.linear(nn.functional.conv3d(volume, 2 * self.kernel).flatten(1))


def test_every_target_is_checked() -> None:
    assert set(CHECKED) == set(TARGETS)


def test_what_no_target_has_is_refused_before_the_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecomp.compression.run_passes", lambda *_: pytest.fail("a pass ran"))
    with pytest.raises(ExportError, match=r"target onnx has no form for node .*linalg_inv.* in the model"):
        edgecomp.compress(Inverts(), "lut-4bit", ROWS)


def test_what_one_target_lacks_is_said_or_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    model = edgecomp.compress(Volumes(), "lut-4bit", IMAGE, quiet=False)
    assert list(model.plans) == ["linear"]
    assert "target executorch has no form for node convolution (aten.convolution.default) in the model" in capsys.readouterr().err
    edgecomp.compress(Volumes(), "lut-4bit", IMAGE, targets=["onnx"])
    monkeypatch.setattr("edgecomp.compression.run_passes", lambda *_: pytest.fail("a pass ran"))
    with pytest.raises(ExportError, match=r"target executorch has no form for node convolution .*\(--target\)"):
        edgecomp.compress(Volumes(), "lut-4bit", IMAGE, targets=["executorch"])


def test_targets_that_cannot_be_checked_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="targets must be of onnx, executorch, got 'tflite'"):
        edgecomp.compress(Volumes(), "lut-4bit", IMAGE, targets=["onnx", "tflite"])
    with pytest.raises(ConfigError, match=r"--no-export-check .* leaves out: give one"):
        edgecomp.compress(Volumes(), "lut-4bit", IMAGE, targets=["onnx"], exportable=False)
    with pytest.raises(SystemExit):
        main(["compress", "x:y", "--target", "tflite", "-o", "m.ec"])
    assert "tflite" in capsys.readouterr().err
