"""The fit of a matrix of few columns by one codebook and a step a row (format `lut_narrow`).

The codebook starts as the weighted k-means of the weights over their row's largest. Then come, in turns,

    codes given codebook and steps          the nearest entry
    steps given codes and codebook          least squares, rounded to the grid that is stored
    codebook given codes and steps          least squares, rounded to int8

as `edgecomp.passes.lut_kmeans` says for blocks; the best round is kept, since rounding to the stored grids can undo what one
gained.
"""

from __future__ import annotations

import numpy as np

from edgecomp.fitting.kmeans import kmeans_1d
from edgecomp.formats import lut_narrow
from edgecomp.formats.lut import storage_bits
from edgecomp.tensor import Factor

_HISTOGRAM_BINS = 512


def fit_narrow(weights: np.ndarray, importance: np.ndarray | None, *, bits: int, refits: int) -> Factor:
    """Fit and pack one matrix.

    Args:
        weights: float `[N, K]`.
        importance: of each column's errors `[K]`, not negative; None weights all columns alike.
        bits: width of a code, 1 to 8.
        refits: rounds of alternating refinement.

    """
    weights = weights.astype(np.float64)
    column = np.ones(weights.shape[1]) if importance is None or not importance.any() else importance.astype(np.float64)
    largest = np.abs(weights).max(axis=1)
    scale, exponent = lut_narrow.quantize_steps(largest / 127)
    if storage_bits(bits) == 8:
        steps = lut_narrow.row_steps(scale, exponent).astype(np.float64)[:, None]
        values = np.clip(np.rint(np.divide(weights, steps, out=np.zeros_like(weights), where=steps > 0)), -127, 127)
        return lut_narrow.pack(values.astype(np.int64), np.empty(0, np.int8), scale, bits=bits, exponent=exponent)
    entries = _start(weights, largest, column, bits)
    best: tuple[float, np.ndarray, np.ndarray, np.ndarray] | None = None
    for _ in range(refits + 1):
        steps = lut_narrow.row_steps(scale, exponent).astype(np.float64)[:, None]
        normalised = np.divide(weights, steps, out=np.zeros_like(weights), where=steps > 0)
        codes = _nearest(normalised, entries)
        error = float((column * (weights - entries[codes] * steps) ** 2).sum())
        if best is None or error < best[0]:
            best = error, codes, entries, scale
        scale = _refit_scale(weights, entries[codes], column, scale, exponent)
        steps = lut_narrow.row_steps(scale, exponent).astype(np.float64)[:, None]
        entries = _refit_entries(weights, codes, steps, column, entries)
    assert best is not None  # one round at the least
    _, codes, entries, scale = best
    return lut_narrow.pack(codes, entries.astype(np.int8), scale, bits=bits, exponent=exponent)


def _start(weights: np.ndarray, largest: np.ndarray, column: np.ndarray, bits: int) -> np.ndarray:
    """Entries by k-means of the weights over their row's largest: float64 whole numbers, ascending, `[2**bits]`."""
    shares = np.divide(weights, largest[:, None], out=np.zeros_like(weights), where=largest[:, None] > 0)
    mass = np.broadcast_to(column, weights.shape) * largest[:, None] ** 2
    counts, edges = np.histogram(shares, bins=_HISTOGRAM_BINS, range=(-1, 1), weights=mass)
    centres = kmeans_1d((edges[1:] + edges[:-1]) / 2, counts, 2**bits)
    entries: np.ndarray = np.clip(np.rint(127 * centres), -127, 127)
    return entries


def _nearest(values: np.ndarray, entries: np.ndarray) -> np.ndarray:
    """The code of the nearest entry; entries need no order."""
    order = np.argsort(entries, kind="stable")
    ascending = entries[order]
    codes: np.ndarray = order[np.searchsorted((ascending[1:] + ascending[:-1]) / 2, values)]
    return codes


def _refit_scale(weights: np.ndarray, values: np.ndarray, column: np.ndarray, scale: np.ndarray, exponent: int) -> np.ndarray:
    """Of the stored steps next to the least-squares one the better; a row without values keeps its own."""
    power = (column * values**2).sum(axis=1)
    product = (column * weights * values).sum(axis=1)
    wanted = np.divide(product, power, out=np.zeros_like(power), where=power > 0)
    usable = (wanted > 0) & (scale > 0)
    place = np.log2(np.where(usable, wanted, 1.0)) - exponent
    low = np.clip(np.floor(place * lut_narrow.SCALES_PER_OCTAVE), 1, 254)
    candidates = np.stack([low, low + 1]).astype(np.uint8)
    steps = lut_narrow.row_steps(candidates, exponent).astype(np.float64)
    errors = (column * (weights - values * steps[..., None]) ** 2).sum(axis=2)
    better = np.take_along_axis(candidates, errors.argmin(axis=0)[None], axis=0)[0]
    return np.where(usable, better, scale)


def _refit_entries(
    weights: np.ndarray, codes: np.ndarray, steps: np.ndarray, column: np.ndarray, entries: np.ndarray
) -> np.ndarray:
    """The least-squares entry of each code, rounded; a code that no weight has keeps its entry."""
    count = len(entries)
    flat = codes.reshape(-1)
    power = np.bincount(flat, (column * np.broadcast_to(steps, weights.shape) ** 2).reshape(-1), count)
    product = np.bincount(flat, (column * steps * weights).reshape(-1), count)
    fitted = np.divide(product, power, out=entries.copy(), where=power > 0)
    rounded: np.ndarray = np.clip(np.rint(fitted), -127, 127)
    return rounded
