"""Intervals by the paired bootstrap: both sides of a comparison are resampled by the same examples.

B. Efron, "Bootstrap Methods: Another Look at the Jackknife", Annals of Statistics 7 (1979): percentile intervals. An example is
drawn whole, so that what is counted inside one (tokens of a text, pixels of an image) may depend on each other.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

RESAMPLES, CONFIDENCE, SEED = 2000, 0.95, 0
# A function that is called anew for every resample is called this often: the ends of the interval rest on 10 calls each.
CALLS = 400
_LARGEST_CHUNK = 1 << 22  # numbers held at once


def resampled_sums(rows: np.ndarray, *, resamples: int = RESAMPLES, seed: int = SEED) -> np.ndarray:
    """Sums of rows over `resamples` draws of as many examples as there are, with replacement.

    Args:
        rows: `[examples, columns]`, what each example adds to each sum.
        resamples: how many draws.
        seed: of the draws; the same rows and seed give the same sums.

    Returns:
        float64 `[resamples, columns]`.

    """
    # Equal rows are drawn together: how often each kind comes is multinomial, which is the same and much quicker where an example
    # is right or wrong and no more.
    kinds, counts = np.unique(rows.astype(np.float64), axis=0, return_counts=True)
    random = np.random.default_rng(seed)
    total = int(counts.sum())
    chunk = max(_LARGEST_CHUNK // len(kinds), 1)
    sizes = [min(chunk, resamples - start) for start in range(0, resamples, chunk)]
    return np.concatenate([random.multinomial(total, counts / total, size) @ kinds for size in sizes])


def resampled_values(
    values: Callable[[np.ndarray], np.ndarray], examples: int, *, resamples: int = CALLS, seed: int = SEED
) -> np.ndarray:
    """What a function of the drawn examples' positions gives, for functions that no sums tell: `[resamples, ...]`."""
    random = np.random.default_rng(seed)
    return np.stack([values(random.integers(examples, size=examples)) for _ in range(resamples)])


def interval(values: np.ndarray, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The middle part of resampled values `[resamples]`; draws without a value (NaN) are left out, and without any it is NaN."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return float("nan"), float("nan")
    low, high = np.quantile(finite, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
