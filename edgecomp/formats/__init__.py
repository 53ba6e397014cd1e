"""Packed formats: each a module with `pack`, `unpack`, `validate`, and a specification beside it."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from edgecomp.errors import FormatError
from edgecomp.formats import dense, lut
from edgecomp.tensor import Factor


class Format(Protocol):
    """What every format module offers; `pack` differs by format."""

    def unpack(self, factor: Factor) -> np.ndarray:
        """The weights: float32 `[N, K]`."""

    def validate(self, factor: Factor) -> None:
        """Raise `FormatError` where the factor breaks the format's rules."""


FORMATS: dict[str, Format] = {
    "lut": lut,
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


__all__ = ["FORMATS", "Format", "format_of", "unpack", "validate"]
