"""Which tensors float16 holds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgecomp.rounding import Rounding, loss_of

# Steps of float16 below 2^-14 are 2^-24: 2^-24 / 3 is nearer to 0, and 1.4 steps are one step, off by 29 %.
STEP = 2.0**-24
NORMAL = torch.linspace(0.001, 60000, 99)


def test_a_loss_counts_what_becomes_zero_infinite_and_inexact() -> None:
    loss = loss_of(torch.tensor([0.0, 1.0, STEP / 3, 1.4 * STEP, 65520.0, torch.inf, torch.nan]))
    assert (loss.values, loss.zeroed, loss.infinite, loss.inexact) == (5, 1, 1, 1)
    assert loss.describe() == "of 5 values 1 become 0 and 1 become infinite and 1 are off by more than 1 %"
    assert loss_of(torch.tensor([3.0, 2049.0])).relative_error == pytest.approx(1 / (9 + 2049**2) ** 0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    ("others", "kept"),
    [
        ([], torch.float16),
        ([STEP / 3], torch.float16),  # one of a hundred: not more than 1 %
        ([STEP / 3, 1.5 * STEP], torch.float32),
        ([-1e-30] * 2, torch.float32),
        ([1e5], torch.float32),  # an infinity is one too many
        ([-torch.inf, torch.inf], torch.float16),  # which float16 has too
        ([0.0, -0.0, 0.0], torch.float16),
    ],
)
def test_tensors_that_lose_too_much_stay_float32(dtype: torch.dtype, others: list[float], kept: torch.dtype) -> None:
    tensor = torch.cat([NORMAL, torch.tensor(others)]).to(dtype)
    stored = Rounding(torch.float16)("t", tensor)
    assert stored.dtype == kept
    assert torch.equal(stored, tensor.to(kept))


@pytest.mark.parametrize("tensor", [torch.tensor([3]), torch.tensor([True]), torch.zeros(0), torch.tensor(0.5)])
def test_other_tensors_are_as_they_were(tensor: Tensor) -> None:
    for dtype in (torch.float16, torch.float32):
        assert torch.equal(Rounding(dtype)("t", tensor), tensor)


def test_a_notice_names_some_of_many() -> None:
    rounding = Rounding(torch.float16)
    for i in range(7):
        rounding(f"gain{i}", torch.tensor([1e-9, 1.0]))
    notice = rounding.notice()
    assert notice is not None
    assert notice.startswith("notice: 7 dense tensors stay float32")
    assert notice.endswith("gain4 (of 2 values 1 become 0); and 2 more")
