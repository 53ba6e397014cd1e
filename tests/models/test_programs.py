"""Programs of torch.export as files: derived sizes, tensors that nothing reads, other types, files that cannot be read."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

import edgecomp
from edgecomp.errors import ModelError
from edgecomp.models import load_model
from edgecomp.trust import Trust

TRUSTED = Trust(code=True)  # of the programs that tests write themselves
QUICK = ["passes.0.compute=float", "passes.0.weighting=none", "passes.0.refits=0"]


class Model(nn.Module):
    """Joins every two steps; some of its tensors nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.first, self.unused, self.spare = (
            nn.Linear(64, 32),
            nn.Conv1d(2, 2, 1),
            nn.Conv2d(1, 8, 3),
            nn.Linear(3, 3),
        )
        self.table = nn.Parameter(torch.randn(7))

    def forward(self, x: Tensor) -> Tensor:
        pairs = self.first(x.reshape(-1, 2, 32)).reshape(x.shape[0], -1, 64)
        return self.linear(pairs) + self.spare.bias.sum()


class Sized(Model):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x), x.shape[1]


def saved(module: nn.Module, path: Path, x: Tensor, *, steps: bool = True) -> str:
    sizes = {"x": {0: Dim("b"), 1: 2 * Dim("pairs", max=50)}} if steps else None
    torch.export.save(torch.export.export(module.eval(), (x,), dynamic_shapes=sizes), path)
    return str(path)


def test_derived_sizes_and_tensors_that_nothing_reads(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    module, samples = Model(), [{"x": np.random.default_rng(n).standard_normal((1, 2 * n, 32)).astype(np.float32)} for n in (3, 5)]
    path = saved(module, tmp_path / "model.pt2", torch.randn(2, 12, 32))
    with caplog.at_level(logging.WARNING, "edgecomp"), warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)  # of PyTorch's own, which nobody can mend
        model = edgecomp.compress(path, "lut-8bit", samples, overrides=QUICK, trust=TRUSTED)
        model.save(tmp_path / "model.ec")
        again = edgecomp.load(tmp_path / "model.ec", model=path, trust=TRUSTED)
    assert model.limits == {"x_1": 100}
    (left_out,) = (message for message in caplog.messages if message.startswith("edgecomp: left"))
    assert left_out == "edgecomp: left out, since no output depends on them: table, unused, spare.weight"
    assert model.unfolded == {"first": "convolution"}
    assert {*model.dense} == {"linear.bias", "first.conv.bias", "spare.bias"}
    assert model.parameters == 64 * 32 + 32 + 2 * 2 + 2 + 3
    for sample in samples:
        with torch.no_grad():
            expected = module(torch.from_numpy(sample["x"])).numpy()
        np.testing.assert_allclose(model.run(sample)["output"], expected, atol=0.02 * np.abs(expected).max())
        np.testing.assert_array_equal(again.run(sample)["output"], model.run(sample)["output"])


def test_a_size_among_the_outputs_is_refused(tmp_path: Path) -> None:
    path = saved(Sized(), tmp_path / "model.pt2", torch.randn(2, 12, 32))
    with pytest.raises(ModelError, match="output_1 is of type int: return tensors alone"):
        edgecomp.compress(path, "lut-8bit", [{"x": np.ones((1, 4, 32), np.float32)}], overrides=QUICK, trust=TRUSTED)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_programs_of_other_types_are_refused(dtype: torch.dtype, tmp_path: Path) -> None:
    path = saved(nn.Linear(32, 32).to(dtype), tmp_path / "model.pt2", torch.randn(2, 32, dtype=dtype), steps=False)
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(ModelError, match=rf"the input input of .*model\.pt2 is {name}: export the program of model\.float\(\)"):
        load_model(path, TRUSTED)


def test_why_a_program_cannot_be_read_is_in_the_message(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    class Named(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return x + 1, "name"

    path = saved(Named(), tmp_path / "model.pt2", torch.randn(2, 3), steps=False)
    with pytest.raises(ModelError, match=r"SerializeError: Unable to deserialize output node .*name"):
        load_model(path, TRUSTED)
    assert "Traceback" not in capfd.readouterr().err
