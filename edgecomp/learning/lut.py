"""A `lut` factor whose codes, codebooks and scales are learned by gradients, always on the grids that are stored and run.

A weight is `codebook[code] * scale * row_scale`. Learned are

| what | held as | stored as |
| --- | --- | --- |
| code | a position p on the line of the ascending codebook's entries, float32 | round(p) |
| codebook entry | float32 | round(entry), int8 |
| block scale | float32, in units of the row scale | round(scale), int8 |

The forward value rounds all three; codebook and scales get the gradient of the rounded value (straight-through). For the map from
weights to codes there are three gradients, with `g` the gradient of a weight, `s` its step and `c` the codebook:

    straight-through:  dL/dp = g s
    proximal:          dL/dp = g s / (|c[j] - c[p]| + 1),   j the neighbour of p in the direction of descent, 0 where there is none
    naive:             dL/dI[k] = g s softmax(I)[k] (c[k] - c[code]),   a score I[k] for each codeword k; the code is argmax I

The last is what the method improves on, kept to measure by how much: it grows with the distance of a codeword, and takes as many
numbers a weight as there are codewords.

Source: E. Yvinec, A. Dapogny, K. Bailly, "Network Memory Footprint Compression Through Jointly Learnable Codebooks and Mappings",
ICLR 2024, arXiv:2309.17361: codebooks and mappings learned together, a map gradient that falls with the distance of the codeword,
so that the search stays local. The exact function was not to be found; both forms above are ours: of all codewords only the
neighbours are candidates, which takes one number a weight instead of one for each codeword. Adam divides a weight's gradient by its
own size, so that the distance hardly counts; what differs is the end of the line, and straight-through learns better.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from edgecomp.formats import lut
from edgecomp.tensor import Factor

MapGradient = Literal["proximal", "straight-through", "naive", "none"]
_LEARNABLE_BITS = range(1, 7)  # 7 and 8 bits have a fixed codebook


class LearnedLut:
    """Factors of one input width, bits and block size while they are learned, their rows one below the other.

    Args:
        factors: `lut` factors of 1 to 6 bits, the start.
        originals: the weights that they stand for, `[N, K]` each: they place a weight between its codeword and the next. A column
            of zeros, such as padding, keeps the code nearest 0.
        device: where to learn.
        map_gradient: how codes learn; `none` leaves them. For `naive`, `positions` are scores `[N, K, entries]`.

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
        map_gradient: MapGradient = "straight-through",
    ) -> None:
        self.factors = factors
        self.map_gradient = map_gradient
        self._sizes = [factor.shape[0] for factor in factors]
        starts = [_Start.of(factor) for factor in factors]
        first_book = np.cumsum([0, *(len(start.books) for start in starts)])
        row_book = np.concatenate([start.row_book + first for start, first in zip(starts, first_book, strict=False)])

        def joined(parts: Sequence[np.ndarray], dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.from_numpy(np.concatenate(parts)).to(device, dtype)

        self._row_book = torch.from_numpy(row_book).to(device)
        self._owners = torch.nn.functional.one_hot(self._row_book, int(first_book[-1])).T.float()  # [books, N]
        self._row_scale = joined([start.row_scale for start in starts])
        self._block_size = factors[0].attributes["block_size"]
        self.books = joined([start.books for start in starts])
        # Kernels multiply smaller entries faster (`largest_entry` of lut-kmeans): codebooks that start within a bound stay there.
        largest = self.books.abs().amax(dim=1, keepdim=True)
        self._largest_entry = torch.where(largest <= 31, 31.0, torch.where(largest <= 63, 63.0, 127.0))
        self.scales = joined([start.scales for start in starts])
        codes = torch.from_numpy(np.concatenate([start.codes for start in starts])).to(device, torch.int64)
        self.positions = codes + self._offsets(codes, torch.cat([original.to(device) for original in originals]))
        if map_gradient == "naive":
            entries = torch.arange(self.books.shape[1], device=device)
            self.positions = -(self.positions[..., None] - entries).abs()
        self._empty = [(original == 0).all(dim=0) for original in originals]

    @staticmethod
    def learns(factor: Factor) -> bool:
        """Those that have a codebook of their own."""
        return factor.attributes["bits"] in _LEARNABLE_BITS

    @staticmethod
    def alike(factor: Factor) -> Hashable:
        """Input width, bits and block size."""
        return factor.shape[1], factor.attributes["bits"], factor.attributes["block_size"]

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        """What is learned, by kind; an optimiser changes the tensors in place and then calls `clamp`."""
        return {"positions": self.positions, "books": self.books, "scales": self.scales}

    def weights(self) -> tuple[Tensor, ...]:
        """The factors' weights as they are stored: float32 `[N, K]` each."""
        _, values = self._values()
        weights = (self._blocked(values) * self._steps()[..., None]).reshape(len(values), -1)[:, : values.shape[1]]
        parts: tuple[Tensor, ...] = weights.split(self._sizes)
        return parts

    def set_gradients(self, gradients: Sequence[Tensor]) -> None:
        """Set `.grad` of the parameters from the gradients of the weights, `[N, K]` each."""
        codes, values = self._values()
        kept = [g.masked_fill(e.to(g.device), 0) if e.any() else g for g, e in zip(gradients, self._empty, strict=True)]
        blocks, steps = self._blocked(torch.cat(kept)), self._steps()
        self.scales.grad = (blocks * self._blocked(values)).sum(dim=2) * self._row_scale[:, None]
        of_values = (blocks * steps[..., None]).reshape(len(values), -1)[:, : values.shape[1]]
        by_row = torch.stack([torch.where(codes == code, of_values, 0).sum(dim=1) for code in range(self.books.shape[1])], dim=1)
        self.books.grad = self._owners @ by_row
        if self.map_gradient == "straight-through":
            self.positions.grad = of_values
        elif self.map_gradient == "proximal":
            self.positions.grad = of_values * self._nearness(codes, descending=of_values > 0)
        elif self.map_gradient == "naive":
            distance = self.books.round()[self._row_book][:, None, :] - values[..., None]
            self.positions.grad = of_values[..., None] * self.positions.softmax(dim=-1) * distance

    def clamp(self) -> None:
        """Keep what is learned within what can be stored; after every step of an optimiser."""
        if self.map_gradient != "naive":
            self.positions.clamp_(0, self.books.shape[1] - 1)
        self.scales.clamp_(-127, 127)
        self.books.copy_(self.books.clamp(-self._largest_entry, self._largest_entry).sort(dim=1).values)

    def to_factors(self) -> list[Factor]:
        """The learned factors, with their rows and codebooks where they were."""
        codes = self._codes().to(torch.uint8).cpu().split(self._sizes)
        scales = self.scales.round().to(torch.int8).cpu().split(self._sizes)
        row_scale = self._row_scale.cpu().split(self._sizes)
        books = self.books.round().to(torch.int8).cpu().split([len(factor.arrays["codebooks"]) for factor in self.factors])
        parts = zip(self.factors, self._empty, codes, scales, row_scale, books, strict=True)
        return [_packed(factor, empty.cpu().numpy(), *(part.numpy() for part in rest)) for factor, empty, *rest in parts]

    def _codes(self) -> Tensor:
        return self.positions.argmax(dim=-1) if self.map_gradient == "naive" else self.positions.round().to(torch.int64)

    def _values(self) -> tuple[Tensor, Tensor]:
        """Codes int64 and codebook values float32, both `[N, K]`."""
        codes = self._codes()
        return codes, self._values_of(codes)

    def _values_of(self, codes: Tensor) -> Tensor:
        return self.books.round()[self._row_book].gather(1, codes)

    def _steps(self) -> Tensor:
        return self.scales.round() * self._row_scale[:, None]

    def _blocked(self, values: Tensor) -> Tensor:
        padded = torch.nn.functional.pad(values, (0, self.scales.shape[1] * self._block_size - values.shape[1]))
        return padded.reshape(len(values), -1, self._block_size)

    def _nearness(self, codes: Tensor, descending: Tensor) -> Tensor:
        """1 / (distance + 1) to the neighbour below (where `descending`) or above, in int8 steps; 0 at the ends."""
        gaps = 1 / (self.books.round().diff(dim=1) + 1)
        below = torch.nn.functional.pad(gaps, (1, 0))[self._row_book].gather(1, codes)
        above = torch.nn.functional.pad(gaps, (0, 1))[self._row_book].gather(1, codes)
        return torch.where(descending, below, above)

    def _offsets(self, codes: Tensor, original: Tensor) -> Tensor:
        """How far each weight lies from its codeword towards the next one, in (-0.5, 0.5)."""
        values = self._values_of(codes)
        steps = self._steps()
        inverse = torch.where(steps == 0, 0, 1 / steps)
        target = (self._blocked(original) * inverse[..., None]).reshape(len(values), -1)[:, : values.shape[1]]
        distance = target - values
        nearness = self._nearness(codes, descending=distance < 0)
        return (distance * nearness).clamp(-0.49, 0.49)


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
        books = arrays["codebooks"].astype(np.int64)
        order = books.argsort(axis=1, kind="stable")
        rank = order.argsort(axis=1)
        row_book = arrays["tile_book"][lanes // lut.TILE_ROWS].astype(np.int64)
        codes = lut.unpack_codes(factor)[lanes, : factor.shape[1]]
        return _Start(
            codes=np.take_along_axis(rank[row_book], codes.astype(np.int64), axis=1).astype(np.uint8),
            books=np.take_along_axis(books, order, axis=1),
            row_book=row_book,
            scales=arrays["scales"].transpose(0, 2, 1).reshape(-1, arrays["scales"].shape[1])[lanes],
            row_scale=arrays["row_scale"].reshape(-1)[lanes],
        )


def _packed(
    factor: Factor, empty: np.ndarray, codes: np.ndarray, scales: np.ndarray, row_scale: np.ndarray, books: np.ndarray
) -> Factor:
    """The factor with other contents; its tiles keep their rows and codebooks, and `empty` columns get the padding code."""
    row_index = factor.arrays.get("row_index")
    lanes = lut.lane_of_row(factor)
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
