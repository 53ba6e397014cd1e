"""Fits to a whole Hessian, regrouped rows, and the Hessians themselves."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from torch import Tensor, nn

import edgecomp
from edgecomp import context
from edgecomp.errors import CalibrationError
from edgecomp.fitting import lut_fit, tile_fit
from edgecomp.fitting.lut_fit import LutFit, fit_lut
from edgecomp.formats import lut, unpack


def normal(n: int, k: int, seed: int = 0) -> Tensor:
    return torch.randn(n, k, generator=torch.Generator().manual_seed(seed))


def correlated_inputs(k: int) -> Tensor:
    return normal(4 * k, k // 4, seed=1) @ normal(k // 4, k, seed=2) + 0.3 * normal(4 * k, k, seed=3)


def output_error(fitted: LutFit, matrix: Tensor, inputs: Tensor) -> float:
    """Relative error of the layer's outputs, of what the packed factor holds."""
    difference = torch.from_numpy(unpack(fitted.factor)) - matrix
    return float((inputs @ difference.T).norm() / (inputs @ matrix.T).norm())


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize(("n", "k", "block_size"), [(40, 128, 32), (17, 72, 96)])
def test_the_whole_hessian_gives_smaller_errors_than_its_diagonal(bits: int, n: int, k: int, block_size: int) -> None:
    matrix, inputs = normal(n, k), correlated_inputs(k)
    hessian = inputs.T @ inputs / len(inputs)
    diagonal, whole = (fit_lut(matrix, h, bits=bits, block_size=block_size, refits=2) for h in (hessian.diagonal(), hessian))
    error = output_error(whole, matrix, inputs)
    assert error < 0.75 * output_error(diagonal, matrix, inputs)
    assert whole.weighted_error == pytest.approx(error, rel=0.15)  # it also counts the hundredth that is added to the diagonal


WIDE_FIT = """
import torch
from edgecomp.fitting.lut_fit import fit_lut
torch.set_num_threads(2)
matrix = torch.randn(16, 5632, generator=torch.Generator().manual_seed(0))
print(fit_lut(matrix, torch.eye(5632), bits=2, block_size=32, refits=0).relative_error)
"""
WIDE_REFIT = """
import torch
from edgecomp.fitting.compensation import _refit_steps
from edgecomp.fitting.levels import Levels
torch.set_num_threads(2)
weights = torch.randn(8, 160, 32, generator=torch.Generator().manual_seed(0))
levels = Levels(torch.tensor([-1.0, 1.0]), (weights > 0).int(), torch.ones(8, 160), torch.ones(8))
print(float((_refit_steps(weights, torch.eye(5120), levels) - weights.abs().mean(dim=2)).abs().max()))
"""


def wide(program: str) -> float:
    """What a program prints, in a process that can be ended: batched LU factorisations of more than 144 columns never returned."""
    result = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, timeout=120, check=True)
    return float(result.stdout)


def test_a_wide_matrix_is_fitted_by_two_threads() -> None:
    """176 blocks a row."""
    assert 0 < wide(WIDE_FIT) < 0.5


def test_steps_of_a_wide_matrix_are_refitted_by_two_threads() -> None:
    """160 blocks a row, in PyTorch."""
    assert wide(WIDE_REFIT) < 1e-3


def test_inputs_that_are_all_alike_or_absent_are_no_trouble() -> None:
    matrix = normal(16, 64)
    for hessian in (torch.ones(64, 64), torch.zeros(64, 64)):
        assert fit_lut(matrix, hessian, bits=3, block_size=32, refits=1).relative_error < 1


def recipe(**settings: Any) -> dict[str, Any]:
    return {"version": 1, "passes": [{"method": "lut-kmeans", "bits": 2, "refits": 1, **settings}]}


@pytest.mark.parametrize(("factory", "samples"), [("convolutional", "images"), ("tied_tokens", "tokens")])
def test_whole_models_a_few_hessians_at_a_time(factory: str, samples: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = getattr(tiny_models, factory)(), list(getattr(tiny_models, samples)())
    at_once = edgecomp.compress(model, recipe(weighting="hessian"), inputs)
    monkeypatch.setattr(context, "_STATISTIC_BYTES", 1)  # one layer at a time
    one_by_one = edgecomp.compress(model, recipe(weighting="hessian"), inputs)
    diagonal = edgecomp.compress(model, recipe(), inputs)
    for name, factor in at_once.factors.items():
        for key, array in factor.arrays.items():
            np.testing.assert_array_equal(array, one_by_one.factors[name].arrays[key])
    assert any(not np.array_equal(f.arrays["codes"], diagonal.factors[name].arrays["codes"]) for name, f in at_once.factors.items())
    with pytest.raises(CalibrationError, match="--calibration"):
        edgecomp.compress("tiny_models:described", recipe(weighting="hessian"))


def rows_of_two_kinds() -> Tensor:
    """In turns, rows of four values and rows of four others."""
    levels = torch.tensor([[1.0, 0.3, -0.1, -0.4], [1.0, 0.8, 0.6, -0.9]])
    chosen = torch.randint(4, (72, 64), generator=torch.Generator().manual_seed(0))
    return levels[torch.arange(72) % 2].gather(1, chosen) + 0.01 * normal(72, 64)


def test_rows_alike_share_a_codebook() -> None:
    matrix = rows_of_two_kinds()
    one, two = (fit_lut(matrix, None, bits=2, block_size=32, refits=4, books=books) for books in (1, 2))
    assert two.relative_error < 0.7 * one.relative_error
    difference = np.linalg.norm(unpack(two.factor) - matrix.numpy()) / np.linalg.norm(matrix.numpy())
    assert two.relative_error == pytest.approx(float(difference), rel=1e-4)
    arrays = two.factor.arrays
    assert arrays["tile_book"].tolist() == [0, 0, 1, 1, 1]
    kinds = arrays["row_index"][:32] % 2
    assert kinds.min() == kinds.max()  # the first group's rows are of one kind
    assert two.factor.packed_bytes - one.factor.packed_bytes == 4 + 4 * 80  # a codebook and the order of the rows


def test_rows_are_grouped_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def fitted() -> LutFit:
        return fit_lut(rows_of_two_kinds(), None, bits=2, block_size=32, refits=4, books=2)

    at_once, most = fitted(), []
    normalised = tile_fit.normalised
    monkeypatch.setattr(tile_fit, "normalised", lambda weights: most.append(weights.numel()) or normalised(weights))
    monkeypatch.setattr(lut_fit, "_CHUNK_WEIGHTS", 700)
    for name, array in fitted().factor.arrays.items():
        np.testing.assert_array_equal(array, at_once.factor.arrays[name])
    assert max(most) <= 700


@pytest.mark.parametrize(("bits", "rows", "books"), [(3, 20, 9), (8, 64, 4), (2, 16, 2)])
def test_there_are_no_more_codebooks_than_can_be(bits: int, rows: int, books: int) -> None:
    fitted = fit_lut(normal(rows, 64), None, bits=bits, block_size=32, refits=1, books=books)
    assert len(fitted.factor.arrays["codebooks"]) == (1 if bits == 8 else -(-rows // lut.TILE_ROWS))


def test_a_regrouped_model_exports_what_it_computes() -> None:
    model, inputs = tiny_models.convolutional(), list(tiny_models.images())
    compressed = edgecomp.compress(model, recipe(books=2, weighting="hessian", compute="float"), inputs)
    assert "row_index" in compressed.factors["first.weight"].arrays
    with torch.no_grad():
        got = compressed.module(torch.from_numpy(inputs[0]["image"]))
        for name, factor in compressed.factors.items():
            layer = model.get_submodule(name.removesuffix(".weight"))
            weight = torch.from_numpy(unpack(factor))
            if isinstance(layer, nn.Linear):
                layer.weight.copy_(weight)
            else:
                layer.weight.copy_(
                    weight.reshape(len(weight), *layer.kernel_size, -1)[..., : layer.weight.shape[1]].permute(0, 3, 1, 2)
                )
        expected = model.eval()(torch.from_numpy(inputs[0]["image"]))
    torch.testing.assert_close(got, expected, rtol=2e-2, atol=1e-3)  # what stays dense is float16 in one of them
