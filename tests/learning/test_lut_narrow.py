"""Codebooks, row scales and maps of `lut_narrow` factors while they are learned."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from edgecomp.fitting.narrow_fit import fit_narrow
from edgecomp.formats import lut_narrow, unpack
from edgecomp.learning.codes import MapGradient
from edgecomp.learning.learned import can_learn
from edgecomp.learning.lut_narrow import LearnedNarrow
from edgecomp.tensor import Factor

CPU = torch.device("cpu")


def normal(n: int, k: int = 9, seed: int = 0) -> Tensor:
    return torch.randn(n, k, generator=torch.Generator().manual_seed(seed))


def fitted(matrix: Tensor, bits: int = 3) -> Factor:
    return fit_narrow(matrix.numpy(), None, bits=bits, refits=1)


def unsorted_factor(n: int = 12, exponent: int = -20, seed: int = 0) -> Factor:
    """Entries in no order, two of them equal, and a row of zeros."""
    rng = np.random.default_rng(seed)
    scale = rng.integers(180, 240, n).astype(np.uint8)
    scale[5] = 0
    return lut_narrow.pack(rng.integers(0, 4, (n, 9)), np.array([50, -60, 127, 50], np.int8), scale, bits=2, exponent=exponent)


def started(*factors: Factor, map_gradient: MapGradient = "straight-through") -> LearnedNarrow:
    return LearnedNarrow(factors, [torch.from_numpy(unpack(factor)) for factor in factors], CPU, map_gradient)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6])
def test_what_is_learned_starts_as_the_factors_and_packs_to_them(bits: int) -> None:
    matrices = normal(24), 1e-6 * normal(41, seed=1)  # of different exponents
    factors = [fitted(matrix, bits) for matrix in matrices]
    learned = LearnedNarrow(factors, matrices, CPU)
    for weight, packed, factor in zip(learned.weights(), learned.to_factors(), factors, strict=True):
        np.testing.assert_array_equal(weight.numpy(), unpack(factor))
        np.testing.assert_array_equal(unpack(packed), unpack(factor))
        assert packed.attributes == factor.attributes


@pytest.mark.parametrize("map_gradient", ["straight-through", "proximal", "scores", "none"])
def test_any_order_of_entries_and_rows_of_zeros(map_gradient: MapGradient) -> None:
    factors = unsorted_factor(), unsorted_factor(20, -120, seed=1)
    learned = started(*factors, map_gradient=map_gradient)
    for weight, packed, factor in zip(learned.weights(), learned.to_factors(), factors, strict=True):
        np.testing.assert_array_equal(weight.numpy(), unpack(factor))
        np.testing.assert_array_equal(unpack(packed), unpack(factor))
    learned.set_gradients([torch.ones_like(weight) for weight in learned.weights()])
    assert (learned.coded.positions.grad is None) == (map_gradient == "none")


def test_those_of_7_and_8_bits_have_nothing_to_learn() -> None:
    assert [can_learn(fitted(normal(4), bits)) for bits in (1, 6, 7, 8)] == [True, True, False, False]


def test_gradients_are_those_of_the_formula() -> None:
    factors = unsorted_factor(), unsorted_factor(20, -18, seed=1)
    learned, gradients = started(*factors), [normal(12, seed=2), normal(20, seed=3)]
    learned.set_gradients(gradients)
    row_book = torch.tensor([0] * 12 + [1] * 20)
    exponent = torch.tensor([-20.0] * 12 + [-18.0] * 20)
    books, scales = learned.coded.books.clone().requires_grad_(), learned.scales.clone().requires_grad_()
    steps = torch.where(scales == 0, 0, (math.log(2) * (exponent + scales / 16)).exp())
    (books[row_book[:, None], learned.coded.codes()] * steps[:, None] * torch.cat(gradients)).sum().backward()
    torch.testing.assert_close(learned.coded.books.grad, books.grad)
    torch.testing.assert_close(learned.scales.grad, scales.grad)
    torch.testing.assert_close(learned.coded.positions.grad, torch.cat(gradients) * steps.detach()[:, None])
    assert learned.scales.grad is not None and learned.scales.grad[5] == 0 and learned.scales.grad[:5].all()


def test_what_leaves_the_grid_is_brought_back() -> None:
    learned = started(unsorted_factor())
    learned.coded.positions += 100
    learned.coded.books.copy_(torch.tensor([[500.0, 3.0, -500.0, 7.0]]))
    for change, bound in (1000, 255), (-1000, 1):
        learned.scales += change
        learned.clamp()
        (factor,) = learned.to_factors()
        assert factor.arrays["row_scale"].tolist() == [bound] * 5 + [0] + [bound] * 6
    assert factor.arrays["codebook"].tolist() == [-127, 3, 7, 127]
    assert (lut_narrow.unpack_codes(factor) == 3).all()


@pytest.mark.parametrize("kind", ["positions", "books", "scales"])
def test_learning_each_kind_lowers_the_error_of_a_disturbed_factor(kind: str) -> None:
    matrix = normal(32)
    factor = fitted(matrix)
    disturbed = {
        "positions": lambda arrays: arrays | {"codes": arrays["codes"] ^ 0b00100010},
        "books": lambda arrays: arrays | {"codebook": np.clip(arrays["codebook"] + np.int16(12), -127, 127).astype(np.int8)},
        "scales": lambda arrays: arrays | {"row_scale": arrays["row_scale"] - 6},
    }[kind](dict(factor.arrays))
    start = Factor(factor.format, factor.shape, factor.attributes, disturbed)
    learned = started(start)
    optimiser = torch.optim.Adam([learned.parameters[kind]], lr=20 * learned.rates[kind])

    def error(weights: np.ndarray) -> float:
        return float(((weights - matrix.numpy()) ** 2).sum())

    for _ in range(80):
        learned.set_gradients([learned.weights()[0] - matrix])
        optimiser.step()
        learned.clamp()
    (packed,) = learned.to_factors()
    before, after, fit = (error(unpack(each)) for each in (start, packed, factor))
    assert after - fit < 0.25 * (before - fit)
