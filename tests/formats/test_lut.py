"""The `lut` format against lut.md: round trips, layout, sizes, refusals, and the reference computation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecomp.errors import FormatError
from edgecomp.formats import lut, unpack, validate
from edgecomp.tensor import Factor


@st.composite
def shapes(draw: st.DrawFn) -> tuple[int, int, int]:
    """Rows, columns, and a block size that fits."""
    k = draw(st.integers(1, 140))
    return draw(st.integers(1, 40)), k, draw(st.sampled_from(lut.fitting_block_sizes(k)))


def random_parts(rng: np.random.Generator, rows: int, k: int, bits: int, block_size: int, books: int = 1) -> dict[str, np.ndarray]:
    """Arguments of `lut.pack` that obey the rules."""
    codes = rng.integers(-127, 128, (rows, k)) if bits >= 7 else rng.integers(0, 2**bits, (rows, k))
    return {
        "codes": codes,
        "codebooks": rng.integers(-127, 128, (books, 2**bits)).astype(np.int8),
        "scales": rng.integers(-127, 128, (rows, lut.round_up(k, 32) // block_size)).astype(np.int8),
        "row_scale": rng.standard_normal(rows).astype(np.float32),
    }


def weights_by_definition(
    parts: dict[str, np.ndarray], bits: int, block_size: int, tile_book: np.ndarray | None = None
) -> np.ndarray:
    """w[n, k] = codebooks[tile_book[t], code[n, k]] * scales[t, k / block_size, r] * row_scale[t, r], weight by weight."""
    rows, k = parts["codes"].shape
    weights = np.empty((rows, k), np.float32)
    for n in range(rows):
        book = 0 if tile_book is None else tile_book[n // 16]
        for column in range(k):
            code = parts["codes"][n, column]
            value = code if bits >= 7 else parts["codebooks"][book, code]
            step = np.float32(parts["scales"][n, column // block_size]) * parts["row_scale"][n]
            weights[n, column] = np.float32(value) * step
    return weights


@settings(max_examples=60, deadline=None)
@given(shape=shapes(), bits=st.integers(1, 8), books=st.integers(1, 3), seed=st.integers(0, 2**16))
def test_unpack_gives_the_weights_that_were_packed(shape: tuple[int, int, int], bits: int, books: int, seed: int) -> None:
    n, k, block_size = shape
    rng = np.random.default_rng(seed)
    parts = random_parts(rng, n, k, bits, block_size, books)
    tile_book = None if bits >= 7 else rng.integers(0, books, -(-n // 16)).astype(np.uint16)
    factor = lut.pack(**parts, bits=bits, block_size=block_size, tile_book=tile_book)
    assert factor.shape == (n, k)
    assert np.array_equal(unpack(factor), weights_by_definition(parts, bits, block_size, tile_book))
    assert np.array_equal(lut.unpack_codes(factor)[:n, :k], parts["codes"].astype(np.uint8))


@settings(max_examples=40, deadline=None)
@given(tiles=st.integers(1, 3), k=st.integers(1, 70), bits=st.integers(1, 8), seed=st.integers(0, 2**16))
def test_row_index_puts_every_row_in_its_place(tiles: int, k: int, bits: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, n = 16 * tiles, int(rng.integers(1, 16 * tiles + 1))
    order = rng.permutation(rows)
    row_index = np.where(order < n, order, -1).astype(np.int32)
    parts = random_parts(rng, rows, k, bits, 32)
    factor = lut.pack(**parts, bits=bits, block_size=32, row_index=row_index)
    lanes = weights_by_definition(parts, bits, 32)
    expected = np.empty((n, k), np.float32)
    expected[row_index[row_index >= 0]] = lanes[row_index >= 0]
    assert factor.shape == (n, k)
    assert np.array_equal(unpack(factor), expected)


# Rows of the table "Planes" of lut.md, restated: for each group i the byte's plane and the bits of it that hold the code.
PLANES: dict[int, list[list[tuple[int, int]]]] = {
    1: [[(0, i)] for i in range(8)],
    2: [[(plane, low), (plane, low + 1)] for plane in (0, 1) for low in (0, 2, 4, 6)],
    3: [[(plane, low + b) for b in range(3)] for plane in (0, 1, 2) for low in (0, 4)]
    + [[(0, 3), (1, 3), (2, 3)], [(0, 7), (1, 7), (2, 7)]],
    4: [[(plane, low + b) for b in range(4)] for plane in range(4) for low in (0, 4)],
    5: [[*((i // 2, (0, 4)[i % 2] + b) for b in range(4)), (4, i)] for i in range(8)],
    6: [[(plane, b) for b in range(6)] for plane in (0, 1, 2)]
    + [[(0, 6), (0, 7), (1, 6), (1, 7), (2, 6), (2, 7)]]
    + [[(plane, b) for b in range(6)] for plane in (3, 4, 5)]
    + [[(3, 6), (3, 7), (4, 6), (4, 7), (5, 6), (5, 7)]],
    7: [[(i, b) for b in range(8)] for i in range(8)],
    8: [[(i, b) for b in range(8)] for i in range(8)],
}


@pytest.mark.parametrize("bits", PLANES)
def test_bits_lie_where_the_specification_says(bits: int) -> None:
    assert [[tuple(place) for place in group] for group in lut.bit_positions(bits).tolist()] == PLANES[bits]


@pytest.mark.parametrize("bits", PLANES)
def test_every_bit_of_every_plane_is_used_once(bits: int) -> None:
    used = Counter(map(tuple, lut.bit_positions(bits).reshape(-1, 2).tolist()))
    planes = 8 if bits == 7 else bits
    assert used == Counter((plane, bit) for plane in range(planes) for bit in range(8))


def worked_example() -> Factor:
    """The example at the end of lut.md."""
    codebook = (np.arange(16) - 8).astype(np.int8)[None]
    codes, scales = np.array([[1, 2, 3, 4, 5]]), np.ones((1, 1), np.int8)
    return lut.pack(codes, codebook, scales, np.ones(1, np.float32), bits=4, block_size=32)


def test_worked_example_has_the_bytes_of_the_specification() -> None:
    codes = worked_example().arrays["codes"].tobytes()
    assert codes == bytes.fromhex("51828384") + b"\x88" * 252


def test_padding_holds_the_entry_nearest_zero_and_scale_zero() -> None:
    rng = np.random.default_rng(0)
    codebook = np.array([[-9, -2, 2, 60]], np.int8)
    parts = random_parts(rng, 17, 33, 2, 32) | {"codebooks": codebook}
    factor = lut.pack(**parts, bits=2, block_size=32)
    codes = lut.unpack_codes(factor)
    assert (codes[17:] == 1).all()
    assert (codes[:, 33:] == 1).all()
    assert not factor.arrays["row_scale"].reshape(-1)[17:].any()
    assert not factor.arrays["scales"].transpose(0, 2, 1).reshape(32, -1)[17:].any()


@pytest.mark.parametrize("bits", [7, 8])
def test_wide_codes_are_the_values_themselves(bits: int) -> None:
    values = np.arange(-127, 128).reshape(15, 17)
    factor = lut.pack(values, np.empty((0, 0)), np.ones((15, 1), np.int8), np.ones(15, np.float32), bits=bits, block_size=32)
    assert np.array_equal(unpack(factor), values)
    assert np.array_equal(lut.unpack_codes(factor)[:15, :17].view(np.int8), values)
    table = factor.arrays["codebooks"]
    assert table.shape == (1, 256)
    assert [table[0, code] for code in (0, 1, 127, 128, 129, 255)] == [0, 1, 127, -127, -127, -1]


@settings(max_examples=40, deadline=None)
@given(shape=shapes(), bits=st.integers(1, 8), books=st.integers(1, 3))
def test_size_formula_counts_the_arrays(shape: tuple[int, int, int], bits: int, books: int) -> None:
    n, k, block_size = shape
    books = 1 if bits >= 7 else books
    parts = random_parts(np.random.default_rng(0), n, k, bits, block_size, books)
    assert lut.pack(**parts, bits=bits, block_size=block_size).packed_bytes == lut.packed_bytes(n, k, bits, block_size, books)


def test_size_example_of_the_specification() -> None:
    assert lut.packed_bytes(1536, 384, 4, 32) == 319696


def altered(**arrays: np.ndarray | None) -> Factor:
    """A good factor of N=20, K=40, 3 bits, two books, with row_index; some arrays replaced, or removed by None."""
    rng = np.random.default_rng(0)
    row_index = np.r_[np.arange(20), np.full(12, -1)].astype(np.int32)
    parts = random_parts(rng, 32, 40, 3, 32, books=2)
    factor = lut.pack(**parts, bits=3, block_size=32, tile_book=np.array([0, 1]), row_index=row_index)
    merged = {**factor.arrays, **arrays}
    return replace(factor, arrays={name: array for name, array in merged.items() if array is not None})


def with_value(name: str, value: float) -> Callable[[], Factor]:
    """A good factor whose array `name` starts with `value`."""

    def make() -> Factor:
        array = altered().arrays[name].copy()
        array.reshape(-1)[0] = value
        return altered(**{name: array})

    return make


BAD_FACTORS: dict[str, tuple[Callable[[], Factor], str]] = {
    "codes of another dtype": (lambda: altered(codes=altered().arrays["codes"].view(np.int8)), "codes.*uint8.*int8"),
    "codes cut": (lambda: altered(codes=altered().arrays["codes"][:, :1]), "codes.*\\[2, 2, 3, 16, 4\\].*\\[2, 1, 3, 16, 4\\]"),
    "codes without tiles": (lambda: altered(codes=np.empty((0, 2, 3, 16, 4), np.uint8)), "codes"),
    "codes flat": (lambda: altered(codes=np.empty(10, np.uint8)), "codes"),
    "codebooks too short": (lambda: altered(codebooks=np.zeros((2, 7), np.int8)), "codebooks"),
    "no codebook": (lambda: altered(codebooks=np.zeros((0, 8), np.int8)), "codebooks"),
    "codebooks of -128": (with_value("codebooks", -128), "codebooks.*-128"),
    "scales of -128": (with_value("scales", -128), "scales.*-128"),
    "scales cut": (lambda: altered(scales=np.zeros((2, 1, 16), np.int8)), "scales"),
    "a book that is not there": (with_value("tile_book", 2), "tile_book.*below 2.*found 2"),
    "tile_book too short": (lambda: altered(tile_book=np.zeros(1, np.uint16)), "tile_book"),
    "row_scale NaN": (with_value("row_scale", np.nan), "row_scale.*finite"),
    "row_scale infinite": (with_value("row_scale", np.inf), "row_scale.*finite"),
    "row_scale in float64": (lambda: altered(row_scale=np.ones((2, 16))), "row_scale.*float32.*float64"),
    "a row twice": (with_value("row_index", 1), "row_index"),
    "a row below -1": (with_value("row_index", -2), "row_index"),
    "a row beyond N": (with_value("row_index", 20), "row_index"),
    "row_index in int64": (lambda: altered(row_index=np.arange(32)), "row_index.*int32"),
    "no scales": (lambda: altered(scales=None), "scales"),
    "a surplus array": (lambda: altered(extra=np.zeros(1)), "extra"),
    "bits 0": (lambda: replace(altered(), attributes={"bits": 0, "block_size": 32}), "bits must be 1 to 8, got 0"),
    "bits 9": (lambda: replace(altered(), attributes={"bits": 9, "block_size": 32}), "bits must be 1 to 8, got 9"),
    "bits no integer": (lambda: replace(altered(), attributes={"bits": 3.0, "block_size": 32}), "bits"),
    "no bits": (lambda: replace(altered(), attributes={"block_size": 32}), "bits"),
    "a surplus attribute": (lambda: replace(altered(), attributes={"bits": 3, "block_size": 32, "more": 1}), "more"),
    "block_size 33": (lambda: replace(altered(), attributes={"bits": 3, "block_size": 33}), "block_size.*fit: \\[32, 64\\]"),
    "block_size 0": (lambda: replace(altered(), attributes={"bits": 3, "block_size": 0}), "block_size"),
    "N 0": (lambda: replace(altered(), shape=(0, 40)), "N >= 1"),
    "K 0": (lambda: replace(altered(), shape=(20, 0)), "K >= 1"),
    "N too large": (lambda: replace(altered(), shape=(33, 40)), "row_index"),
    "N far too large": (lambda: replace(altered(), shape=(2**57, 40)), "row_index"),
}


@pytest.mark.parametrize("what", BAD_FACTORS)
def test_bad_factors_are_refused_by_the_name_of_what_is_wrong(what: str) -> None:
    make, message = BAD_FACTORS[what]
    with pytest.raises(FormatError, match=message):
        validate(make())


def test_tiles_must_be_those_of_the_rows_without_row_index() -> None:
    with pytest.raises(FormatError, match="codes"):
        validate(replace(worked_example(), shape=(17, 5)))


def test_wide_codes_keep_their_fixed_table() -> None:
    factor = lut.pack(
        np.zeros((1, 1), np.int8), np.empty((0, 0)), np.ones((1, 1), np.int8), np.ones(1, np.float32), bits=8, block_size=32
    )
    table = factor.arrays["codebooks"].copy()
    table[0, 5] = 6
    with pytest.raises(FormatError, match=r"codebooks.*fixed table"):
        validate(replace(factor, arrays={**factor.arrays, "codebooks": table}))


def test_blocks_are_at_most_65536_columns() -> None:
    assert lut.lut_sizes(1, 131072, 4, 65536).blocks == 2
    with pytest.raises(FormatError, match="block_size"):
        lut.lut_sizes(1, 131072, 4, 131072)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codes": np.full((20, 40), 8)}, r"codes of 3 bits must lie in \[0, 7\], got \[8, 8\]"),
        ({"codes": np.full((20, 40), -1)}, "codes"),
        ({"codebooks": np.full((1, 8), 200)}, "codebooks"),
        ({"codebooks": np.full((1, 8), 0.5)}, "codebooks"),
        ({"scales": np.full((20, 2), 300)}, "scales"),
        ({"scales": np.ones((20, 1), np.int8)}, "scales"),
        ({"row_scale": np.ones(19, np.float32)}, "row_scale"),
        ({"tile_book": np.array([0, 1])}, "tile_book"),
        ({"row_index": np.arange(20)}, "row_index"),
    ],
)
def test_pack_refuses_what_it_cannot_store(change: dict[str, np.ndarray], message: str) -> None:
    parts = random_parts(np.random.default_rng(0), 20, 40, 3, 32)
    with pytest.raises(FormatError, match=message):
        lut.pack(**{**parts, **change}, bits=3, block_size=32)


def slow_int8_matmul(x: np.ndarray, weights_q: np.ndarray, scales: np.ndarray, row_scale: np.ndarray, block: int) -> np.ndarray:
    """The text of "Compute" in lut.md, one number at a time."""
    f = np.float32
    y = np.empty((len(x), len(weights_q)), f)
    for m, row in enumerate(x):
        quantised = []
        for start in range(0, x.shape[1], block):
            values = row[start : start + block]
            absmax = f(max(abs(v) for v in values)) if np.isfinite(values).all() else f(np.inf)
            if not np.isfinite(absmax):
                quantised.append(([0] * len(values), f(np.nan)))
            elif absmax < f(1e-30):
                quantised.append(([0] * len(values), f(0)))
            else:
                inverse = f(127) / absmax
                quantised.append(([max(-127, min(127, round(float(v * inverse)))) for v in values], absmax / f(127)))
        for n in range(len(weights_q)):
            total = f(0)
            for b, (q, step) in enumerate(quantised):
                products = zip(q, weights_q[n, b * block : (b + 1) * block].tolist(), strict=False)
                total += f(sum(a * w for a, w in products)) * (f(scales[n, b]) * step)
            y[m, n] = total * row_scale[n]
    return y


@pytest.mark.parametrize("bits", [1, 3, 4, 8])
@pytest.mark.parametrize(("k", "block_size"), [(40, 32), (96, 96), (64, 32), (5, 32)])
def test_int8_matmul_is_the_one_of_the_specification(bits: int, k: int, block_size: int) -> None:
    rng = np.random.default_rng(bits)
    parts = random_parts(rng, 18, k, bits, block_size)
    factor = lut.pack(**parts, bits=bits, block_size=block_size)
    x = rng.standard_normal((3, k)).astype(np.float32)
    values = parts["codes"] if bits >= 7 else parts["codebooks"][0, parts["codes"]]
    expected = slow_int8_matmul(x, values, parts["scales"], parts["row_scale"], block_size)
    np.testing.assert_allclose(lut.matmul(x, factor, compute="int8"), expected, rtol=1e-6, atol=1e-4)
    bias = rng.standard_normal(18).astype(np.float32)
    np.testing.assert_allclose(lut.matmul(x, factor, compute="int8", bias=bias), expected + bias, rtol=1e-6, atol=1e-4)


def test_float_matmul_is_the_product_with_the_unpacked_weights() -> None:
    rng = np.random.default_rng(0)
    parts = random_parts(rng, 18, 40, 4, 32)
    factor = lut.pack(**parts, bits=4, block_size=32)
    x = rng.standard_normal((3, 40)).astype(np.float32)
    expected = x.astype(np.float64) @ weights_by_definition(parts, 4, 32).astype(np.float64).T
    np.testing.assert_allclose(lut.matmul(x, factor, compute="float"), expected, rtol=1e-5, atol=1e-2)


def test_halves_round_to_even() -> None:
    x = np.array([[127, 0.5, 1.5, 2.5, -0.5, -1.5]], np.float32)
    q, step = lut.quantize_activations(x, 32)
    assert q[0, 0, :6].tolist() == [127, 0, 2, 2, 0, -2]
    assert step[0, 0] == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_activations_that_are_not_finite_show_in_the_whole_row(value: float) -> None:
    x = np.ones((2, 5), np.float32)
    x[0, 3] = value
    y = lut.matmul(x, worked_example(), compute="int8")
    assert np.isnan(y[0]).all()
    assert np.isfinite(y[1]).all()


@pytest.mark.parametrize("value", [0.0, 9e-31, -1e-45])
def test_activations_below_the_threshold_count_as_zero(value: float) -> None:
    q, step = lut.quantize_activations(np.full((1, 32), value, np.float32), 32)
    assert not q.any()
    assert step.tolist() == [[0.0]]


def test_the_largest_activations_do_not_overflow() -> None:
    largest = np.finfo(np.float32).max
    q, step = lut.quantize_activations(np.array([[largest, -largest, 1.0]], np.float32), 32)
    assert q[0, 0, :3].tolist() == [127, -127, 0]
    assert np.isfinite(step).all()
