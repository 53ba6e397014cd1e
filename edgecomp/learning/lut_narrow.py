"""A `lut_narrow` factor whose codes, codebook and row scales are learned by gradients, always on the grids that are stored and run.

A weight is `codebook[code] * step`, with `step = 2**(exponent + s / 16)`. Codes and codebook are learned as
`edgecomp.learning.codes` says, and `s` as a float32, stored as round(s), uint8: the forward value rounds it, and the gradient
passes the rounding (straight-through):

    dL/ds = dL/dstep step ln(2) / 16

The exponent stays, and a row whose scale is 0, the mark of a row of zeros, keeps it.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from edgecomp.formats import lut_narrow
from edgecomp.learning.codes import LEARNABLE_BITS, LearnedCodes, ascending
from edgecomp.references.lut_narrow import narrow_steps
from edgecomp.settings.jlcm import MapGradient
from edgecomp.tensor import Factor

_LARGEST_SCALE = 255


class LearnedNarrow:
    """Factors of one input width and bits while they are learned, their rows one below the other.

    Args:
        factors: `lut_narrow` factors of 1 to 6 bits, the start.
        originals: the weights that they stand for, `[N, K]` each: they place a weight between its codeword and the next.
        device: where to learn.
        map_gradient: how codes learn; see `edgecomp.learning.codes`.
        candidates: codewords that have a score, of the map gradient `scores`.

    """

    rates: ClassVar[Mapping[str, float]] = {
        "positions": 1e-2,
        "books": 3e-2,
        "scales": 3e-2,
    }  # in codewords, int8 steps, sixteenths of an octave

    def __init__(
        self,
        factors: Sequence[Factor],
        originals: Sequence[Tensor],
        device: torch.device,
        map_gradient: MapGradient = "scores",
        candidates: int = 3,
    ) -> None:
        self.factors = factors
        self._sizes = [factor.shape[0] for factor in factors]
        row_book = np.arange(len(factors)).repeat(self._sizes)
        unpacked = np.concatenate([lut_narrow.unpack_codes(factor) for factor in factors])
        codes, books = ascending(unpacked, np.stack([factor.arrays["codebook"] for factor in factors]), row_book)
        exponents = np.array([factor.attributes["exponent"] for factor in factors])
        self._exponents = torch.from_numpy(exponents[row_book]).to(device)
        self.scales = torch.from_numpy(np.concatenate([factor.arrays["row_scale"] for factor in factors])).to(device, torch.float32)
        self._used = (self.scales > 0).float()
        steps = self._steps()
        self.coded = LearnedCodes(
            torch.from_numpy(codes).to(device, torch.int64),
            torch.from_numpy(books).to(device, torch.float32),
            torch.from_numpy(row_book).to(device),
            torch.cat([original.to(device) for original in originals]) * torch.where(steps == 0, 0, 1 / steps)[:, None],
            map_gradient,
            candidates,
        )

    @staticmethod
    def learns(factor: Factor) -> bool:
        """Those that have a codebook of their own."""
        return factor.attributes["bits"] in LEARNABLE_BITS

    @staticmethod
    def alike(factor: Factor) -> Hashable:
        """Input width and bits."""
        return factor.shape[1], factor.attributes["bits"]

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        """What is learned, by kind; an optimiser changes the tensors in place and then calls `clamp`."""
        return {"positions": self.coded.positions, "books": self.coded.books, "scales": self.scales}

    def weights(self) -> tuple[Tensor, ...]:
        """The factors' weights as they are stored: float32 `[N, K]` each."""
        parts: tuple[Tensor, ...] = (self.coded.values() * self._steps()[:, None]).split(self._sizes)
        return parts

    def set_gradients(self, gradients: Sequence[Tensor]) -> None:
        """Set `.grad` of the parameters from the gradients of the weights, `[N, K]` each."""
        joined, steps = torch.cat(list(gradients)), self._steps()
        of_steps = (joined * self.coded.values()).sum(dim=1)
        self.scales.grad = of_steps * steps * (math.log(2) / lut_narrow.SCALES_PER_OCTAVE)
        self.coded.set_gradients(joined * steps[:, None])

    def clamp(self) -> None:
        """Keep what is learned within what can be stored; after every step of an optimiser."""
        self.coded.clamp()
        self.scales.clamp_(self._used, _LARGEST_SCALE * self._used)

    def to_factors(self) -> list[Factor]:
        """The learned factors."""
        codes = self.coded.codes().cpu().split(self._sizes)
        scales = self.scales.round().to(torch.uint8).cpu().split(self._sizes)
        books = self.coded.books.round().to(torch.int8).cpu()
        return [
            lut_narrow.pack(code.numpy(), book.numpy(), scale.numpy(), **factor.attributes)
            for factor, code, book, scale in zip(self.factors, codes, books, scales, strict=True)
        ]

    def _steps(self) -> Tensor:
        return narrow_steps(self.scales.round().to(torch.int64), self._exponents)
