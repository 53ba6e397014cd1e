"""The installed library through ctypes, against the numpy oracle."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lut_cases import random_factor

from edgecomp import native
from edgecomp.errors import EdgecompError, FormatError, RuntimeUnavailableError
from edgecomp.formats import lut
from edgecomp.ops import OPERATORS
from edgecomp.tensor import ConvParams, Factor

CASES = Path(__file__).parent / "lut_cases.py"


def run_cases(variant: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "EDGECOMP_FORCE_ISA": variant}
    return subprocess.run([sys.executable, str(CASES)], env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def factor() -> Factor:
    return random_factor(20, 70, 4, 32, books=2, permuted=True, rng=np.random.default_rng(1))


def spoiled(factor: Factor, name: str, change: object) -> Factor:
    array = factor.arrays[name].copy()
    array.reshape(-1)[0] = change
    return replace(factor, arrays={**factor.arrays, name: array})


@pytest.mark.parametrize("variant", [v.name for v in native.variants()])
def test_every_variant_matches_the_oracle(variant: str) -> None:
    if not next(v for v in native.variants() if v.name == variant).available:
        pytest.skip(f"this CPU cannot run {variant}")
    result = run_cases(variant)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[0] == variant


def test_unknown_variant_is_an_error() -> None:
    result = run_cases("altivec")
    assert result.returncode != 0
    assert (
        "RuntimeUnavailableError: EDGECOMP_FORCE_ISA must name a kernel variant of this build; got EDGECOMP_FORCE_ISA=altivec"
        in result.stderr
    )


def test_ref_is_the_last_variant_and_always_available() -> None:
    assert native.variants()[-1] == native.Variant("ref", available=True)
    assert native.selected_variant() in [v.name for v in native.variants() if v.available]


def test_every_operator_names_the_variant_that_it_runs() -> None:
    chosen = native.selected_variants()
    assert set(OPERATORS) <= set(chosen)
    assert chosen["lut_matmul"] == native.selected_variant()
    assert set(chosen.values()) <= {v.name for v in native.variants() if v.available}


def test_leading_axes_are_kept(factor: Factor) -> None:
    x = np.random.default_rng(2).standard_normal((2, 3, 70)).astype(np.float32)
    y = native.lut_matmul(x, factor, compute="float")
    assert y.shape == (2, 3, 20)
    assert np.array_equal(y.reshape(6, 20), native.lut_matmul(x.reshape(6, 70), factor, compute="float"))
    assert native.lut_matmul(x[:0], factor, compute="int8").shape == (0, 3, 20)
    assert native.lut_matmul(x[0, 0], factor, compute="int8").shape == (20,)


def test_nan_is_not_hidden(factor: Factor) -> None:
    x = np.ones((2, 70), np.float32)
    x[1, 69] = np.nan
    y = native.lut_matmul(x, factor, compute="int8")
    assert np.isfinite(y[0]).all() and np.isnan(y[1]).all()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("codebooks", -128, "codebooks must lie in"),
        ("scales", -128, "scales must lie in"),
        ("tile_book", 2, "every entry of tile_book"),
        ("row_scale", np.inf, "row_scale must be finite"),
        ("row_index", 20, "row_index must hold every row"),
    ],
)
def test_bad_values_are_refused(factor: Factor, name: str, value: object, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        native.lut_matmul(np.ones((1, 70), np.float32), spoiled(factor, name, value), compute="int8")


def test_bad_sizes_are_refused(factor: Factor) -> None:
    short = replace(factor, arrays={**factor.arrays, "scales": factor.arrays["scales"][:, :1].copy()})
    with pytest.raises(FormatError, match=r"scales with N=20, .* must be int8 \[\d, 3, 16\], got int8 \[\d, 1, 16\]"):
        native.lut_gather(np.zeros(1, np.int64), short)
    with pytest.raises(FormatError, match="block_size must be a multiple of 32"):
        native.lut_gather(np.zeros(1, np.int64), replace(factor, attributes={"bits": 4, "block_size": 64}))


def test_bad_arguments_are_refused(factor: Factor) -> None:
    with pytest.raises(EdgecompError, match=r"x must be float32 \[..., 70\]"):
        native.lut_matmul(np.ones((1, 71), np.float32), factor, compute="int8")
    with pytest.raises(EdgecompError, match=r"bias must be float32 \[20\]"):
        native.lut_matmul(np.ones((1, 70), np.float32), factor, compute="int8", bias=np.ones(1, np.float32))
    with pytest.raises(EdgecompError, match="every index must lie in"):
        native.lut_gather(np.array([20]), factor)
    with pytest.raises(EdgecompError, match="geometry must be in range"):
        native.lut_conv2d(np.ones((1, 3, 8, 8), np.float32), factor, ConvParams(3, (3, 3)), compute="float")


def test_missing_library_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(native, "_LIBRARY", tmp_path / "none.so")
    with pytest.raises(RuntimeUnavailableError, match="install a wheel"):
        native.get_library_path()


def test_non_contiguous_input_is_copied(factor: Factor) -> None:
    x = np.random.default_rng(3).standard_normal((70, 4)).astype(np.float32).T
    assert np.allclose(native.lut_matmul(x, factor, compute="float"), lut.matmul(x, factor, compute="float"), rtol=1e-4, atol=1e-4)


def test_a_single_index_gives_a_single_row(factor: Factor) -> None:
    assert native.lut_gather(np.int64(3), factor).shape == factor.shape[1:]
