"""A `lut` factor whose codes, codebooks and scales are learned by gradients, always on the grids that are stored and run.

A weight is `codebook[code] * scale * row_scale`. Codes and codebooks are learned as `edgecomp.learning.codes` says, the scale of a
block as a float32 in units of the row scale, stored as round(scale), int8: the forward value rounds it, and the gradient passes
the rounding (straight-through). The row scale stays.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from edgecomp.formats import lut
from edgecomp.learning.codes import LEARNABLE_BITS, LearnedCodes, ascending
from edgecomp.settings.jlcm import MapGradient
from edgecomp.tensor import Factor


class LearnedLut:
    """Factors of one input width, bits and block size while they are learned, their rows one below the other.

    Args:
        factors: `lut` factors of 1 to 6 bits, the start.
        originals: the weights that they stand for, `[N, K]` each: they place a weight between its codeword and the next. A column
            of zeros, such as padding, keeps the code nearest 0.
        device: where to learn.
        map_gradient: how codes learn; see `edgecomp.learning.codes`.
        candidates: codewords that have a score, of the map gradient `scores`.

    """

    rates: ClassVar[Mapping[str, float]] = {
        "positions": 1e-2,
        "books": 3e-2,
        "scales": 3e-2,
    }  # in codewords, int8 steps, int8 steps

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
        starts = [_Start.of(factor) for factor in factors]
        first_book = np.cumsum([0, *(len(start.books) for start in starts)])
        row_book = np.concatenate([start.row_book + first for start, first in zip(starts, first_book, strict=False)])

        def joined(parts: Sequence[np.ndarray], dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.from_numpy(np.concatenate(parts)).to(device, dtype)

        self._row_scale = joined([start.row_scale for start in starts])
        self._block_size = factors[0].attributes["block_size"]
        empty = [(original == 0).all(dim=0) for original in originals]
        self._empty = [columns if bool(columns.any()) else None for columns in empty]
        self.scales = joined([start.scales for start in starts])
        steps = self._steps()
        targets = self._by_block(torch.cat([original.to(device) for original in originals]), torch.where(steps == 0, 0, 1 / steps))
        codes, books = joined([start.codes for start in starts], torch.int64), joined([start.books for start in starts])
        self.coded = LearnedCodes(codes, books, torch.from_numpy(row_book).to(device), targets, map_gradient, candidates)

    @staticmethod
    def learns(factor: Factor) -> bool:
        """Those that have a codebook of their own."""
        return factor.attributes["bits"] in LEARNABLE_BITS

    @staticmethod
    def alike(factor: Factor) -> Hashable:
        """Input width, bits and block size."""
        return factor.shape[1], factor.attributes["bits"], factor.attributes["block_size"]

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        """What is learned, by kind; an optimiser changes the tensors in place and then calls `clamp`."""
        return {"positions": self.coded.positions, "books": self.coded.books, "scales": self.scales}

    def weights(self) -> tuple[Tensor, ...]:
        """The factors' weights as they are stored: float32 `[N, K]` each."""
        parts: tuple[Tensor, ...] = self._by_block(self.coded.values(), self._steps()).split(self._sizes)
        return parts

    def set_gradients(self, gradients: Sequence[Tensor]) -> None:
        """Set `.grad` of the parameters from the gradients of the weights, `[N, K]` each."""
        kept = torch.cat(
            [g if e is None else g.masked_fill(e.to(g.device), 0) for g, e in zip(gradients, self._empty, strict=True)]
        )
        of_steps = (self._blocked(kept) * self._blocked(self.coded.values())).sum(dim=2)
        self.scales.grad = of_steps * self._row_scale[:, None]
        self.coded.set_gradients(self._by_block(kept, self._steps()))

    def clamp(self) -> None:
        """Keep what is learned within what can be stored; after every step of an optimiser."""
        self.coded.clamp()
        self.scales.clamp_(-127, 127)

    def to_factors(self) -> list[Factor]:
        """The learned factors, with their rows and codebooks where they were."""
        codes = self.coded.codes().to(torch.uint8).cpu().split(self._sizes)
        scales = self.scales.round().to(torch.int8).cpu().split(self._sizes)
        row_scale = self._row_scale.cpu().split(self._sizes)
        books = self.coded.books.round().to(torch.int8).cpu().split([len(factor.arrays["codebooks"]) for factor in self.factors])
        parts = zip(self.factors, self._empty, codes, scales, row_scale, books, strict=True)
        return [
            _packed(factor, None if empty is None else empty.cpu().numpy(), *(part.numpy() for part in rest))
            for factor, empty, *rest in parts
        ]

    def _steps(self) -> Tensor:
        return self.scales.round() * self._row_scale[:, None]

    def _blocked(self, values: Tensor) -> Tensor:
        missing = self.scales.shape[1] * self._block_size - values.shape[1]
        padded = torch.nn.functional.pad(values, (0, missing)) if missing else values
        return padded.reshape(len(values), -1, self._block_size)

    def _by_block(self, values: Tensor, factors: Tensor) -> Tensor:
        """Values `[N, K]` times a factor for each block, `[N, blocks]`."""
        return (self._blocked(values) * factors[..., None]).reshape(len(values), -1)[:, : values.shape[1]]


@dataclass(frozen=True)
class _Start:
    """A factor's arrays in the order of the matrix's rows, its codebooks ascending."""

    codes: np.ndarray
    books: np.ndarray
    row_book: np.ndarray
    scales: np.ndarray
    row_scale: np.ndarray

    @staticmethod
    def of(factor: Factor) -> _Start:
        arrays, lanes = factor.arrays, lut.lane_of_row(factor)
        row_book = arrays["tile_book"][lanes // lut.TILE_ROWS].astype(np.int64)
        codes, books = ascending(lut.unpack_codes(factor)[lanes, : factor.shape[1]], arrays["codebooks"], row_book)
        return _Start(
            codes=codes,
            books=books,
            row_book=row_book,
            scales=arrays["scales"].transpose(0, 2, 1).reshape(-1, arrays["scales"].shape[1])[lanes],
            row_scale=arrays["row_scale"].reshape(-1)[lanes],
        )


def _packed(
    factor: Factor, empty: np.ndarray | None, codes: np.ndarray, scales: np.ndarray, row_scale: np.ndarray, books: np.ndarray
) -> Factor:
    """The factor with other contents; its tiles keep their rows and codebooks, and `empty` columns get the padding code."""
    row_index = factor.arrays.get("row_index")
    lanes = lut.lane_of_row(factor)
    if empty is not None:
        padding = lut.padding_codes(books, factor.attributes["bits"])[factor.arrays["tile_book"][lanes // lut.TILE_ROWS]]
        codes = np.where(empty[None, :], padding[:, None], codes)

    def by_lane(values: np.ndarray) -> np.ndarray:
        placed = np.zeros((len(lanes) if row_index is None else len(row_index), *values.shape[1:]), values.dtype)
        placed[lanes] = values
        return placed

    return lut.pack(
        by_lane(codes),
        books,
        by_lane(scales),
        by_lane(row_scale),
        bits=factor.attributes["bits"],
        block_size=factor.attributes["block_size"],
        tile_book=factor.arrays["tile_book"],
        row_index=row_index,
    )
