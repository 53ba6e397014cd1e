"""Forward that decides by sizes: right for the sizes of the samples, or refused, and what else holds is said."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import edgecomp
from edgecomp.calibration import Sample
from edgecomp.checkpoint import CompressedModel
from edgecomp.errors import CalibrationError, ExportError
from edgecomp.exported.session import OnnxModel
from edgecomp.exporters import export
from edgecomp.models import load_model
from edgecomp.trust import Trust


class Deciding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(32, 32)


class LongOrShort(Deciding):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] > 10:
            return self.linear(x)
        return -self.linear(x)


class OddOrEven(Deciding):
    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return 2 * y if x.shape[1] % 2 else y


class OneOrMore(Deciding):
    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        if x.shape[0] == 1:
            y = 10 * y
        return y


class Squeezing(Deciding):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.squeeze(0)).mean(-1)


class OneToken(Deciding):
    """Another way for one token, which gives the same."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return y.cumsum(1) if x.shape[1] > 1 else y


class WideOrHigh(Deciding):
    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return 2 * y if x.shape[0] > x.shape[1] else y


class Latest(Deciding):
    def forward(self, x: Tensor) -> Tensor:
        k = min(x.shape[1], 8)
        return self.linear(x)[:, -k:]


def samples(*shapes: tuple[int, int]) -> list[Sample]:
    random = np.random.default_rng(0)
    return [{"x": random.standard_normal((*shape, 32)).astype(np.float32)} for shape in shapes]


def compressed(module: nn.Module, given: Sequence[Sample]) -> CompressedModel:
    return edgecomp.compress(module, "lut-4bit", given, overrides=["passes.0.compute=float"], quiet=False)


@pytest.mark.parametrize(
    ("model", "shapes", "line"),
    [
        (LongOrShort, [(2, 5), (2, 20)], "if x.shape[1] > 10:"),
        (OddOrEven, [(2, 5), (2, 8)], "return 2 * y if x.shape[1] % 2 else y"),
        (Squeezing, [(2, 5), (3, 20)], "squeeze, node squeeze"),
        (OneOrMore, [(2, 5), (3, 20)], "if x.shape[0] == 1:"),  # what most devices run, though no sample is of it
        (WideOrHigh, [(2, 9), (9, 2)], "x.shape[0] > x.shape[1]"),
    ],
)
def test_two_ways_are_refused_before_the_passes(model: type[nn.Module], shapes: list[tuple[int, int]], line: str) -> None:
    with pytest.raises(ExportError, match="one way") as caught:
        compressed(model(), samples(*shapes))
    assert line in str(caught.value)


@pytest.mark.parametrize(
    ("model", "shapes", "condition"),
    [
        (LongOrShort, [(2, 5), (2, 9)], "x_1 <= 10"),
        (LongOrShort, [(2, 15), (2, 20)], "x_1 > 10"),
        (OddOrEven, [(2, 4), (2, 8)], "x_1 % 2 == 0"),
        (OddOrEven, [(2, 5), (2, 9)], "x_1 % 2 != 0"),
    ],
)
def test_the_way_of_all_samples_is_exported_and_the_others_said(
    model: type[nn.Module], shapes: list[tuple[int, int]], condition: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = samples(*shapes)
    packed = compressed(model(), given)
    assert f"right only where {condition}" in capsys.readouterr().err
    packed.save(tmp_path / "m.ec")
    export(packed, "onnx", tmp_path / "m.onnx")
    metadata = {entry.key: entry.value for entry in onnx.load(tmp_path / "m.onnx", load_external_data=False).metadata_props}
    assert condition in metadata["edgecomp.conditions"]
    exported = OnnxModel(tmp_path / "m.onnx", "auto", 1)
    for sample in given:
        np.testing.assert_allclose(exported.run(sample)["output"], packed.run(sample)["output"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model", [OneOrMore, Squeezing])
def test_a_batch_of_one_in_all_samples_is_fixed(model: type[nn.Module], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = samples((1, 5), (1, 20))
    packed = compressed(model(), given)
    assert packed.inputs[0].dims == (1, "x_1", 32)
    assert "the sizes batch = 1 are fixed as in the samples" in capsys.readouterr().err
    export(packed, "onnx", tmp_path / "m.onnx")
    exported = OnnxModel(tmp_path / "m.onnx", "auto", 1)
    for sample in given:
        np.testing.assert_allclose(exported.run(sample)["output"], packed.run(sample)["output"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model", [OneToken, Latest])
def test_ways_that_give_the_same_are_no_matter(model: type[nn.Module], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = samples((1, 1), (2, 5), (3, 20))
    packed = compressed(model(), given)
    assert "right only where" not in capsys.readouterr().err
    export(packed, "onnx", tmp_path / "m.onnx")
    exported = OnnxModel(tmp_path / "m.onnx", "auto", 1)
    for sample in given:
        np.testing.assert_allclose(exported.run(sample)["output"], packed.run(sample)["output"], rtol=1e-4, atol=1e-4)


def test_a_program_has_the_sizes_that_it_was_exported_for(tmp_path: Path) -> None:
    length = torch.export.Dim("length", min=11, max=64)
    program = torch.export.export(LongOrShort().eval(), (torch.randn(2, 20, 32),), dynamic_shapes=({1: length},))
    torch.export.save(program, tmp_path / "m.pt2")
    model = load_model(str(tmp_path / "m.pt2"), Trust(code=True))
    with pytest.raises(CalibrationError, match="from 11 on; sample 1 has 5"):
        edgecomp.compress(model, "lut-4bit", samples((2, 20), (2, 5)))
    packed = edgecomp.compress(model, "lut-4bit", samples((2, 20)))
    export(packed, "onnx", tmp_path / "m.onnx")
    metadata = {entry.key: entry.value for entry in onnx.load(tmp_path / "m.onnx", load_external_data=False).metadata_props}
    assert "x_1 >= 11" in metadata["edgecomp.conditions"]


class Counting(Deciding):
    def __init__(self) -> None:
        super().__init__()
        self.runs = 0

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        return self.linear(x) * self.runs


class Remembering(Deciding):
    def __init__(self) -> None:
        super().__init__()
        self.last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x) if self.last is None else self.linear(x) + self.last
        self.last = y.mean()
        return y


class Dropping(Deciding):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(self.linear(x), 0.5)  # which does not ask for self.training


@pytest.mark.parametrize(("model", "kept"), [(Counting, "runs"), (Remembering, "last")])
def test_what_a_run_leaves_for_the_next_is_said(model: type[nn.Module], kept: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = model()
    before = dict(vars(module))
    compressed(module, samples((2, 5)))
    assert f"forward leaves {kept} for its next run" in capsys.readouterr().err
    assert vars(module) == before  # what the calibration left is gone


def test_random_numbers_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    compressed(Dropping(), samples((2, 5)))
    assert "outputs depend on random numbers" in capsys.readouterr().err
    compressed(nn.Sequential(nn.Linear(32, 32), nn.Dropout(0.5)), samples((2, 5)))
    assert "random" not in capsys.readouterr().err
