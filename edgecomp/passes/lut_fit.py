"""The fit of one matrix by codebooks and int8 block scales: weighted k-means, refined in turns on the grids that are stored.

Rows may be regrouped: sorted by the distribution of their weights and cut into groups of whole tiles, each with a codebook of its
own, so that no weight has to say which codebook is its own (E. Yvinec et al., 2024, arXiv:2309.17361). What a group is fitted by
is said in `edgecomp.passes.lut_kmeans` and, for errors weighted by a whole Hessian, in `edgecomp.passes.compensation`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from edgecomp.formats import lut
from edgecomp.passes.compensation import compensate
from edgecomp.passes.kmeans import kmeans_1d
from edgecomp.passes.levels import SMALLEST_STEP, Levels, quantize_steps
from edgecomp.tensor import Factor

_HISTOGRAM_BINS = 1024
_TABLE_RESOLUTION = 8
_CHUNK_WEIGHTS = 1 << 16  # what a processor's cache holds
_ACCELERATOR_CHUNK_WEIGHTS = 1 << 24  # enough to keep it busy
_QUANTILES = 17  # that describe the distribution of a row
# Alternating refinement stops at the nearest local optimum: some rounds try steps over a range of the block's largest weight.
_SEARCH_REFITS = (0, 3)
_STEP_CANDIDATES = [sign * factor for factor in (0.75, 0.83, 0.91, 0.99, 1.07, 1.14, 1.22, 1.3) for sign in (1, -1)]


@dataclass(frozen=True)
class LutFit:
    """A fitted factor; the errors are sqrt(sum of squared differences / sum of squared weights), plain and as weighted."""

    factor: Factor
    relative_error: float
    weighted_error: float


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
        refits: rounds of alternating refinement.
        real: bool `[K]`, False for columns that are padding: they count nowhere and get the padding code; None: all are real.
        books: codebooks, each of a group of rows; fewer where there are fewer tiles, and one for 7 and 8 bits.
        largest_entry: magnitude that codebook entries may have; 7 and 8 bits, whose codes are the entries, always use 127.

    """
    largest_entry = 127 if bits >= 7 else largest_entry
    n, k = matrix.shape
    padded = lut.round_up(k, lut.SPAN_COLUMNS)
    real = torch.ones(k, dtype=torch.bool) if real is None else real
    # Near 1, by a power of two, which changes no digit: squares of very large or small weights would leave float32.
    exponent = int(torch.frexp(matrix.detach().abs().max().float()).exponent.clamp(-126, 126))
    weights = torch.nn.functional.pad(matrix.detach().to(torch.float32) * 2.0**-exponent, (0, padded - k))
    weights = weights.reshape(n, -1, block_size)
    hessian = _hessian(importance, real.to(matrix.device), padded) if importance is not None and importance.ndim == 2 else None
    energy = importance.diagonal() if importance is not None and importance.ndim == 2 else importance
    column = _importance(energy, real.to(matrix.device), padded).reshape(-1, block_size)
    groups = _row_groups(weights, books) if books > 1 and bits < 7 else [torch.arange(n, device=weights.device)]
    parts = []
    for rows in groups:
        levels = _fit_rows(weights[rows], column, bits, refits, largest_entry)
        parts.append(levels if hessian is None else compensate(weights[rows], hessian, levels))
    order = torch.cat(groups)
    codes = torch.cat([part.codes for part in parts]).reshape(n, -1)
    values = torch.cat([part.codebook[part.codes] for part in parts])
    error = torch.cat([part.weights for part in parts]) - weights[order]
    # 7 and 8 bits store the values themselves (lut.md).
    stored = (values.to(torch.int16).reshape(n, -1) if bits >= 7 else codes)[:, :k].cpu().numpy()
    codebooks = torch.stack([part.codebook for part in parts]).to(torch.int8).cpu().numpy()
    book_of_row = np.repeat(np.arange(len(groups)), [len(rows) for rows in groups])
    padding = ~real.cpu().numpy()
    stored[:, padding] = lut.padding_codes(codebooks, bits)[book_of_row][:, None]
    lanes = None if len(groups) == 1 else np.full(lut.round_up(n, lut.TILE_ROWS), -1, np.int32)
    if lanes is not None:
        lanes[:n] = order.cpu().numpy()
    factor = lut.pack(
        _as_lanes(stored, lanes),
        codebooks,
        _as_lanes(torch.cat([part.scales for part in parts]).to(torch.int8).cpu().numpy(), lanes),
        _as_lanes(torch.cat([part.row_scale for part in parts]).cpu().numpy() * np.float32(2.0**exponent), lanes),
        bits=bits,
        block_size=block_size,
        tile_book=None if lanes is None else book_of_row[:: lut.TILE_ROWS].astype(np.uint16),
        row_index=lanes,
    )
    plain = _ratio(error, weights, (column > 0).float())
    if hessian is None:
        return LutFit(factor, plain, _ratio(error, weights, column))
    return LutFit(factor, plain, _hessian_ratio(error.reshape(n, -1), weights.reshape(n, -1), hessian))


def _as_lanes(rows: np.ndarray, lanes: np.ndarray | None) -> np.ndarray:
    """Rows with rows of zeros after them, as many as the last tile lacks, where there is an order of lanes."""
    if lanes is None or len(lanes) == len(rows):
        return rows
    return np.concatenate([rows, np.zeros((len(lanes) - len(rows), *rows.shape[1:]), rows.dtype)])


def _row_groups(weights: Tensor, books: int) -> list[Tensor]:
    """The rows of each group: sorted along the main direction in which their distributions differ, cut into equally many tiles.

    A row's distribution is that of what the codebook has to give: weights over the largest of their block, described by quantiles.
    """
    n = len(weights)
    largest = _largest(weights)[..., None]
    normalised = torch.where(largest == 0, 0, weights / largest).reshape(n, -1).sort(dim=1).values
    described = normalised[:, torch.linspace(0, normalised.shape[1] - 1, _QUANTILES, device=weights.device).long()].double()
    described = described - described.mean(dim=0)
    direction = torch.linalg.eigh(described.T @ described).eigenvectors[:, -1]
    direction = direction * direction[direction.abs().argmax()].sign()  # an eigenvector has no sign of its own
    order = (described @ direction).argsort(stable=True)
    tiles = lut.round_up(n, lut.TILE_ROWS) // lut.TILE_ROWS
    groups = min(books, tiles)
    bounds = [min(n, tiles * group // groups * lut.TILE_ROWS) for group in range(groups + 1)]
    return [order[low:high].sort().values for low, high in pairwise(bounds)]


def _fit_rows(weights: Tensor, importance: Tensor, bits: int, refits: int, largest_entry: int) -> Levels:
    """One codebook for the rows `[N, blocks, block_size]`, and their codes and scales."""
    codebook, steps = _initial_levels(weights, importance, bits, largest_entry)
    scales, row_scale = quantize_steps(steps)
    codes = _assign(weights, codebook, scales, row_scale)
    best = (_squared_error(weights, importance, codebook, codes, scales, row_scale), codebook, scales, row_scale)
    for refit in range(refits):
        codebook = _refit_codebook(weights, importance, codes, codebook, scales, row_scale, largest_entry)
        if refit in _SEARCH_REFITS:
            steps = _search_steps(weights, importance, codebook, largest_entry)
        else:
            codes = _assign(weights, codebook, scales, row_scale)
            steps = _refit_steps(weights, importance, codebook, codes)
        scales, row_scale = quantize_steps(steps)
        codes = _assign(weights, codebook, scales, row_scale)
        squared_error = _squared_error(weights, importance, codebook, codes, scales, row_scale)
        if squared_error < best[0]:
            best = (squared_error, codebook, scales, row_scale)
    # Rounding to the stored grids can undo what a round gained.
    _, codebook, scales, row_scale = best
    return Levels(codebook, _assign(weights, codebook, scales, row_scale), scales, row_scale)


def _squared_error(
    weights: Tensor, importance: Tensor, codebook: Tensor, codes: Tensor, scales: Tensor, row_scale: Tensor
) -> float:
    """What `fit_lut` minimises."""

    def error(weights: Tensor, codes: Tensor, steps: Tensor) -> Tensor:
        return (importance * (weights - codebook[codes] * steps[..., None]).square()).sum(dim=(1, 2))

    return float(_by_rows(error, weights, codes, scales * row_scale[:, None]).double().sum())


def _ratio(error: Tensor, weights: Tensor, importance: Tensor) -> float:
    total = (weights.square() * importance).sum().item()
    return float(np.sqrt((error.square() * importance).sum().item() / total)) if total > 0 else 0.0


def _importance(energy: Tensor | None, real: Tensor, padded: int) -> Tensor:
    """Importances `[padded]` of mean 1 over the real columns, 0 in the padding.

    A hundredth of the mean is added: a column that calibration never excited still has to be kept.
    """
    if energy is None or not energy.any():
        energy = torch.ones_like(real)
    energy = energy.to(device=real.device, dtype=torch.float32)
    importance = torch.where(real, energy / energy[real].mean() + 0.01, 0)
    return torch.nn.functional.pad(importance, (0, padded - len(real)))


def _hessian(given: Tensor, real: Tensor, padded: int) -> Tensor:
    """The Hessian `[padded, padded]`, scaled and damped as `_importance` does its diagonal; next to nothing in the padding."""
    given = torch.where(real[:, None] & real[None, :], given.to(device=real.device, dtype=torch.float32), 0)
    mean = given.diagonal()[real].mean()
    given = given / mean if mean > 0 else torch.eye(len(real), device=real.device)
    hessian = torch.nn.functional.pad(given, (0, padded - len(real), 0, padded - len(real)))
    return hessian + torch.diag(torch.nn.functional.pad(torch.where(real, 0.01, 1e-6), (0, padded - len(real)), value=1e-6))


def _hessian_ratio(error: Tensor, weights: Tensor, hessian: Tensor) -> float:
    total = float(((weights @ hessian) * weights).sum())
    return float(np.sqrt(float(((error @ hessian) * error).sum()) / total)) if total > 0 else 0.0


def _initial_levels(weights: Tensor, importance: Tensor, bits: int, largest_entry: int) -> tuple[Tensor, Tensor]:
    """A codebook (float32 holding int8 values, ascending) and steps `[N, blocks]` to start from.

    A block's step is its largest weight with its sign, so that the largest weight is always +1 and the codebook spends its entries
    on the rest.
    """
    largest = _largest(weights)
    if bits == 8:
        return torch.arange(-127, 128, dtype=torch.float32, device=weights.device), largest / 127
    normalised = torch.where(largest[..., None] == 0, 0, weights / largest[..., None]).clamp(-1, 1)
    mass = (importance * largest.square()[..., None]).reshape(-1)
    counts = torch.bincount(
        ((normalised.reshape(-1) + 1) * (_HISTOGRAM_BINS / 2)).to(torch.int64).clamp_(max=_HISTOGRAM_BINS - 1),
        weights=mass.to(torch.float64),
        minlength=_HISTOGRAM_BINS,
    )
    centres = (np.arange(_HISTOGRAM_BINS) + 0.5) * (2 / _HISTOGRAM_BINS) - 1
    entries = kmeans_1d(centres, counts.cpu().numpy(), 2**bits)
    peak = np.abs(entries).max()
    codebook = torch.from_numpy(np.rint(entries * (largest_entry / peak))).to(weights.device, torch.float32)
    return codebook, largest * (float(peak) / largest_entry)


def _largest(weights: Tensor) -> Tensor:
    """The weight largest in magnitude of each block, with its sign: `[N, blocks]`."""
    return weights.gather(2, weights.abs().argmax(dim=2, keepdim=True))[..., 0]


def _assign(weights: Tensor, codebook: Tensor, scales: Tensor, row_scale: Tensor) -> Tensor:
    """Code of the nearest representable value of every weight, int32; blocks of scale 0 take the entry nearest 0."""
    nearest = _nearest_table(codebook)

    def assign(weights: Tensor, steps: Tensor) -> Tensor:
        return _look_up(nearest, weights, steps)

    return _by_rows(assign, weights, scales * row_scale[:, None])


def _nearest_table(codebook: Tensor) -> Tensor:
    """The nearest entry's code for every target from -128 to 128 in steps of 1 / _TABLE_RESOLUTION: int32.

    Looking up is several times faster than searching, and off by at most half of such a step.
    """
    targets = (torch.arange(256 * _TABLE_RESOLUTION, device=codebook.device) + 0.5) / _TABLE_RESOLUTION - 128
    return torch.bucketize(targets, (codebook[1:] + codebook[:-1]) / 2, out_int32=True)


def _look_up(table: Tensor, weights: Tensor, steps: Tensor) -> Tensor:
    """Entry of `table` (as `_nearest_table` lays it out) for weights `[N, blocks, block_size]` over steps `[N, blocks]`."""
    inverse = torch.where(steps.abs() < SMALLEST_STEP, 0, 1 / steps)[..., None]
    position = torch.floor(weights * (inverse * _TABLE_RESOLUTION)).add_(128 * _TABLE_RESOLUTION)
    index = position.clamp_(0, len(table) - 1).to(torch.int32)
    return table.index_select(0, index.reshape(-1)).reshape(weights.shape)


def _by_rows(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """`function` over chunks of rows that fit in the processor's cache, its results joined."""
    chunk = _CHUNK_WEIGHTS if tensors[0].device.type == "cpu" else _ACCELERATOR_CHUNK_WEIGHTS
    rows = max(1, chunk // tensors[0][0].numel())
    return torch.cat([function(*part) for part in zip(*(tensor.split(rows) for tensor in tensors), strict=True)])


def _refit_codebook(
    weights: Tensor,
    importance: Tensor,
    codes: Tensor,
    codebook: Tensor,
    scales: Tensor,
    row_scale: Tensor,
    largest_entry: int,
) -> Tensor:
    """Least-squares entries given codes and steps, as integers; entries without weight stay. 8 bits are the grid itself."""
    if len(codebook) > 128:
        return codebook
    steps = (scales * row_scale[:, None])[..., None]
    flat = codes.reshape(-1)
    numerator = torch.bincount(flat, weights=(importance * steps * weights).reshape(-1).double(), minlength=len(codebook))
    denominator = torch.bincount(
        flat, weights=(importance * steps.square()).expand_as(weights).reshape(-1).double(), minlength=len(codebook)
    )
    entries = torch.where(denominator > 0, numerator / denominator, codebook.double())
    return entries.round().clamp(-largest_entry, largest_entry).float().sort().values


def _refit_steps(weights: Tensor, importance: Tensor, codebook: Tensor, codes: Tensor) -> Tensor:
    """Least-squares steps `[N, blocks]` given the codes of all weights."""

    def refit(weights: Tensor, codes: Tensor) -> Tensor:
        return _least_squares(weights, importance, codebook[codes])

    return _by_rows(refit, weights, codes)


def _least_squares(weights: Tensor, importance: Tensor, values: Tensor) -> Tensor:
    numerator = (importance * values * weights).sum(dim=2)
    denominator = (importance * values.square()).sum(dim=2)
    return torch.where(denominator > 0, numerator / denominator, 0)


def _search_steps(weights: Tensor, importance: Tensor, codebook: Tensor, largest_entry: int) -> Tensor:
    """The best step of each block among candidates of both signs, each refitted by least squares: `[N, blocks]`."""
    nearest_value = codebook[_nearest_table(codebook)]

    def search(weights: Tensor) -> Tensor:
        largest = _largest(weights) / largest_entry
        best_error = torch.full_like(largest, torch.inf)
        best_steps = torch.zeros_like(largest)
        for factor in _STEP_CANDIDATES:
            values = _look_up(nearest_value, weights, largest * factor)
            steps = _least_squares(weights, importance, values)
            error = (importance * (weights - values * steps[..., None]).square()).sum(dim=2)
            better = error < best_error
            best_error = torch.where(better, error, best_error)
            best_steps = torch.where(better, steps, best_steps)
        return best_steps

    return _by_rows(search, weights)
