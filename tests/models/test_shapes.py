"""What samples tell about inputs: which sizes are fixed, and what the others are called."""

from __future__ import annotations

import numpy as np
import pytest

from edgecomp.errors import CalibrationError, ModelError
from edgecomp.models.shapes import check_alike, resized, sizes_of, specs_of
from edgecomp.tensor import TensorSpec


def zeros(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.zeros(shape, dtype)


def test_axes_that_vary_are_dynamic_and_the_others_fixed() -> None:
    samples = [{"tokens": zeros(1, n, dtype="int64")} for n in (9, 14, 5, 20)]
    specs, guessed = specs_of(samples)
    assert specs == (TensorSpec("tokens", "int64", ("batch", "tokens_1")),)
    assert guessed == {"batch"}  # which no sample varies
    assert sizes_of(samples, specs) == {"batch": 1, "tokens_1": 20}
    (same,), _ = specs_of([samples[0]])
    assert same.dims == ("batch", 9)


def test_axes_that_always_agree_share_a_name() -> None:
    samples = [
        {"ids": zeros(b, n), "mask": zeros(b, n), "keys": zeros(b, 2 * n, 4), "image": zeros(1, 3)} for b, n in ((2, 5), (3, 7))
    ]
    specs, guessed = specs_of(samples)
    assert [spec.dims for spec in specs] == [("batch", "ids_1"), ("batch", "ids_1"), ("batch", "keys_1", 4), (1, 3)]
    assert not guessed


def test_scalars_and_labels_tell_no_sizes() -> None:
    samples = [{"t": np.float32(1), "x": zeros(b, 4), "labels": zeros(b)} for b in (2, 3)]
    specs, _ = specs_of(samples)
    assert specs == (TensorSpec("t", "float32", ()), TensorSpec("x", "float32", ("batch", 4)))
    check_alike(samples, specs)
    assert specs_of([]) == ((), frozenset())


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"y": zeros(1, 4)}, r"\['x'\] as the first one; sample 1 holds \['y'\]"),
        ({"x": zeros(4)}, "x is float32 of 2 axes in the first one, and float32 of 1 axes in sample 1"),
        ({"x": zeros(1, 4, dtype="int64")}, "int64 of 2 axes in sample 1"),
    ],
)
def test_samples_of_other_kinds_are_refused(second: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        specs_of([{"x": zeros(1, 4)}, second])


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ({"x": zeros(1, 5)}, r"x has the sizes \[batch, 4\]; sample 0 has \[1, 5\].*--dim x="),
        ({"x": zeros(4)}, r"sample 0 has \[4\]"),
        ({"x": zeros(1, 4), "z": zeros(1)}, r"sample 0 holds \['x', 'z'\]"),
        ({}, r"sample 0 holds \[\]"),
    ],
)
def test_samples_that_are_not_as_described_are_refused(sample: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        check_alike([sample], [TensorSpec("x", "float32", ("batch", 4))])


def test_sizes_may_be_said() -> None:
    spec = TensorSpec("x", "float32", ("batch", 9))
    assert resized(spec, {"x": (1, "length")}) == TensorSpec("x", "float32", (1, "length"))
    assert resized(spec, {"y": (1,)}) == spec
    with pytest.raises(ModelError, match=r"2 axes, \[batch, 9\], got 1 sizes: \[length\]"):
        resized(spec, {"x": ("length",)})
