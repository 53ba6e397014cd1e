"""The fit of one matrix: a codebook from a sample of its rows, then codes and scales of all rows, some at a time.

Given the codebook, rows do not depend on each other, so that memory is needed for the rows that are being fitted and not for the
matrix. On a processor both are done by the C++ library (`native_fit`), elsewhere by PyTorch, which is the reference: `tile_fit`
and, for errors weighted by a whole Hessian, `compensation`.

Rows may be regrouped: sorted by the distribution of their weights and cut into groups of whole tiles, each with a codebook of its
own, so that no weight has to say which codebook is its own (E. Yvinec et al., 2024, arXiv:2309.17361).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from edgecomp.fitting import native_fit, tile_fit
from edgecomp.fitting.compensation import compensate, reversed_factor
from edgecomp.fitting.levels import divided
from edgecomp.fitting.native_fit import PackedRows
from edgecomp.formats import lut
from edgecomp.tensor import Factor

_SAMPLE_WEIGHTS = 1 << 18  # that a codebook is fitted to
_CHUNK_WEIGHTS = 1 << 22  # fitted at a time: Ctrl-C waits for them
_ACCELERATOR_CHUNK_WEIGHTS = 1 << 26
_HESSIAN_WORK = 1 << 33  # chunk weights times K
_CHUNK_ROWS = 3 * lut.TILE_ROWS  # of which a chunk has a multiple
_QUANTILES = 17  # that describe the distribution of a row


@dataclass(frozen=True)
class LutFit:
    """A fitted factor; the errors are sqrt(sum of squared differences / sum of squared weights), plain and as weighted."""

    factor: Factor
    relative_error: float
    weighted_error: float


def hessian_bytes(columns: int) -> int:
    """Memory that a fit to a Hessian needs at least, the Hessian included.

    Beside what is given, float32, there are a damped copy, a float64 factor, and another float32: the copy in reverse order that
    the factor is made of, then the factor as the fit reads it.

    Args:
        columns: K.

    """
    return (4 + 4 + 8 + 4) * lut.round_up(columns, lut.SPAN_COLUMNS) ** 2


@dataclass(frozen=True)
class _Settings:
    """What all rows of a matrix have in common.

    Args:
        scale: a power of two that brings the largest weight near 1 and changes no digit: squares of very large or small weights
            would leave float32.
        importance: float32 `[padded K]`, on the matrix's device.
        hessian: float32 `[padded K, padded K]` on that device, or None.

    """

    bits: int
    block_size: int
    refits: int
    largest_entry: int
    scale: float
    importance: Tensor
    hessian: Tensor | None


class _Fitter(Protocol):
    """Fits rows `[n, K]` of a matrix."""

    def codebook(self, rows: Tensor) -> np.ndarray:
        """The codebook of a sample: float32 holding integers, ascending."""

    def rows(self, rows: Tensor, codebook: np.ndarray, out: PackedRows) -> None:
        """Codes and scales given the codebook, into `out`."""


def fit_lut(
    matrix: Tensor,
    importance: Tensor | None,
    *,
    bits: int,
    block_size: int,
    refits: int,
    real: Tensor | None = None,
    books: int = 1,
    largest_entry: int = 127,
) -> LutFit:
    """Fit and pack one matrix.

    Args:
        matrix: `[N, K]`, any float dtype.
        importance: of each column's errors `[K]`, not negative, or their whole Hessian `[K, K]`; None weights all columns alike.
        bits: width of a code, 1 to 8.
        block_size: columns that share a scale.
        refits: rounds in which a codebook is refitted, at most.
        real: bool `[K]`, False for columns that are padding: they count nowhere and get the padding code; None: all are real.
        books: codebooks, each of a group of rows; fewer where there are fewer tiles, and one for 7 and 8 bits.
        largest_entry: magnitude that codebook entries may have; 7 and 8 bits, whose codes are the entries, always use 127.

    """
    matrix = matrix.detach()
    n, k = matrix.shape
    settings = _settings(matrix, importance, bits, block_size, refits, real, 127 if bits >= 7 else largest_entry)
    fitter: _Fitter = _NativeFitter(settings) if matrix.device.type == "cpu" else _TorchFitter(settings)
    groups = _row_groups(matrix, settings, books) if books > 1 and bits < 7 else [None]
    packed = native_fit.empty_rows(n, k, bits, block_size)
    codebooks, parts = [], []
    tile_book: list[int] = []
    for book, rows in enumerate(groups):
        codebook = fitter.codebook(_sample(matrix, rows))
        codebooks.append(codebook)
        for chunk in _chunks(matrix, rows, settings):
            tiles = -(-len(chunk) // lut.TILE_ROWS)
            parts.append(packed.tiles(len(tile_book), tiles))
            fitter.rows(chunk, codebook, parts[-1])
            tile_book += [book] * tiles
    arrays = {
        "codes": packed.codes,
        "codebooks": lut.identity_codebook() if bits >= 7 else np.stack(codebooks).astype(np.int8),
        "tile_book": np.array(tile_book, np.uint16),
        "scales": packed.scales,
        "row_scale": packed.row_scale,
    }
    if len(groups) > 1:
        arrays["row_index"] = np.full(len(tile_book) * lut.TILE_ROWS, -1, np.int32)
        arrays["row_index"][:n] = torch.cat([rows for rows in groups if rows is not None]).cpu().numpy()
    factor = Factor(lut.FORMAT, (n, k), {"bits": bits, "block_size": block_size}, arrays)
    lut.validate(factor)
    squares = [math.fsum(part.squares[i] for part in parts) for i in range(4)]
    return LutFit(factor, _ratio(*squares[:2]), _ratio(*squares[2:]))


def _settings(
    matrix: Tensor, importance: Tensor | None, bits: int, block_size: int, refits: int, real: Tensor | None, largest_entry: int
) -> _Settings:
    k, device = matrix.shape[1], matrix.device
    padded = lut.round_up(k, lut.SPAN_COLUMNS)
    real = (torch.ones(k, dtype=torch.bool) if real is None else real).to(device)
    exponent = min(max(math.frexp(_largest_magnitude(matrix))[1], -126), 126)
    whole = importance is not None and importance.ndim == 2
    energy = importance.diagonal() if importance is not None and whole else importance
    return _Settings(
        bits=bits,
        block_size=block_size,
        refits=refits,
        largest_entry=largest_entry,
        scale=2.0**-exponent,
        importance=_importance(energy, real, padded),
        hessian=_hessian(importance, real, padded) if importance is not None and whole else None,
    )


def _largest_magnitude(matrix: Tensor) -> float:
    """Of a small matrix by one thread: PyTorch's others go on looking for work for a millisecond, on cores that the fit needs."""
    small = matrix.device.type == "cpu" and matrix.dtype == torch.float32 and matrix.numel() <= _CHUNK_WEIGHTS
    low, high = (matrix.numpy().min(), matrix.numpy().max()) if small else matrix.aminmax()
    return max(float(high), -float(low))


class _NativeFitter:
    """By the C++ library."""

    def __init__(self, settings: _Settings) -> None:
        self._refits = settings.refits
        self._settings = native_fit.Settings(
            scale=settings.scale,
            importance=settings.importance.numpy(),
            block_size=settings.block_size,
            bits=settings.bits,
            largest_entry=settings.largest_entry,
            threads=torch.get_num_threads(),
        )
        self._panels = None
        if settings.hessian is not None:
            factor = native_fit.pack_factor(reversed_factor(settings.hessian).numpy())
            self._panels = native_fit.HessianPanels(native_fit.pack_panels(settings.hessian.numpy()), factor)

    def codebook(self, rows: Tensor) -> np.ndarray:
        return native_fit.fit_codebook(_array(rows), self._settings, self._refits)

    def rows(self, rows: Tensor, codebook: np.ndarray, out: PackedRows) -> None:
        native_fit.fit_rows(_array(rows), self._settings, codebook, out, self._panels)


class _TorchFitter:
    """On the matrix's own device, by PyTorch."""

    def __init__(self, settings: _Settings) -> None:
        self._settings = settings
        self._importance = settings.importance.reshape(-1, settings.block_size)

    def codebook(self, rows: Tensor) -> np.ndarray:
        s = self._settings
        codebook = tile_fit.fit_codebook(self._blocks(rows), self._importance, s.bits, s.refits, s.largest_entry)
        array: np.ndarray = codebook.cpu().numpy()
        return array

    def rows(self, rows: Tensor, codebook: np.ndarray, out: PackedRows) -> None:
        s, weights = self._settings, self._blocks(rows)
        levels = tile_fit.fit_rows(weights, self._importance, torch.from_numpy(codebook).to(rows.device), s.largest_entry)
        if s.hessian is not None:
            levels = compensate(weights, s.hessian, levels)
        tile_fit.pack_rows(weights, levels, self._importance, s.hessian, out, bits=s.bits, scale=s.scale)

    def _blocks(self, rows: Tensor) -> Tensor:
        """Rows near 1, padded and in blocks: float32 `[n, blocks, block_size]`."""
        padding = len(self._settings.importance) - rows.shape[1]
        weights = torch.nn.functional.pad(rows.float() * self._settings.scale, (0, padding))
        return weights.reshape(len(rows), -1, self._settings.block_size)


def _sample(matrix: Tensor, rows: Tensor | None) -> Tensor:
    """Some of the matrix's rows, or of those that `rows` names: whole tiles at equal distances."""
    n = len(matrix) if rows is None else len(rows)
    tiles = -(-n // lut.TILE_ROWS)
    count = min(tiles, max(1, _SAMPLE_WEIGHTS // (lut.TILE_ROWS * matrix.shape[1])))
    if rows is None and count == tiles:
        return matrix
    first = torch.arange(count, device=matrix.device) * tiles // count * lut.TILE_ROWS
    chosen = (first[:, None] + torch.arange(lut.TILE_ROWS, device=matrix.device)).flatten()
    chosen = chosen[chosen < n] if rows is None else rows[chosen[chosen < n]]
    if matrix.device.type == "cpu" and matrix.dtype == torch.float32:  # by one thread, as `_largest_magnitude` says
        return torch.from_numpy(matrix.numpy()[chosen.numpy()])
    return matrix[chosen]


def _chunks(matrix: Tensor, rows: Tensor | None, settings: _Settings) -> Iterator[Tensor]:
    """All rows, or those that `rows` names, some at a time."""
    n, k = len(matrix) if rows is None else len(rows), matrix.shape[1]
    weights = _chunk_weights(matrix)
    if settings.hessian is not None:
        weights = min(weights, _HESSIAN_WORK // k)
    count = lut.round_up(max(1, weights // k), _CHUNK_ROWS)
    for first in range(0, n, count):
        yield matrix[first : first + count] if rows is None else matrix[rows[first : first + count]]


def _chunk_weights(matrix: Tensor) -> int:
    return _CHUNK_WEIGHTS if matrix.device.type == "cpu" else _ACCELERATOR_CHUNK_WEIGHTS


def _array(rows: Tensor) -> np.ndarray:
    array: np.ndarray = rows.to(torch.float32).contiguous().numpy()
    return array


def _ratio(errors: float, weights: float) -> float:
    return math.sqrt(max(errors, 0.0) / weights) if weights > 0 else 0.0


def _row_groups(matrix: Tensor, settings: _Settings, books: int) -> list[Tensor | None]:
    """The rows of each group: sorted along the main direction in which their distributions differ, cut into equally many tiles.

    A row's distribution is that of what the codebook has to give: weights over the largest of their block, described by quantiles.
    """
    n, k = matrix.shape
    described = torch.cat([_described(rows, settings) for rows in matrix.split(max(1, _chunk_weights(matrix) // k))])
    described = described - described.mean(dim=0)
    direction = torch.linalg.eigh(described.T @ described).eigenvectors[:, -1]
    direction = direction * direction[direction.abs().argmax()].sign()  # an eigenvector has no sign of its own
    order = (described @ direction).argsort(stable=True)
    tiles = lut.round_up(n, lut.TILE_ROWS) // lut.TILE_ROWS
    groups = min(books, tiles)
    bounds = [min(n, tiles * group // groups * lut.TILE_ROWS) for group in range(groups + 1)]
    return [order[low:high].sort().values for low, high in pairwise(bounds)]


def _described(rows: Tensor, settings: _Settings) -> Tensor:
    """Quantiles of the distribution of each row: float64 `[n, _QUANTILES]`."""
    n, k = rows.shape
    weights = torch.nn.functional.pad(rows.float() * settings.scale, (0, len(settings.importance) - k))
    normalised = tile_fit.normalised(weights.reshape(n, -1, settings.block_size)).reshape(n, -1).sort(dim=1).values
    return normalised[:, torch.linspace(0, normalised.shape[1] - 1, _QUANTILES, device=rows.device).long()].double()


def _importance(energy: Tensor | None, real: Tensor, padded: int) -> Tensor:
    """Importances `[padded]` of mean 1 over the real columns, 0 in the padding.

    A hundredth of the mean is added: a column that calibration never excited still has to be kept.
    """
    if energy is None or not energy.any():
        energy = torch.ones_like(real)
    energy = energy.to(device=real.device, dtype=torch.float32)
    chosen = energy[real].cpu().double().tolist()
    mean = math.fsum(chosen) / len(chosen)  # exact, whatever the order of the sum
    importance = torch.where(real, divided(energy, mean) + 0.01, 0)
    return torch.nn.functional.pad(importance, (0, padded - len(real)))


def _hessian(given: Tensor, real: Tensor, padded: int) -> Tensor:
    """The Hessian `[padded, padded]`, scaled and damped as `_importance` does its diagonal; next to nothing in the padding."""
    k = len(real)
    hessian = torch.zeros((padded, padded), dtype=torch.float32, device=real.device)
    inner = hessian[:k, :k]
    inner.copy_(given)
    if not real.all():
        inner.masked_fill_(~(real[:, None] & real[None, :]), 0)
    mean = inner.diagonal()[real].mean()
    if mean > 0:
        inner.div_(mean)
    else:
        inner.copy_(torch.eye(k))
    damping = torch.where(real, 0.01, 1e-6)
    hessian.diagonal().add_(torch.nn.functional.pad(damping, (0, padded - k), value=1e-6))
    return hessian
