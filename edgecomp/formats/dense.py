"""Packed format `dense`: a matrix in float16 or float32, for what stays as it is. Specification: `dense.md`."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from edgecomp.errors import FormatError
from edgecomp.tensor import ConvParams, Factor

FORMAT = "dense"
DTYPES = (np.float16, np.float32)


def pack(weights: np.ndarray, dtype: type[np.float16] | type[np.float32] = np.float16) -> Factor:
    """Store `weights [N, K]` in `dtype`, rounded to nearest even.

    Raises:
        FormatError: not a matrix, another dtype, or a value that is not finite in `dtype`.

    """
    if weights.ndim != 2:
        raise FormatError(f"a dense factor is a matrix [N, K], got shape {list(weights.shape)}")
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(weights, dtype)
    factor = Factor(FORMAT, (values.shape[0], values.shape[1]), {}, {"values": values})
    validate(factor)
    return factor


def conv_columns(conv: ConvParams) -> int:
    """Columns of a convolution's matrix: (kernel row, kernel column, channel), without padding."""
    return math.prod(conv.kernel_size) * (conv.in_channels // conv.groups)


def unpack(factor: Factor) -> np.ndarray:
    """The weights: float32 `[N, K]`."""
    return factor.arrays["values"].astype(np.float32)


def unpack_rows(factor: Factor, weights: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The weights in parts: see `edgecomp.formats.unpack_rows`."""
    rows = max(1, weights // factor.shape[1])
    for first in range(0, factor.shape[0], rows):
        part = factor.arrays["values"][first : first + rows].astype(np.float32)
        yield np.arange(first, first + len(part)), part


def validate(factor: Factor) -> None:
    """Check the rules of dense.md.

    Raises:
        FormatError: naming what must hold and what was found.

    """
    if set(factor.arrays) != {"values"} or factor.attributes:
        raise FormatError(
            f"a dense factor has the array `values` and no attributes, got {sorted(factor.arrays)} and {dict(factor.attributes)}"
        )
    values = factor.arrays["values"]
    if values.dtype not in DTYPES or values.shape != factor.shape or 0 in values.shape:
        raise FormatError(
            f"values of a dense factor must be float16 or float32 {list(factor.shape)} and not empty, "
            f"got {values.dtype.name} {list(values.shape)}"
        )
    if not np.isfinite(values).all():
        raise FormatError(f"values of a dense factor must be finite in {values.dtype.name}, found NaN or infinity")
