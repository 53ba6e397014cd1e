"""The `lut_narrow` format against lut_narrow.md: round trips, layout, sizes, refusals, the choice of a layer's format."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecomp.errors import FormatError
from edgecomp.fitting.narrow_fit import fit_narrow
from edgecomp.formats import conv_format, lut, lut_narrow, unpack, validate
from edgecomp.references.lut_narrow import decode_narrow
from edgecomp.tensor import ConvParams, Factor


def random_factor(n: int, k: int, bits: int, seed: int = 0, exponent: int = -18) -> Factor:
    rng = np.random.default_rng([seed, n, k, bits])
    codes = rng.integers(-127, 128, (n, k)) if bits >= 7 else rng.integers(0, 2**bits, (n, k))
    entries = rng.integers(-127, 128, 2**bits).astype(np.int8)
    return lut_narrow.pack(codes, entries, rng.integers(0, 256, n).astype(np.uint8), bits=bits, exponent=exponent)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 60), st.integers(1, 8), st.integers(0, 1000))
def test_every_weight_is_entry_times_step(n: int, k: int, bits: int, seed: int) -> None:
    factor = random_factor(n, k, bits, seed)
    assert factor.packed_bytes == lut_narrow.packed_bytes(n, k, bits)
    width = lut.storage_bits(bits)
    stream = int.from_bytes(factor.arrays["codes"].tobytes(), "little")
    codes = np.array([stream >> (i * width) & (2**width - 1) for i in range(n * k)]).reshape(n, k)
    values = codes.astype(np.uint8).view(np.int8) if width == 8 else factor.arrays["codebook"][codes]
    scale = factor.arrays["row_scale"].astype(np.float64)
    steps = np.where(scale == 0, 0, 2.0 ** (factor.attributes["exponent"] + scale / 16))
    np.testing.assert_allclose(unpack(factor), values * steps[:, None], rtol=2e-7)
    validate(factor)


@pytest.mark.parametrize("bits", range(1, 9))
def test_torch_decodes_the_same_to_the_last_bit(bits: int) -> None:
    for exponent in (-120, -14, 100):
        factor = random_factor(19, 9, bits, exponent=exponent)
        arrays = [
            torch.from_numpy(factor.arrays[name]) if name in factor.arrays else None for name in ("codes", "codebook", "row_scale")
        ]
        assert np.array_equal(decode_narrow(*arrays, shape=factor.shape, bits=bits, exponent=exponent).numpy(), unpack(factor))


def test_the_worked_example() -> None:
    entries = np.arange(8, dtype=np.int8)
    factor = lut_narrow.pack(np.array([[1, 2, 3, 4, 5]]), entries, np.array([16], np.uint8), bits=3, exponent=-1)
    assert factor.arrays["codes"].tobytes().hex() == "d158"
    assert unpack(factor).tolist() == [[1, 2, 3, 4, 5]]


def test_sizes_of_the_specification() -> None:
    assert (lut_narrow.packed_bytes(48, 9, 4), lut_narrow.packed_bytes(48, 9, 8)) == (280, 480)
    assert lut.packed_bytes(48, 9 * 32, 4, 288) < lut.packed_bytes(48, 9 * 32, 4, 32)


def test_steps_are_rounded_up_and_zero_stays() -> None:
    steps = np.array([0.0, 1e-3, 3.7e-5, 2.5e-2, 1e-9])
    scale, exponent = lut_narrow.quantize_steps(steps)
    stored = lut_narrow.row_steps(scale, exponent)
    assert stored[0] == 0
    assert (stored[1:] >= steps[1:] * (1 - 1e-6)).all() and (stored[1:4] <= steps[1:4] * 1.0443).all()
    assert scale[4] == 1  # too small beside the largest: the smallest step there is
    for extreme in (np.zeros(3), np.array([1e-37]), np.array([1e33])):
        lut_narrow.quantize_steps(extreme)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attributes": {"bits": 9, "exponent": 0}}, "bits must be 1 to 8"),
        ({"attributes": {"bits": 4, "exponent": 101}}, "exponent must be -120 to 100"),
        ({"attributes": {"bits": 4}}, "attributes bits and exponent"),
        ({"shape": (20, 9)}, "codes of a lut_narrow factor with N=20"),
        ({"attributes": {"bits": 8, "exponent": 0}}, "has the arrays"),
    ],
)
def test_bad_factors_are_refused(change: dict, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        validate(replace(random_factor(19, 9, 4), **change))


def test_bad_values_are_refused() -> None:
    factor = random_factor(3, 3, 4)
    lowest = {**factor.arrays, "codebook": np.full(16, -128, np.int8)}
    with pytest.raises(FormatError, match=r"codebook must lie in \[-127, 127\]"):
        validate(replace(factor, arrays=lowest))
    with pytest.raises(FormatError, match=r"codes of 4 bits must lie in \[0, 15\]"):
        lut_narrow.pack(np.array([[16]]), np.zeros(16, np.int8), np.ones(1, np.uint8), bits=4, exponent=0)


def test_the_format_of_a_convolution() -> None:
    def chosen(n: int, conv: ConvParams, bits: int = 4, narrow_bits: int = 8) -> str:
        return conv_format(n, conv, bits, 32, narrow_bits)[0]

    assert chosen(48, ConvParams(48, (3, 3), groups=48)) == "lut_narrow"  # depthwise
    assert chosen(96, ConvParams(48, (5, 5), groups=48), 8) == "lut_narrow"
    assert chosen(16, ConvParams(3, (3, 3))) == "lut_narrow"  # a first convolution
    assert chosen(64, ConvParams(1, (7, 7))) == "lut_narrow"
    assert chosen(2, ConvParams(40, (1, 1))) == "lut_narrow"  # few outputs
    # Half of the columns would be padding: it depends on the widths which takes fewer bytes.
    assert [chosen(16, ConvParams(16, (3, 3)), bits) for bits in (2, 3, 4)] == ["lut", "lut", "lut_narrow"]
    assert chosen(16, ConvParams(16, (3, 3)), 2, narrow_bits=2) == "lut_narrow"
    assert chosen(64, ConvParams(64, (3, 3))) == "lut"
    assert chosen(64, ConvParams(64, (1, 1))) == "lut"
    assert chosen(64, ConvParams(64, (3, 3), groups=2)) == "lut"
    assert chosen(1, ConvParams(512, (3, 3))) == "lut"  # a row of thousands needs more than one step


@pytest.mark.parametrize(("bits", "most"), [(2, 0.45), (3, 0.25), (4, 0.14), (6, 0.045), (8, 0.01)])
def test_fit_is_near_the_weights(bits: int, most: float) -> None:
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((64, 9)) * np.exp(rng.normal(0, 2, (64, 1)))  # rows of very different sizes
    weights[5] = 0
    factor = fit_narrow(weights, rng.uniform(0.1, 1, 9), bits=bits, refits=4)
    errors = np.sqrt(((unpack(factor) - weights) ** 2).sum(axis=1) / np.maximum((weights**2).sum(axis=1), 1e-30))
    assert np.median(errors) < most
    assert not unpack(factor)[5].any()
    again = fit_narrow(weights, None, bits=bits, refits=0)
    assert np.sqrt(((unpack(factor) - weights) ** 2).sum()) < 1.3 * np.sqrt(((unpack(again) - weights) ** 2).sum())
