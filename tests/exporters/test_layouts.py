"""Tensors in other orders than row-major: what our operators are given in a program is row-major, whatever a model makes of it."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from executorch.exir.pass_base import ExportPass
from torch import Tensor, nn

import edgecomp
from edgecomp.calibration import Sample
from edgecomp.exported.executorch_file import read_executorch
from edgecomp.exported.executorch_session import ExecutorchModel
from edgecomp.exported.session import OnnxModel
from edgecomp.exporters import export

LAST = torch.channels_last
QUICK = ["passes.0.compute=float", "passes.0.weighting=none", "passes.0.refits=0"]


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


class Layers(nn.Module):
    """A layer for each of our operators, and what one of them is given."""

    def __init__(self, forward: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.table, self.linear, self.conv = nn.Embedding(50, 32), nn.Linear(32, 32), nn.Conv2d(32, 32, 3)
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.first = nn.Conv2d(3, 32, 3, padding=1, padding_mode="reflect")
        self.transposed = nn.ConvTranspose2d(32, 8, 3)
        self.image = nn.Parameter(torch.randn(1, 32, 8, 9))
        self._forward = forward

    def forward(self, x: Tensor) -> Any:
        return self._forward(self, x)


def of_channels_last(module: Layers, x: Tensor) -> Any:
    y = module.first(x) + module.image
    return module.depthwise(y), module.linear(y.permute(0, 2, 3, 1)), module.transposed(y), torch.cat([y, module.image], 3), y


def of_images(module: Layers, x: Tensor) -> Any:
    y = module.conv(x.to(memory_format=LAST))
    sums = torch.zeros_like(y) + y.contiguous(memory_format=LAST).amax(1, keepdim=True)
    return (
        module.linear(x.contiguous(memory_format=LAST)),
        y,
        module.conv(x.to(memory_format=LAST) + 1),
        sums,
        x.to(memory_format=LAST),
    )


def of_padding(module: Layers, x: Tensor) -> Any:
    y = module.first(x.permute(0, 3, 1, 2))
    return module.depthwise(y), module.conv(y)


# Layers that recipes skip, so that XNNPACK runs them.
SKIPPED = {"padding": "['first*']", "channels-last model": "['first*', 'transposed*']"}
# What forward does, its sample, and the operators that must run.
CASES: dict[str, tuple[Callable[[Any, Tensor], Any], np.ndarray, set[str]]] = {
    "indices": (lambda m, x: m.table(x.clone(memory_format=LAST)), np.arange(48).reshape(1, 4, 3, 4), {"lut_gather"}),
    "images": (of_images, floats(1, 32, 6, 32), {"lut_matmul", "lut_conv2d"}),
    "padding": (of_padding, floats(1, 9, 11, 3), {"lut_conv2d", "lut_narrow_conv2d"}),
    "channels-last model": (of_channels_last, floats(1, 3, 8, 9), {"lut_narrow_conv2d", "lut_matmul"}),
}


def run(path: Path, sample: Sample) -> dict[str, np.ndarray]:
    with ExecutorchModel(path) as program:
        return program.run(sample)


def assert_same(case: str, folder: Path) -> None:
    forward, x, operators = CASES[case]
    torch.manual_seed(0)
    module = Layers(forward).eval()
    if case == "channels-last model":
        module.to(memory_format=LAST)
    sample = {"x": x}
    model = edgecomp.compress(module, "lut-8bit", [sample], overrides=[*QUICK, f"passes.0.skip={SKIPPED.get(case, '[]')}"])
    export(model, "onnx", folder / "model.onnx")
    export(model, "executorch", folder / "model.pte")
    assert {f"edgecomp::{name}.out" for name in operators} <= {*read_executorch(folder / "model.pte").own_operators}
    expected = model.run(sample)
    for got in (OnnxModel(folder / "model.onnx").run(sample), run(folder / "model.pte", sample)):
        assert got.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(got[name], value, rtol=1e-4, atol=1e-5 * np.abs(value).max(), err_msg=name)


@pytest.mark.parametrize("case", CASES)
def test_inputs_in_any_order(case: str, tmp_path: Path) -> None:
    assert_same(case, tmp_path)


@pytest.mark.parametrize("case", ["indices", "padding"])
def test_what_still_lies_otherwise_is_copied(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("edgecomp.exporters.to_executorch.lower"), "RowMajor", ExportPass)  # which changes nothing
    assert_same(case, tmp_path)
