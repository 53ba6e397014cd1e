"""Packed format `lut_narrow`: codes without padding and a byte of scale a row, for matrices of few columns.

The specification is `lut_narrow.md` beside this file; this is its reference in numpy, the oracle of every kernel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from edgecomp.errors import FormatError
from edgecomp.formats.lut import storage_bits
from edgecomp.tensor import ConvParams, Factor

FORMAT = "lut_narrow"
EXPONENTS = (-120, 100)  # the least and the largest: every step is a normal float32
SCALES_PER_OCTAVE = 16
# 2**(i / 16), rounded once: readers multiply by powers of two, which is exact, so that all of them agree to the last bit.
MANTISSAS = np.array([2.0 ** (i / SCALES_PER_OCTAVE) for i in range(SCALES_PER_OCTAVE)]).astype(np.float32)


def row_steps(row_scale: np.ndarray, exponent: int) -> np.ndarray:
    """Step of each row, `2**(exponent + row_scale / 16)`, and 0 where `row_scale` is 0: float32, of the shape of `row_scale`."""
    scale = row_scale.astype(np.int64)
    steps = np.ldexp(MANTISSAS[scale % SCALES_PER_OCTAVE], scale // SCALES_PER_OCTAVE + exponent)
    return np.where(scale == 0, np.float32(0), steps).astype(np.float32)


def quantize_steps(steps: np.ndarray) -> tuple[np.ndarray, int]:
    """The smallest storable steps that are not below `steps`, so that no weight is cut off.

    Args:
        steps: float `[N]`, not negative, finite; 0 for a row of zeros.

    Returns:
        `row_scale` uint8 `[N]` and the exponent. Steps of less than 2**-15.9 of the largest are stored as that.

    """
    largest = float(steps.max(initial=0))
    exponent = 0 if largest == 0 else math.ceil(math.log2(largest)) - 15
    exponent = min(max(exponent, EXPONENTS[0]), EXPONENTS[1])
    relative = np.log2(np.maximum(steps, np.finfo(np.float64).tiny)) - exponent
    scale = np.clip(np.ceil(relative * SCALES_PER_OCTAVE - 1e-6), 1, 255)
    return np.where(steps == 0, 0, scale).astype(np.uint8), exponent


def packed_bytes(n: int, k: int, bits: int) -> int:
    """Bytes of a factor; the formula "Size" of lut_narrow.md."""
    width = storage_bits(bits)
    return -(-n * k * width // 8) + (0 if width == 8 else 2**bits) + n


def pack(codes: np.ndarray, codebook: np.ndarray, row_scale: np.ndarray, *, bits: int, exponent: int) -> Factor:
    """Pack codes, the codebook and the rows' scales.

    Args:
        codes: integers `[N, K]` below `2**bits`; for 7 and 8 bits the int8 values themselves, in [-127, 127].
        codebook: int8 `[2**bits]` in [-127, 127]; ignored for 7 and 8 bits.
        row_scale: uint8 `[N]`.
        bits: width of a code, 1 to 8.
        exponent: of the steps, -120 to 100.

    Raises:
        FormatError: an argument breaks a rule of lut_narrow.md.

    """
    n, k = codes.shape
    _check_sizes(n, k, bits, exponent)
    width = storage_bits(bits)
    low, high = (-127, 127) if width == 8 else (0, 2**bits - 1)
    if not low <= int(codes.min()) <= int(codes.max()) <= high:
        raise FormatError(f"codes of {bits} bits must lie in [{low}, {high}], got [{codes.min()}, {codes.max()}]")
    stored = codes.astype(np.int8).view(np.uint8) if width == 8 else codes.astype(np.uint8)
    by_bit = stored.reshape(-1, 1) >> np.arange(width, dtype=np.uint8) & 1
    arrays = {"codes": np.packbits(by_bit.reshape(-1), bitorder="little"), "row_scale": np.ascontiguousarray(row_scale)}
    if width < 8:
        arrays["codebook"] = np.ascontiguousarray(codebook)
    factor = Factor(FORMAT, (n, k), {"bits": bits, "exponent": exponent}, arrays)
    validate(factor)
    return factor


def unpack_codes(factor: Factor) -> np.ndarray:
    """Codes, uint8 `[N, K]` (for 7 and 8 bits the values' two's complement)."""
    (n, k), width = factor.shape, storage_bits(factor.attributes["bits"])
    bits = np.unpackbits(factor.arrays["codes"], count=n * k * width, bitorder="little").reshape(n, k, width)
    codes: np.ndarray = (bits << np.arange(width, dtype=np.uint8)).sum(axis=2, dtype=np.uint8)
    return codes


def unpack(factor: Factor) -> np.ndarray:
    """The weights: float32 `[N, K]`."""
    codes = unpack_codes(factor)
    values = codes.view(np.int8) if storage_bits(factor.attributes["bits"]) == 8 else factor.arrays["codebook"][codes]
    steps = row_steps(factor.arrays["row_scale"], factor.attributes["exponent"])
    weights: np.ndarray = values.astype(np.float32) * steps[:, None]
    return weights


def unpack_rows(factor: Factor, weights: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The weights at once, since they are few: see `edgecomp.formats.unpack_rows`."""
    yield np.arange(factor.shape[0]), unpack(factor)


def validate(factor: Factor) -> None:
    """Check every rule of lut_narrow.md's "Bad input".

    Raises:
        FormatError: naming the array, what must hold and what was found.

    """
    if set(factor.attributes) != {"bits", "exponent"} or not all(isinstance(v, int) for v in factor.attributes.values()):
        raise FormatError(f"a lut_narrow factor has the attributes bits and exponent, integers; got {dict(factor.attributes)}")
    (n, k), bits, exponent = factor.shape, factor.attributes["bits"], factor.attributes["exponent"]
    _check_sizes(n, k, bits, exponent)
    width = storage_bits(bits)
    expected: dict[str, tuple[type, tuple[int, ...]]] = {
        "codes": (np.uint8, (-(-n * k * width // 8),)),
        "row_scale": (np.uint8, (n,)),
    }
    if width < 8:
        expected["codebook"] = (np.int8, (2**bits,))
    if set(factor.arrays) != set(expected):
        raise FormatError(f"a lut_narrow factor of {bits} bits has the arrays {sorted(expected)}, got {sorted(factor.arrays)}")
    for name, (dtype, shape) in expected.items():
        array = factor.arrays[name]
        if array.dtype != dtype or array.shape != shape:
            raise FormatError(
                f"{name} of a lut_narrow factor with N={n}, K={k}, bits={bits} must be {np.dtype(dtype).name} {list(shape)}, "
                f"got {array.dtype.name} {list(array.shape)}"
            )
    if width < 8 and factor.arrays["codebook"].min() < -127:
        raise FormatError("codebook must lie in [-127, 127], found -128")


def _check_sizes(n: int, k: int, bits: int, exponent: int) -> None:
    if n < 1 or k < 1:
        raise FormatError(f"a lut_narrow factor needs N >= 1 and K >= 1, got N={n}, K={k}")
    if not 1 <= bits <= 8:
        raise FormatError(f"bits must be 1 to 8, got {bits}")
    if not EXPONENTS[0] <= exponent <= EXPONENTS[1]:
        raise FormatError(f"exponent must be {EXPONENTS[0]} to {EXPONENTS[1]}, got {exponent}")


def conv_columns(conv: ConvParams) -> int:
    """Columns of a convolution's matrix without padding: kernel rows * kernel columns * channels of a group."""
    return math.prod(conv.kernel_size) * (conv.in_channels // conv.groups)
