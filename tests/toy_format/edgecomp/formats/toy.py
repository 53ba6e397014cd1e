"""Packed format `toy`, as small as one can be: plain int8 weights."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgecomp.errors import FormatError
from edgecomp.tensor import ConvParams, Factor


def pack(weights: np.ndarray) -> Factor:
    """Pack int8 `[N, K]`."""
    return Factor("toy", (weights.shape[0], weights.shape[1]), {}, {"weights": weights})


def unpack(factor: Factor) -> np.ndarray:
    """The weights: float32 `[N, K]`."""
    weights: np.ndarray = factor.arrays["weights"].astype(np.float32)
    return weights


def unpack_rows(factor: Factor, weights: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The weights at once."""
    yield np.arange(factor.shape[0]), unpack(factor)


def conv_columns(conv: ConvParams) -> int:
    """No convolution uses it."""
    raise FormatError("toy factors are for linear stages")


def validate(factor: Factor) -> None:
    """Raise `FormatError` where shape and array do not agree."""
    if factor.arrays["weights"].shape != factor.shape:
        raise FormatError(f"weights must be int8 {list(factor.shape)}, got {list(factor.arrays['weights'].shape)}")
