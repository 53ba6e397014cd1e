from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgecomp import formats
from edgecomp.errors import FormatError
from edgecomp.formats import dense
from edgecomp.formats.lut_stack import stack
from edgecomp.tensor import Factor

WEIGHTS = np.array([[1.0, -2.0, 0.1]], np.float32)


def test_float16_holds_the_bytes_of_the_specification() -> None:
    factor = dense.pack(WEIGHTS[:, :2])
    assert factor.arrays["values"].tobytes() == bytes.fromhex("003c00c0")
    assert factor.packed_bytes == 4


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_unpack_gives_the_rounded_weights_in_float32(dtype: type) -> None:
    weights = formats.unpack(dense.pack(WEIGHTS, dtype))
    assert weights.dtype == np.float32
    assert np.array_equal(weights, WEIGHTS.astype(dtype).astype(np.float32))


GOOD = dense.pack(WEIGHTS)
BAD_FACTORS = {
    "another dtype": (replace(GOOD, arrays={"values": WEIGHTS.astype(np.float64)}), "float16 or float32.*float64"),
    "another shape": (replace(GOOD, shape=(3, 1)), r"\[3, 1\].*\[1, 3\]"),
    "empty": (Factor("dense", (0, 3), {}, {"values": np.empty((0, 3), np.float32)}), "not empty"),
    "NaN": (replace(GOOD, arrays={"values": np.full((1, 3), np.nan, np.float16)}), "finite"),
    "infinity": (replace(GOOD, arrays={"values": np.full((1, 3), np.inf, np.float16)}), "finite"),
    "no values": (replace(GOOD, arrays={}), "values"),
    "surplus array": (replace(GOOD, arrays={**GOOD.arrays, "more": WEIGHTS}), "more"),
    "attributes": (replace(GOOD, attributes={"bits": 4}), "no attributes"),
}


@pytest.mark.parametrize("what", BAD_FACTORS)
def test_bad_factors_are_refused(what: str) -> None:
    factor, message = BAD_FACTORS[what]
    with pytest.raises(FormatError, match=message):
        formats.validate(factor)


def test_values_beyond_float16_are_refused() -> None:
    with pytest.raises(FormatError, match="finite in float16"):
        dense.pack(np.array([[70000.0]], np.float32))


def test_only_matrices_are_packed() -> None:
    with pytest.raises(FormatError, match=r"\[3\]"):
        dense.pack(WEIGHTS[0])


def test_unknown_formats_are_refused_by_name() -> None:
    with pytest.raises(FormatError, match=r"lut, lut_narrow, dense.*'sell16'"):
        formats.validate(replace(GOOD, format="sell16"))


def test_they_cannot_be_stacked() -> None:
    factor = dense.pack(np.ones((4, 32)), np.float32)
    with pytest.raises(FormatError, match="must be of the format lut, got dense"):
        stack([factor, factor])
