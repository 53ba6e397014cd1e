"""Several `lut` matrices of one input as one: q, k and v, or gate and up, become one product."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgecomp.errors import FormatError
from edgecomp.formats import lut
from edgecomp.tensor import Factor


def stack(factors: Sequence[Factor]) -> Factor:
    """The matrix whose rows are those of all factors, in order.

    No code, scale or codebook changes, so that the product's parts are bit for bit the factors' own products. Where the rows of a
    factor other than the last do not fill its tiles, the result has a `row_index` (4 bytes a row).

    Raises:
        FormatError: the factors are not `lut`, or differ in K, bits or block size, there is none, or they have more than 65536
            codebooks.

    """
    others = sorted({factor.format for factor in factors} - {lut.FORMAT})
    if others:
        raise FormatError(f"matrices to stack must be of the format {lut.FORMAT}, got {', '.join(others)}")
    kinds = {(factor.format, factor.shape[1], factor.attributes["bits"], factor.attributes["block_size"]) for factor in factors}
    if len(kinds) != 1:
        raise FormatError(f"matrices to stack must agree in format, K, bits and block size, got {sorted(kinds)}")
    ((_, k, bits, block_size),) = kinds
    arrays = {name: np.concatenate([factor.arrays[name] for factor in factors]) for name in ("codes", "scales", "row_scale")}
    if lut.storage_bits(bits) == 8:
        arrays["codebooks"] = lut.identity_codebook()
        arrays["tile_book"] = np.zeros(len(arrays["codes"]), np.uint16)
    else:
        arrays["codebooks"] = np.concatenate([factor.arrays["codebooks"] for factor in factors])
        if len(arrays["codebooks"]) > 1 << 16:
            raise FormatError(f"matrices to stack must have at most 65536 codebooks together, got {len(arrays['codebooks'])}")
        firsts = np.cumsum([0, *(len(factor.arrays["codebooks"]) for factor in factors[:-1])])
        books = [factor.arrays["tile_book"] + first for factor, first in zip(factors, firsts, strict=True)]
        arrays["tile_book"] = np.concatenate(books).astype(np.uint16)
    rows = [factor.shape[0] for factor in factors]
    if any("row_index" in factor.arrays for factor in factors) or any(n % lut.TILE_ROWS for n in rows[:-1]):
        firsts = np.cumsum([0, *rows[:-1]])
        indices = [_row_index(factor) for factor in factors]
        shifted = [np.where(index < 0, -1, index + first) for index, first in zip(indices, firsts, strict=True)]
        arrays["row_index"] = np.concatenate(shifted).astype(np.int32)
    factor = Factor(lut.FORMAT, (sum(rows), k), {"bits": bits, "block_size": block_size}, arrays)
    lut.validate(factor)
    return factor


def _row_index(factor: Factor) -> np.ndarray:
    if "row_index" in factor.arrays:
        return factor.arrays["row_index"]
    lanes = np.arange(len(factor.arrays["codes"]) * lut.TILE_ROWS)
    return np.where(lanes < factor.shape[0], lanes, -1)
