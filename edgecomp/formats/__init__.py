"""Packed formats: each a module with `pack`, `unpack`, `validate`, and a specification beside it."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from edgecomp.errors import FormatError
from edgecomp.formats import dense, lut, lut_narrow
from edgecomp.tensor import ConvParams, Factor


class Format(Protocol):
    """What every format module offers; `pack` differs by format."""

    def unpack(self, factor: Factor) -> np.ndarray:
        """The weights: float32 `[N, K]`."""

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


def validate(factor: Factor) -> None:
    """Check a factor of any format against its specification; raises `FormatError`."""
    format_of(factor).validate(factor)


_MOST_NARROW_COLUMNS = 512  # with one step a row, longer rows would need several


def conv_format(n: int, conv: ConvParams, bits: int, block_size: int) -> tuple[str, int]:
    """The format that a convolution of `n` output channels takes, `lut` or `lut_narrow`, and the bytes of its factor there.

    `lut_narrow` where `lut` would hold over one and a half times the weights and columns are few (lut_narrow.md "Convolution").

    Raises:
        FormatError: the block size does not fit a layer that takes `lut`.

    """
    columns = lut_narrow.narrow_columns(conv)
    channels = conv.in_channels // conv.groups
    padded = columns // channels * lut.round_up(channels, lut.SPAN_COLUMNS)
    if columns <= _MOST_NARROW_COLUMNS and 2 * lut.round_up(n, lut.TILE_ROWS) * padded > 3 * n * columns:
        return lut_narrow.FORMAT, lut_narrow.packed_bytes(n, columns, bits)
    return lut.FORMAT, lut.packed_bytes(n, padded, bits, block_size)


__all__ = ["FORMATS", "Format", "conv_format", "format_of", "unpack", "validate"]
