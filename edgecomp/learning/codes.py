"""Codes and codebooks while they are learned by gradients: what the learners of formats with codebooks share.

A value is `codebook[code]`, its entries ascending. The forward value is the one that is stored: entries are rounded to int8, and
codebooks get the gradient of the rounded value (straight-through). Codes are learned by scores, or by positions:

| map gradient | held of a weight, float32 | code |
| --- | --- | --- |
| `scores` | a score I[k] for each of the nearest codewords, 3 by default | the candidate with the largest score |
| `straight-through`, `proximal` | a position p on the line of the codebook's entries | round(p) |

With `g` the gradient of a value and `c` the codebook:

    scores:            dL/dI[k] = g softmax(I)[k] (c[k] - c[code])
    straight-through:  dL/dp = g
    proximal:          dL/dp = g / (|c[j] - c[p]| + 1),   j the neighbour of p in the direction of descent, 0 where there is none

A score starts as minus the distance of the weight's place on that line from the codeword. With as many candidates as there are
codewords `scores` is the naive gradient, which grows with a codeword's distance and takes as many numbers a weight as there are
codewords: what the source improves on. Which codewords are candidates is decided at the start.

Source: E. Yvinec, A. Dapogny, K. Bailly, "Network Memory Footprint Compression Through Jointly Learnable Codebooks and Mappings",
ICLR 2024, arXiv:2309.17361: codebooks and mappings learned together, by a map gradient that falls with the distance of the
codeword, so that the search stays local. The exact function was not to be found. Here the candidates keep it local; `proximal` is
our reading of the function, on positions. Adam divides a weight's gradient by its own size, so that its distance hardly counts.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from edgecomp.learning.merged import Merged
from edgecomp.settings.jlcm import MapGradient

LEARNABLE_BITS = range(1, 7)  # 7 and 8 bits have a fixed codebook


class LearnedCodes:
    """Codes of `N` rows of `K` columns, and the codebooks that the rows use.

    Args:
        codes: the start, int64 `[N, K]`.
        books: ascending entries, float32 `[books, entries]`; changed in place.
        row_book: the codebook of each row, int64 `[N]`.
        targets: what the values stand for, `[N, K]`: they place a weight between its codeword and the next.
        map_gradient: how codes learn; `none` leaves them. For `scores`, `positions` are scores `[candidates, N, K]`.
        candidates: the nearest codewords that have a score; all of them where there are fewer.

    """

    def __init__(
        self, codes: Tensor, books: Tensor, row_book: Tensor, targets: Tensor, map_gradient: MapGradient, candidates: int = 3
    ) -> None:
        self.books = books
        self.map_gradient = map_gradient
        self._row_book = row_book
        self._owners = torch.nn.functional.one_hot(row_book, len(books)).T.float()  # [books, N]
        # Kernels multiply smaller entries faster (`largest_entry` of lut-kmeans): codebooks that start within a bound stay there.
        largest = books.abs().amax(dim=1, keepdim=True)
        self._largest_entry = torch.where(largest <= 31, 31.0, torch.where(largest <= 63, 63.0, 127.0))
        distance = targets - self._values_of(codes)
        self.positions = codes + (distance * self._nearness(codes, descending=distance < 0)).clamp(-0.49, 0.49)
        if map_gradient == "scores":
            count = min(candidates, books.shape[1])
            # The window of codewords whose middle is nearest; with an even number the place lies between the two in the middle.
            first = (self.positions - (count - 1) / 2).round() if count % 2 else self.positions.floor() - (count / 2 - 1)
            self._first = first.clamp(0, books.shape[1] - count).to(torch.uint8)
            self.positions = torch.stack([-(self.positions - self._first - k).abs() for k in range(count)])

    def codes(self) -> Tensor:
        """The codes as they are stored: int64 `[N, K]`."""
        if self.map_gradient == "scores":
            return _chosen(self.positions, self._first)[0].long()
        return self.positions.round().to(torch.int64)

    def values(self) -> Tensor:
        """The values as they are stored: float32 `[N, K]`."""
        if self.map_gradient == "scores":
            values: Tensor = _values_by_scores(self.positions, self._first, self._row_books())
            return values
        return self._values_of(self.codes())

    def set_gradients(self, of_values: Tensor) -> None:
        """Set `.grad` of positions and codebooks from the gradients of the values, `[N, K]`."""
        if self.map_gradient == "scores":
            self.positions.grad, sums = _score_gradients(self.positions, self._first, self._row_books(), of_values)
        else:
            codes = self.codes()
            sums = _sums_by_code(codes.to(torch.uint8), of_values, self.books.shape[1])
            if self.map_gradient == "straight-through":
                self.positions.grad = of_values
            elif self.map_gradient == "proximal":
                self.positions.grad = of_values * self._nearness(codes, descending=of_values > 0)
        self.books.grad = self._owners @ sums

    def clamp(self) -> None:
        """Keep codes within the codebook, and its entries ascending and within their bound."""
        if self.map_gradient != "scores":
            self.positions.clamp_(0, self.books.shape[1] - 1)
        self.books.copy_(self.books.clamp(-self._largest_entry, self._largest_entry).sort(dim=1).values)

    def _row_books(self) -> Tensor:
        """The codebook of each row as it is stored: `[N, entries]`."""
        return self.books.round()[self._row_book]

    def _values_of(self, codes: Tensor) -> Tensor:
        return self._row_books().gather(1, codes)

    def _nearness(self, codes: Tensor, descending: Tensor) -> Tensor:
        """1 / (distance + 1) to the neighbour below (where `descending`) or above, in int8 steps; 0 at the ends."""
        gaps = 1 / (self.books.round().diff(dim=1) + 1)
        below = torch.nn.functional.pad(gaps, (1, 0))[self._row_book].gather(1, codes)
        above = torch.nn.functional.pad(gaps, (0, 1))[self._row_book].gather(1, codes)
        return torch.where(descending, below, above)


def _chosen(scores: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    """The code with the largest score, uint8 `[N, K]`, and that score; of equal ones the first."""
    codes, largest = first, scores[0]
    for k in range(1, len(scores)):
        larger = scores[k] > largest
        codes, largest = torch.where(larger, first + k, codes), torch.where(larger, scores[k], largest)
    return codes, largest


def _values_of_scores(scores: Tensor, first: Tensor, row_books: Tensor) -> Tensor:
    """The codeword with the largest score: `[N, K]`.

    Args:
        scores: `[candidates, N, K]`.
        first: the code of the first candidate, uint8 `[N, K]`.
        row_books: `[N, entries]`.

    """
    return row_books.gather(1, _chosen(scores, first)[0].long())


def _gradients_of_scores(scores: Tensor, first: Tensor, row_books: Tensor, of_values: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the scores, and of the values added up by code; arguments as above, `of_values` `[N, K]`."""
    codes, largest = _chosen(scores, first)
    own = row_books.gather(1, codes.long())
    likely = [(score - largest).exp() for score in scores]
    of_all = of_values / sum(likely[1:], likely[0])
    of_scores = [likely[k] * (row_books.gather(1, first.long() + k) - own) * of_all for k in range(len(scores))]
    return torch.stack(of_scores), _sums_of_codes(codes, of_values, row_books.shape[1])


def _sums_of_codes(codes: Tensor, of_values: Tensor, entries: int) -> Tensor:
    """The gradients of each row's weights, added up by code: `[N, entries]`."""
    return torch.stack([torch.where(codes == code, of_values, 0).sum(dim=1) for code in range(entries)], dim=1)


_values_by_scores, _score_gradients, _sums_by_code = Merged(_values_of_scores), Merged(_gradients_of_scores), Merged(_sums_of_codes)


def ascending(codes: np.ndarray, books: np.ndarray, row_book: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same values by codebooks whose entries ascend: codes uint8 `[N, K]`, books int64 `[books, entries]`."""
    books = books.astype(np.int64)
    order = books.argsort(axis=1, kind="stable")
    rank = order.argsort(axis=1)
    sorted_codes: np.ndarray = np.take_along_axis(rank[row_book], codes.astype(np.int64), axis=1)
    return sorted_codes.astype(np.uint8), np.take_along_axis(books, order, axis=1)
