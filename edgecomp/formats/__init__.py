"""Packed formats: each a module with `pack`, `unpack`, `validate`, and a specification beside it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from edgecomp.errors import FormatError
from edgecomp.formats import dense, lut, lut_narrow
from edgecomp.tensor import ConvParams, Factor


class Format(Protocol):
    """What every format module offers; `pack` differs by format."""

    def unpack(self, factor: Factor) -> np.ndarray:
        """The weights: float32 `[N, K]`."""

    def unpack_rows(self, factor: Factor, weights: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The same in parts of about so many weights: indices of rows int64 `[R]`, and those rows float32 `[R, K]`."""

    def conv_columns(self, conv: ConvParams) -> int:
        """K of a factor that a convolution stage of this geometry uses."""

    def validate(self, factor: Factor) -> None:
        """Raise `FormatError` where the factor breaks the format's rules."""


FORMATS: dict[str, Format] = {
    "lut": lut,
    "lut_narrow": lut_narrow,
    "dense": dense,
}


def format_of(factor: Factor) -> Format:
    """The module of the factor's format.

    Raises:
        FormatError: no such format.

    """
    if factor.format not in FORMATS:
        raise FormatError(f"packed format must be one of {', '.join(FORMATS)}, got {factor.format!r}; a newer edgecomp may read it")
    return FORMATS[factor.format]


def unpack(factor: Factor) -> np.ndarray:
    """The weights of a factor of any format: float32 `[N, K]`."""
    return format_of(factor).unpack(factor)


def unpack_rows(factor: Factor, weights: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The weights of a factor of any format in parts, each some rows, for what need not hold all of them at once.

    Args:
        factor: the factor.
        weights: of a part, about; at least a tile of rows.

    Yields:
        Indices of rows int64 `[R]`, and these rows float32 `[R, K]`; every row once.

    """
    return format_of(factor).unpack_rows(factor, weights)


def validate(factor: Factor) -> None:
    """Check a factor of any format against its specification; raises `FormatError`."""
    format_of(factor).validate(factor)


_MOST_NARROW_COLUMNS = 512  # with one step a row, longer rows would need several


def conv_format(n: int, conv: ConvParams, bits: int, block_size: int, narrow_bits: int) -> tuple[str, int]:
    """The format that a convolution of `n` output channels takes, `lut` or `lut_narrow`, and the bytes of its factor there.

    `lut_narrow` where `lut` would hold over one and a half times the weights, columns are few, and `narrow_bits` a weight take no
    more bytes than `bits` do in `lut` (lut_narrow.md "Convolution").

    Raises:
        FormatError: the block size does not fit a layer that takes `lut`.

    """
    columns, padded = lut_narrow.conv_columns(conv), lut.conv_columns(conv)
    fits = columns <= _MOST_NARROW_COLUMNS and 2 * lut.round_up(n, lut.TILE_ROWS) * padded > 3 * n * columns
    narrow = lut_narrow.packed_bytes(n, columns, narrow_bits)
    # Of the smallest block, which divides any layer: the format must not depend on whether the given one does.
    if fits and narrow <= lut.packed_bytes(n, padded, bits, lut.SPAN_COLUMNS):
        return lut_narrow.FORMAT, narrow
    return lut.FORMAT, lut.packed_bytes(n, padded, bits, block_size)


__all__ = ["FORMATS", "Format", "conv_format", "format_of", "unpack", "unpack_rows", "validate"]
