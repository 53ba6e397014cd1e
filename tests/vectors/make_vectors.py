"""Write the golden vectors of the packed formats: small factors, inputs and the results of the numpy oracle.

    python tests/vectors/make_vectors.py [FOLDER]

Each format is a folder with one folder per case and the list of their names, `cases.txt`. A case is .npy files and, but for
`dense`, `meta.txt` with one `key value` a line; the C++ tests read them as well. The numbers come from a generator of our own
(numpy does not promise its streams for ever), so every run writes the same bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgecomp.formats import dense, lut, lut_narrow
from edgecomp.tensor import Factor

HERE = Path(__file__).parent


@dataclass(frozen=True)
class LutCase:
    """A factor and `m` rows of x."""

    name: str
    n: int
    k: int
    bits: int
    block_size: int
    m: int = 2
    books: int = 1
    permuted: bool = False


LUT_CASES = (
    *(LutCase(f"bits{bits}", n=19, k=70, bits=bits, block_size=32) for bits in range(1, 9)),
    LutCase("one_weight", n=1, k=1, bits=4, block_size=32, m=1),
    LutCase("one_block", n=16, k=160, bits=3, block_size=160, m=5),
    LutCase("wide_blocks", n=33, k=250, bits=4, block_size=128, m=1),
    LutCase("several_books", n=50, k=64, bits=2, block_size=64, m=3, books=3),
    LutCase("permuted_rows", n=37, k=96, bits=5, block_size=32, m=9, books=2, permuted=True),
    LutCase("permuted_wide", n=20, k=33, bits=8, block_size=64, m=1, permuted=True),
)


@dataclass(frozen=True)
class NarrowCase:
    """A factor of the format `lut_narrow`."""

    name: str
    n: int
    k: int
    bits: int
    exponent: int = -14


NARROW_CASES = (
    *(NarrowCase(f"bits{bits}", n=19, k=9, bits=bits) for bits in range(1, 9)),
    NarrowCase("one_weight", n=1, k=1, bits=3),
    NarrowCase("one_byte", n=4, k=2, bits=1),
    NarrowCase("first_convolution", n=16, k=27, bits=4, exponent=-120),
    NarrowCase("large_steps", n=5, k=25, bits=5, exponent=100),
)

# Where widening and rounding to nearest even can go wrong: zeros of both signs, the smallest and largest numbers of each kind, and
# numbers halfway between two neighbours.
EDGES = {
    "float16": [0.0, -0.0, 2**-24, -(2**-14 - 2**-24), 2**-14, -65504.0, 65519.0, 1 + 2**-11, 1 + 3 * 2**-11, 2**-25, 3 * 2**-25],
    "float32": [0.0, -0.0, 2**-149, -(2**-126 - 2**-149), 2**-126, -(2 - 2**-23) * 2**127, 1 + 2**-24, 1 + 3 * 2**-24],
}


class Numbers:
    """A linear congruential generator (Knuth's MMIX), the high 32 bits of each state."""

    def __init__(self, seed: int) -> None:
        self._state = seed

    def words(self, count: int) -> np.ndarray:
        """`count` numbers of 32 bits: int64."""
        out = np.empty(count, np.int64)
        for i in range(count):
            self._state = (self._state * 6364136223846793005 + 1442695040888963407) % 2**64
            out[i] = self._state >> 32
        return out

    def integers(self, low: int, high: int, *shape: int) -> np.ndarray:
        """Integers in [low, high): int64."""
        return low + self.words(int(np.prod(shape))).reshape(shape) % (high - low)

    def floats(self, *shape: int) -> np.ndarray:
        """Multiples of 1/4096 in [-2, 2): float32."""
        values: np.ndarray = self.integers(-8192, 8192, *shape) / 4096
        return values.astype(np.float32)


def make_lut_factor(case: LutCase, numbers: Numbers) -> Factor:
    """A random factor of the case's shape."""
    tiles = -(-case.n // lut.TILE_ROWS) + (1 if case.permuted else 0)
    rows = tiles * lut.TILE_ROWS if case.permuted else case.n
    row_index = None
    if case.permuted:
        row_index = np.full(rows, -1, np.int32)
        lanes = np.argsort(numbers.words(rows), kind="stable")[: case.n]
        row_index[lanes] = np.arange(case.n)
    wide = lut.storage_bits(case.bits) == 8
    return lut.pack(
        numbers.integers(-127, 128, rows, case.k) if wide else numbers.integers(0, 2**case.bits, rows, case.k),
        numbers.integers(-127, 128, case.books, 2**case.bits).astype(np.int8),
        numbers.integers(-127, 128, rows, lut.round_up(case.k, 32) // case.block_size).astype(np.int8),
        numbers.floats(rows) / 1024,
        bits=case.bits,
        block_size=case.block_size,
        tile_book=None if wide else numbers.integers(0, case.books, tiles).astype(np.uint16),
        row_index=row_index,
    )


def write_narrow_case(case: NarrowCase, folder: Path) -> None:
    """Write one case; the first rows have the scales of the edges."""
    numbers = Numbers(seed=sum(case.name.encode()))
    wide = lut.storage_bits(case.bits) == 8
    row_scale = numbers.integers(0, 256, case.n).astype(np.uint8)
    row_scale[: min(case.n, 4)] = [255, 0, 1, 16][: min(case.n, 4)]
    factor = lut_narrow.pack(
        numbers.integers(-127, 128, case.n, case.k) if wide else numbers.integers(0, 2**case.bits, case.n, case.k),
        numbers.integers(-127, 128, 2**case.bits).astype(np.int8),
        row_scale,
        bits=case.bits,
        exponent=case.exponent,
    )
    save_arrays(folder, {**factor.arrays, "weights": lut_narrow.unpack(factor)})
    meta = {"n": case.n, "k": case.k, "bits": case.bits, "exponent": case.exponent}
    (folder / "meta.txt").write_text("".join(f"{key} {value}\n" for key, value in meta.items()))


def float_matmul(x: np.ndarray, factor: Factor, bias: np.ndarray) -> np.ndarray:
    """`x Wᵀ + bias` summed in float64: no library's order of float32 sums enters the file."""
    products = np.einsum("mk,nk->mn", x.astype(np.float64), lut.unpack(factor).astype(np.float64), optimize=False)
    y: np.ndarray = (products + bias).astype(np.float32)
    return y


def write_lut_case(case: LutCase, folder: Path) -> None:
    """Write one case."""
    numbers = Numbers(seed=sum(case.name.encode()))
    factor = make_lut_factor(case, numbers)
    x, bias = numbers.floats(case.m, case.k), numbers.floats(case.n)
    arrays = {
        **factor.arrays,
        "x": x,
        "bias": bias,
        "weights": lut.unpack(factor),
        "y_int8": lut.matmul(x, factor, compute="int8", bias=bias),
        "y_float": float_matmul(x, factor, bias),
    }
    save_arrays(folder, arrays)
    meta = {"n": case.n, "k": case.k, "bits": case.bits, "block_size": case.block_size, "m": case.m}
    (folder / "meta.txt").write_text("".join(f"{key} {value}\n" for key, value in meta.items()))


def write_dense_case(dtype: type[np.float16] | type[np.float32], folder: Path) -> None:
    """Write the values that `dense` stores in `dtype`, and the weights that they stand for; the first row holds the edges."""
    edges = EDGES[dtype.__name__]
    numbers = Numbers(seed=sum(dtype.__name__.encode()))
    factor = dense.pack(np.vstack([np.array([edges]), numbers.floats(4, len(edges))]), dtype)
    save_arrays(folder, {**factor.arrays, "weights": dense.unpack(factor)})


def save_arrays(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write one .npy file per array."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)


def write_names(folder: Path, names: Sequence[str]) -> None:
    """Write the list of a format's cases."""
    (folder / "cases.txt").write_text("".join(f"{name}\n" for name in names))


def main(folder: Path) -> None:
    """Write all cases of all formats."""
    for case in LUT_CASES:
        write_lut_case(case, folder / "lut" / case.name)
    write_names(folder / "lut", [case.name for case in LUT_CASES])
    for narrow in NARROW_CASES:
        write_narrow_case(narrow, folder / "lut_narrow" / narrow.name)
    write_names(folder / "lut_narrow", [narrow.name for narrow in NARROW_CASES])
    for dtype in dense.DTYPES:
        write_dense_case(dtype, folder / "dense" / dtype.__name__)
    write_names(folder / "dense", [dtype.__name__ for dtype in dense.DTYPES])


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
