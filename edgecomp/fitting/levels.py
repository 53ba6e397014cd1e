"""What the rows of a fitted matrix are made of, on the grids that a `lut` factor stores."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SMALLEST_STEP = 1e-30  # of weights near 1: a smaller step has no inverse in float32, and its block is 0


@dataclass(frozen=True)
class Levels:
    """What rows of a matrix are made of: `codebook[codes] * (scales * row_scale)`.

    Args:
        codebook: float32 `[entries]` holding int8 values, ascending.
        codes: int32 `[N, blocks, block_size]`.
        scales: float32 `[N, blocks]` holding int8 values.
        row_scale: float32 `[N]`.

    """

    codebook: Tensor
    codes: Tensor
    scales: Tensor
    row_scale: Tensor

    @property
    def steps(self) -> Tensor:
        """What the codebook's entries are multiplied by: `[N, blocks]`."""
        return self.scales * self.row_scale[:, None]

    @property
    def weights(self) -> Tensor:
        """The weights: `[N, blocks, block_size]`."""
        return self.codebook[self.codes] * self.steps[..., None]


def quantize_steps(steps: Tensor) -> tuple[Tensor, Tensor]:
    """Steps `[N, blocks]` as int8 scales (held in float32) times a row scale `[N]`."""
    largest = steps.abs().amax(dim=1)
    row_scale = torch.where(largest < SMALLEST_STEP, 0, divided(largest, 127))
    scales = torch.where(row_scale[:, None] > 0, steps / row_scale[:, None], 0)
    return scales.round().clamp(-127, 127), row_scale


def divided(values: Tensor, divisor: float) -> Tensor:
    """The quotient, correctly rounded: by a plain number, PyTorch multiplies by the inverse on a GPU."""
    return values / torch.full((), divisor, dtype=values.dtype, device=values.device)


def inverse_steps(steps: Tensor) -> Tensor:
    """1 / steps, and 0 for those that are nothing."""
    return torch.where(steps.abs() < SMALLEST_STEP, 0, 1 / steps)


def nearest_codes(codebook: Tensor, targets: Tensor) -> Tensor:
    """Codes of the entries nearest to targets, the lower one of two: int32."""
    return torch.bucketize(targets, (codebook[1:] + codebook[:-1]) / 2, out_int32=True)
