"""Packed format `lut`: codes of 1 to 8 bits into small int8 codebooks, with block and row scales.

The specification is `lut.md` beside this file; this is its reference in numpy, the oracle of every kernel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edgecomp.errors import FormatError
from edgecomp.tensor import Compute, ConvParams, Factor

FORMAT = "lut"
TILE_ROWS = 16
SPAN_COLUMNS = 32
MAX_BLOCK_SIZE = 65536
COLUMN_GROUPS = 8  # groups of 4 columns in a span


def round_up(value: int, multiple: int) -> int:
    """Smallest multiple of `multiple` that is at least `value`."""
    return -(-value // multiple) * multiple


def storage_bits(bits: int) -> int:
    """Bits that a code takes in memory: `bits`, and 8 for 7."""
    return 8 if bits == 7 else bits


def _bit_position(bits: int, i: int, b: int) -> tuple[int, int]:
    """(plane, bit in the byte) of bit `b` of the code of column group `i`; the table "Planes" of lut.md."""
    match storage_bits(bits):
        case 1:
            return 0, i
        case 2:
            return i // 4, 2 * (i % 4) + b
        case 3 if i >= 6:
            return b, 3 if i == 6 else 7
        case 3 | 4:
            return i // 2, 4 * (i % 2) + b
        case 5:
            return (4, i) if b == 4 else (i // 2, 4 * (i % 2) + b)
        case 6:
            triple, q = divmod(i, 4)
            return (3 * triple + b // 2, 6 + b % 2) if q == 3 else (3 * triple + q, b)
        case _:
            return i, b


def bit_positions(bits: int) -> np.ndarray:
    """Where each bit of a span's codes lies: int64 `[8, storage_bits, 2]`, (plane, bit of the byte) by (group i, bit b)."""
    width = storage_bits(bits)
    return np.array([[_bit_position(bits, i, b) for b in range(width)] for i in range(COLUMN_GROUPS)])


def identity_codebook() -> np.ndarray:
    """The fixed codebook of 7 and 8 bits: int8 `[1, 256]`, entry c is c in two's complement (-127 for 128)."""
    table = np.arange(256, dtype=np.uint8).view(np.int8).copy()
    table[128] = -127
    return table[None]


@dataclass(frozen=True)
class LutSizes:
    """Sizes derived from the shape of a factor: tiles, spans, planes of a span, blocks of a row."""

    tiles: int
    spans: int
    planes: int
    blocks: int


def lut_sizes(n: int, k: int, bits: int, block_size: int, tiles: int | None = None) -> LutSizes:
    """Check `n`, `k`, `bits` and `block_size` against the format's rules and derive the sizes.

    Raises:
        FormatError: a value breaks a rule of lut.md.

    """
    if n < 1 or k < 1:
        raise FormatError(f"a lut factor needs N >= 1 and K >= 1, got N={n}, K={k}")
    if not 1 <= bits <= 8:
        raise FormatError(f"bits must be 1 to 8, got {bits}")
    padded = round_up(k, SPAN_COLUMNS)
    if block_size < 1 or block_size % SPAN_COLUMNS or padded % block_size or block_size > MAX_BLOCK_SIZE:
        raise FormatError(
            f"block_size must be a multiple of {SPAN_COLUMNS} that divides the padded K and is at most {MAX_BLOCK_SIZE}; "
            f"got block_size={block_size} for K={k} (padded {padded}); block sizes that fit: {fitting_block_sizes(k)}"
        )
    return LutSizes(
        tiles=round_up(n, TILE_ROWS) // TILE_ROWS if tiles is None else tiles,
        spans=padded // SPAN_COLUMNS,
        planes=storage_bits(bits),
        blocks=padded // block_size,
    )


def fitting_block_sizes(k: int) -> list[int]:
    """Block sizes that a matrix of `k` columns can have, in ascending order."""
    padded = round_up(k, SPAN_COLUMNS)
    return [size for size in range(SPAN_COLUMNS, min(padded, MAX_BLOCK_SIZE) + 1, SPAN_COLUMNS) if padded % size == 0]


def conv_columns(conv: ConvParams) -> int:
    """Columns of a convolution's matrix: each tap's channels padded to whole spans (lut.md "Convolution")."""
    return math.prod(conv.kernel_size) * round_up(conv.in_channels // conv.groups, SPAN_COLUMNS)


def packed_bytes(n: int, k: int, bits: int, block_size: int, books: int = 1) -> int:
    """Bytes of a factor without `row_index`; the formula "Size" of lut.md."""
    sizes = lut_sizes(n, k, bits, block_size)
    entries = 256 if sizes.planes == 8 else 2**bits
    return sizes.tiles * (64 * sizes.spans * sizes.planes + 2 + TILE_ROWS * sizes.blocks + 4 * TILE_ROWS) + books * entries


def padding_codes(codebooks: np.ndarray, bits: int) -> np.ndarray:
    """Code of the entry smallest in magnitude of each codebook, the first if several: uint8 `[B]`."""
    if storage_bits(bits) == 8:
        return np.zeros(len(codebooks), np.uint8)
    codes: np.ndarray = np.abs(codebooks.astype(np.int16)).argmin(axis=1)
    return codes.astype(np.uint8)


def pack(
    codes: np.ndarray,
    codebooks: np.ndarray,
    scales: np.ndarray,
    row_scale: np.ndarray,
    *,
    bits: int,
    block_size: int,
    tile_book: np.ndarray | None = None,
    row_index: np.ndarray | None = None,
) -> Factor:
    """Pack codes, codebooks and scales into a `lut` factor.

    Args:
        codes: integers `[R, K]` below `2**bits`; for 7 and 8 bits the int8 values themselves, in [-127, 127].
        codebooks: int8 `[B, 2**bits]` in [-127, 127]; ignored for 7 and 8 bits.
        scales: int8 `[R, ceil32(K) / block_size]` in [-127, 127].
        row_scale: float32 `[R]`.
        bits: width of a code, 1 to 8.
        block_size: columns that share a scale.
        tile_book: uint16 `[T]`, the codebook of each 16 rows; all 0 when absent.
        row_index: int32 `[R]`, the matrix row of each packed row, -1 for padding; when given, R is a multiple of 16.

    Returns:
        The factor, of `R` rows or, with `row_index`, of as many rows as it names.

    Raises:
        FormatError: an argument breaks a rule of lut.md.

    """
    rows, k = codes.shape
    wide = storage_bits(bits) == 8
    if row_index is not None and rows % TILE_ROWS:
        raise FormatError(f"with row_index the packed rows must fill tiles of {TILE_ROWS}, got {rows} rows")
    n = rows if row_index is None else int((row_index >= 0).sum())
    sizes = lut_sizes(n, k, bits, block_size, tiles=round_up(rows, TILE_ROWS) // TILE_ROWS)
    low, high = (-127, 127) if wide else (0, 2**bits - 1)
    if codes.size and not low <= int(codes.min()) <= int(codes.max()) <= high:
        raise FormatError(f"codes of {bits} bits must lie in [{low}, {high}], got [{codes.min()}, {codes.max()}]")
    if scales.shape != (rows, sizes.blocks) or row_scale.shape != (rows,):
        raise FormatError(
            f"scales must be [{rows}, {sizes.blocks}] and row_scale [{rows}], got {list(scales.shape)} and {list(row_scale.shape)}"
        )
    books = identity_codebook() if wide else _exact("codebooks", codebooks, np.int8)
    tile_book = np.zeros(sizes.tiles, np.uint16) if tile_book is None else _exact("tile_book", tile_book, np.uint16)
    if tile_book.shape != (sizes.tiles,) or tile_book.max() >= len(books):
        raise FormatError(f"tile_book must name one of the {len(books)} codebooks for each of {sizes.tiles} tiles, got {tile_book}")

    padded_rows = sizes.tiles * TILE_ROWS
    filler = padding_codes(books, bits)[tile_book].repeat(TILE_ROWS)
    full = np.broadcast_to(filler[:, None], (padded_rows, sizes.spans * SPAN_COLUMNS)).copy()
    full[:rows, :k] = codes.astype(np.int8).view(np.uint8) if wide else codes
    if row_index is not None:
        full[row_index < 0] = filler[row_index < 0, None]

    arrays = {
        "codes": _pack_planes(full, bits),
        "codebooks": books,
        "tile_book": tile_book,
        "scales": _by_tile(_exact("scales", scales, np.int8), padded_rows).transpose(0, 2, 1).copy(),
        "row_scale": _by_tile(row_scale.astype(np.float32)[:, None], padded_rows)[:, :, 0].copy(),
    }
    if row_index is not None:
        arrays["row_index"] = _exact("row_index", row_index, np.int32)
        padding = row_index.reshape(-1, TILE_ROWS) < 0
        arrays["row_scale"][padding] = 0
        arrays["scales"].transpose(0, 2, 1)[padding] = 0
    factor = Factor(FORMAT, (n, k), {"bits": bits, "block_size": block_size}, arrays)
    validate(factor)
    return factor


def _exact(name: str, array: np.ndarray, dtype: type[np.integer]) -> np.ndarray:
    """The array in `dtype`, contiguous; refused where that changes a value."""
    converted = array.astype(dtype, order="C")
    if not np.array_equal(converted, array):
        raise FormatError(
            f"{name} must hold values of {np.dtype(dtype).name}, got {array.dtype.name} from {array.min()} to {array.max()}"
        )
    return converted


def _by_tile(array: np.ndarray, padded_rows: int) -> np.ndarray:
    """`[R, X]` padded with zero rows and cut into tiles: `[T, 16, X]`."""
    padded = np.zeros((padded_rows, array.shape[1]), array.dtype)
    padded[: len(array)] = array
    return padded.reshape(-1, TILE_ROWS, array.shape[1])


def _pack_planes(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes uint8 `[T*16, S*32]` to planes uint8 `[T, S, P, 16, 4]`."""
    rows, columns = codes.shape
    # [T, 16, S, i, j] -> [i, T, S, 16, j]
    groups = codes.reshape(rows // TILE_ROWS, TILE_ROWS, columns // SPAN_COLUMNS, COLUMN_GROUPS, 4).transpose(3, 0, 2, 1, 4)
    planes = np.zeros((storage_bits(bits), *groups.shape[1:]), np.uint8)
    for i, positions in enumerate(bit_positions(bits).tolist()):
        for b, (plane, position) in enumerate(positions):
            planes[plane] |= ((groups[i] >> b) & 1) << position
    return np.ascontiguousarray(planes.transpose(1, 2, 0, 3, 4))


def unpack_codes(factor: Factor) -> np.ndarray:
    """Codes of all lanes, padding included: uint8 `[T*16, S*32]` (for 7 and 8 bits the values' two's complement)."""
    packed = factor.arrays["codes"].transpose(2, 0, 1, 3, 4)
    _, tiles, spans, _, _ = packed.shape
    groups = np.zeros((COLUMN_GROUPS, tiles, spans, TILE_ROWS, 4), np.uint8)
    for i, positions in enumerate(bit_positions(factor.attributes["bits"]).tolist()):
        for b, (plane, position) in enumerate(positions):
            groups[i] |= ((packed[plane] >> position) & 1) << b
    return groups.transpose(1, 3, 2, 0, 4).reshape(tiles * TILE_ROWS, spans * SPAN_COLUMNS)


def lane_of_row(factor: Factor) -> np.ndarray:
    """The packed lane (tile * 16 + lane) of each matrix row: int64 `[N]`."""
    row_index = factor.arrays.get("row_index")
    if row_index is None:
        return np.arange(factor.shape[0])
    lanes = np.empty(factor.shape[0], np.int64)
    used = np.flatnonzero(row_index >= 0)
    lanes[row_index[used]] = used
    return lanes


def _unpack_levels(factor: Factor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codebook values int8 `[N, K]`, block scales int8 `[N, blocks]`, row scales float32 `[N]`, in matrix order."""
    arrays, lanes = factor.arrays, lane_of_row(factor)
    codes = unpack_codes(factor)[lanes, : factor.shape[1]]
    books = arrays["tile_book"][lanes // TILE_ROWS].astype(np.intp)
    values = arrays["codebooks"][books[:, None], codes]
    scales = arrays["scales"].transpose(0, 2, 1).reshape(-1, arrays["scales"].shape[1])[lanes]
    return values, scales, arrays["row_scale"].reshape(-1)[lanes]


def unpack(factor: Factor) -> np.ndarray:
    """The weights: float32 `[N, K]`."""
    values, scales, row_scale = _unpack_levels(factor)
    steps = scales.astype(np.float32) * row_scale[:, None]
    weights: np.ndarray = values * steps.repeat(factor.attributes["block_size"], axis=1)[:, : factor.shape[1]]
    return weights


def unpack_rows(factor: Factor, weights: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The weights in parts of whole tiles: see `edgecomp.formats.unpack_rows`."""
    arrays, (n, k) = factor.arrays, factor.shape
    row_index = arrays.get("row_index", np.arange(len(arrays["tile_book"]) * TILE_ROWS))
    step = max(1, weights // (TILE_ROWS * k))
    for first in range(0, len(arrays["tile_book"]), step):
        part = {name: array if name == "codebooks" else array[first : first + step] for name, array in arrays.items()}
        part.pop("row_index", None)
        rows = row_index[first * TILE_ROWS : (first + step) * TILE_ROWS]
        used = (rows >= 0) & (rows < n)
        yield rows[used].astype(np.int64), unpack(Factor(FORMAT, (len(rows), k), factor.attributes, part))[used]


def quantize_activations(x: np.ndarray, block_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric int8 quantisation of each row of `x` per block, by the rule "Compute" of lut.md.

    Args:
        x: float32 `[M, K]`; columns up to a multiple of `block_size` count as zeros.

    Returns:
        `q` int8 `[M, blocks, block_size]` and `step` float32 `[M, blocks]`.

    """
    m, k = x.shape
    padded = np.zeros((m, round_up(k, block_size)), np.float32)
    padded[:, :k] = x
    blocks = padded.reshape(m, padded.shape[1] // block_size, block_size)
    absmax = np.abs(blocks).max(axis=2)
    usable = np.isfinite(absmax) & (absmax >= np.float32(1e-30))
    inverse = np.divide(np.float32(127), absmax, where=usable, out=np.zeros_like(absmax))
    finite = np.where(usable[:, :, None], blocks, np.float32(0))
    q = np.clip(np.rint(finite * inverse[:, :, None]), -127, 127).astype(np.int8)
    step = np.where(np.isfinite(absmax), np.where(usable, absmax / np.float32(127), np.float32(0)), np.float32(np.nan))
    return q, step.astype(np.float32)


def matmul(
    x: np.ndarray, factor: Factor, *, compute: Compute, bias: np.ndarray | None = None, addend: np.ndarray | None = None
) -> np.ndarray:
    """Reference of `lut_matmul`: float32 `x [M, K]` to `y [M, N] = x Wᵀ + bias + addend`, with exact sums in `int8` compute."""
    y: np.ndarray
    if compute == "float":
        y = x @ unpack(factor).T
    else:
        values, scales, row_scale = _unpack_levels(factor)
        n, block_size = factor.shape[0], factor.attributes["block_size"]
        q, step = quantize_activations(x, block_size)
        padded = np.zeros((n, q.shape[1] * block_size), np.int8)
        padded[:, : values.shape[1]] = values
        weights = padded.reshape(n, -1, block_size)
        y = np.zeros((len(x), n), np.float32)
        for block in range(q.shape[1]):
            sums = q[:, block].astype(np.int32) @ weights[:, block].astype(np.int32).T
            y += sums.astype(np.float32) * (scales[:, block].astype(np.float32) * step[:, block, None])
        y *= row_scale
    for added in (bias, addend):
        y = y if added is None else y + added
    return y


def validate(factor: Factor) -> None:
    """Check every rule of lut.md's "Bad input".

    Raises:
        FormatError: naming the array, what must hold and what was found.

    """
    n, k = factor.shape
    arrays = factor.arrays
    if set(factor.attributes) != {"bits", "block_size"} or not all(isinstance(v, int) for v in factor.attributes.values()):
        raise FormatError(f"a lut factor has the attributes bits and block_size, integers; got {dict(factor.attributes)}")
    bits, block_size = factor.attributes["bits"], factor.attributes["block_size"]
    required = ("codes", "codebooks", "tile_book", "scales", "row_scale")
    if set(arrays) - {"row_index"} != set(required):
        raise FormatError(f"a lut factor has the arrays {', '.join(required)} and at most row_index, got {sorted(arrays)}")
    codes = arrays["codes"]
    if codes.ndim != 5 or codes.shape[0] < 1:
        raise FormatError(f"codes must be [T, S, P, 16, 4] with T >= 1, got {list(codes.shape)}")
    sizes = lut_sizes(n, k, bits, block_size, tiles=codes.shape[0] if "row_index" in arrays else None)
    entries = 256 if sizes.planes == 8 else 2**bits
    books = arrays["codebooks"].shape[0] if arrays["codebooks"].ndim == 2 else -1
    expected = {
        "codes": (np.uint8, (sizes.tiles, sizes.spans, sizes.planes, TILE_ROWS, 4)),
        "codebooks": (np.int8, (max(books, 1), entries)),
        "tile_book": (np.uint16, (sizes.tiles,)),
        "scales": (np.int8, (sizes.tiles, sizes.blocks, TILE_ROWS)),
        "row_scale": (np.float32, (sizes.tiles, TILE_ROWS)),
        "row_index": (np.int32, (sizes.tiles * TILE_ROWS,)),
    }
    for name, array in arrays.items():
        dtype, shape = expected[name]
        if array.dtype != dtype or array.shape != shape:
            raise FormatError(
                f"{name} of a lut factor with N={n}, K={k}, bits={bits}, block_size={block_size} must be "
                f"{np.dtype(dtype).name} {list(shape)}, got {array.dtype.name} {list(array.shape)}"
            )
    _validate_values(factor, sizes)


def _validate_values(factor: Factor, sizes: LutSizes) -> None:
    arrays, n = factor.arrays, factor.shape[0]
    for name in ("codebooks", "scales"):
        if arrays[name].min() < -127:
            raise FormatError(f"{name} must lie in [-127, 127], found -128")
    if sizes.planes == 8 and not np.array_equal(arrays["codebooks"], identity_codebook()):
        raise FormatError(f"codebooks of {factor.attributes['bits']} bits must be the fixed table of lut.md")
    if arrays["tile_book"].max() >= len(arrays["codebooks"]):
        raise FormatError(f"tile_book must be below {len(arrays['codebooks'])}, found {arrays['tile_book'].max()}")
    if not np.isfinite(arrays["row_scale"]).all():
        raise FormatError("row_scale must be finite, found NaN or infinity")
    if "row_index" in arrays:
        row_index = arrays["row_index"]
        rows = np.sort(row_index[row_index != -1])
        if len(rows) != n or not np.array_equal(rows, np.arange(n)):  # N may be too large to be counted to
            raise FormatError(f"row_index must hold every row of 0..{n - 1} exactly once, and -1 elsewhere")
