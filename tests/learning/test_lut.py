"""Codebooks, scales and maps of `lut` factors while they are learned."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from edgecomp.fitting.lut_fit import fit_lut
from edgecomp.formats import lut, unpack
from edgecomp.learning.codes import MapGradient
from edgecomp.learning.lut import LearnedLut
from edgecomp.tensor import Factor

CPU = torch.device("cpu")


def normal(n: int, k: int, seed: int = 0) -> Tensor:
    return torch.randn(n, k, generator=torch.Generator().manual_seed(seed))


def fitted(matrix: Tensor, bits: int = 3, block_size: int = 32) -> Factor:
    return fit_lut(matrix, None, bits=bits, block_size=block_size, refits=1).factor


def learned(*matrices: Tensor, bits: int = 3, map_gradient: MapGradient = "straight-through", candidates: int = 3) -> LearnedLut:
    return LearnedLut([fitted(matrix, bits) for matrix in matrices], matrices, CPU, map_gradient, candidates)


def permuted_factor() -> tuple[Factor, Tensor]:
    """Two codebooks, one of them not ascending, and rows in another order with padding between."""
    rng = np.random.default_rng(0)
    row_index = np.full(48, -1, np.int32)
    row_index[rng.permutation(48)[:40]] = rng.permutation(40)
    codes = rng.integers(0, 4, (48, 64))
    factor = lut.pack(
        codes,
        np.array([[-90, -20, 30, 100], [50, -60, 127, -127]], np.int8),
        rng.integers(-127, 128, (48, 2)),
        rng.uniform(0.5, 2, 48).astype(np.float32),
        bits=2,
        block_size=32,
        tile_book=np.array([0, 1, 1], np.uint16),
        row_index=row_index,
    )
    return factor, torch.from_numpy(unpack(factor))


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6])
def test_what_is_learned_starts_as_the_factor_and_packs_to_it(bits: int) -> None:
    matrices = normal(24, 96), normal(40, 96, seed=1)
    start = learned(*matrices, bits=bits)
    for weight, matrix in zip(start.weights(), matrices, strict=True):
        np.testing.assert_array_equal(weight.numpy(), unpack(fitted(matrix, bits)))
    for factor, matrix in zip(start.to_factors(), matrices, strict=True):
        np.testing.assert_array_equal(unpack(factor), unpack(fitted(matrix, bits)))


def test_several_codebooks_in_any_order_and_permuted_rows() -> None:
    factor, weights = permuted_factor()
    start = LearnedLut([factor], [weights], CPU, "straight-through")
    np.testing.assert_array_equal(start.weights()[0].numpy(), weights.numpy())
    (packed,) = start.to_factors()
    np.testing.assert_array_equal(unpack(packed), weights.numpy())
    np.testing.assert_array_equal(packed.arrays["row_index"], factor.arrays["row_index"])


def test_gradients_of_codebooks_and_scales_are_those_of_the_formula() -> None:
    factor, weights = permuted_factor()
    start = LearnedLut([factor], [weights], CPU, "straight-through")
    gradient = normal(40, 64, seed=2)
    start.set_gradients([gradient])
    lanes = torch.from_numpy(lut.lane_of_row(factor))
    books = torch.from_numpy(factor.arrays["tile_book"].astype(np.int64))[lanes // 16]
    row_scale = torch.from_numpy(factor.arrays["row_scale"]).reshape(-1)[lanes]
    codes = start.coded.positions.round().long()
    entries, scales = start.coded.books.clone().requires_grad_(), start.scales.clone().requires_grad_()
    steps = (scales * row_scale[:, None]).repeat_interleave(32, dim=1)
    (entries[books[:, None], codes] * steps * gradient).sum().backward()
    torch.testing.assert_close(start.coded.books.grad, entries.grad)
    torch.testing.assert_close(start.scales.grad, scales.grad)
    torch.testing.assert_close(start.coded.positions.grad, gradient * steps.detach())


def test_proximal_gradients_look_at_the_neighbour_in_the_direction_of_descent() -> None:
    factor = lut.pack(
        np.array([[0, 1, 2, 3] * 8]),
        np.array([[-100, -40, 10, 127]], np.int8),
        np.array([[127]]),
        np.full(1, 1 / 127, np.float32),
        bits=2,
        block_size=32,
    )
    start = LearnedLut([factor], [torch.from_numpy(unpack(factor))], CPU, "proximal")
    start.set_gradients([torch.ones(1, 32)])  # every weight wants to be smaller
    assert start.coded.positions.grad is not None
    torch.testing.assert_close(start.coded.positions.grad[0, :4], torch.tensor([0, 1 / 61, 1 / 51, 1 / 118]))
    start.set_gradients([-torch.ones(1, 32)])
    torch.testing.assert_close(start.coded.positions.grad[0, :4], -torch.tensor([1 / 61, 1 / 51, 1 / 118, 0]))


@pytest.mark.parametrize("bits", [1, 2, 3, 6])
@pytest.mark.parametrize("candidates", [2, 3, 4, 64])
def test_scores_start_as_the_factor_and_stay_among_the_nearest_codewords(bits: int, candidates: int) -> None:
    matrices = normal(24, 96), normal(40, 96, seed=1)
    start = learned(*matrices, bits=bits, map_gradient="scores", candidates=candidates)
    for weight, matrix in zip(start.weights(), matrices, strict=True):
        np.testing.assert_array_equal(weight.numpy(), unpack(fitted(matrix, bits)))
    count = min(candidates, 2**bits)
    assert start.coded.positions.shape == (count, 64, 96)
    before = start.coded.codes()
    start.coded.positions.copy_(normal(count * 64, 96, seed=2).reshape(count, 64, 96))
    after = start.coded.codes()
    assert (after != before).any() and (after - before).abs().max() < count
    assert after.min() >= 0 and after.max() < 2**bits


def test_scores_move_codes_against_the_gradient_and_no_farther_than_their_candidates() -> None:
    start = learned(normal(16, 32), bits=3, map_gradient="scores")
    before = start.coded.codes()
    for _ in range(50):
        start.set_gradients([torch.ones(16, 32)])  # every weight wants to be smaller; a negative scale turns that round
        start.coded.positions -= start.coded.positions.grad.sign()
    moved = start.coded.codes() - before
    scales = start.scales.round().repeat_interleave(32, dim=1)
    assert (moved * scales.sign() <= 0).all() and moved.abs().max() <= 2 and (moved != 0).float().mean() > 0.5


def test_scores_of_all_codewords_grow_with_the_distance_of_the_codeword() -> None:
    factor, weights = permuted_factor()
    start = LearnedLut([factor], [weights], CPU, "scores", 4)
    np.testing.assert_array_equal(start.weights()[0].numpy(), weights.numpy())
    gradient = normal(40, 64, seed=2)
    start.set_gradients([gradient])
    # The derivative of sum_k softmax(I)[k] c[k], with the hard codeword in the place of that mean.
    lanes = torch.from_numpy(lut.lane_of_row(factor))
    steps = (
        start.scales.round().repeat_interleave(32, dim=1) * torch.from_numpy(factor.arrays["row_scale"]).reshape(-1)[lanes, None]
    )
    books = start.coded.books[torch.from_numpy(factor.arrays["tile_book"].astype(np.int64))[lanes // 16]]
    hard = books.gather(1, start.coded.positions.argmax(dim=0))
    expected = gradient * steps * start.coded.positions.softmax(dim=0) * (books.T[..., None] - hard)
    torch.testing.assert_close(start.coded.positions.grad, expected)
    start.coded.positions[3] += 100
    start.clamp()
    assert (lut.unpack_codes(start.to_factors()[0])[lanes.numpy(), :64] == 3).all()


def test_without_a_map_gradient_codes_stay() -> None:
    start = learned(normal(16, 32), map_gradient="none")
    start.set_gradients([torch.ones(16, 32)])
    assert start.coded.positions.grad is None
    assert start.coded.books.grad is not None


def test_what_leaves_the_grid_is_brought_back() -> None:
    start = learned(normal(16, 32), bits=2)
    start.coded.positions += 100
    start.scales -= 1000
    start.coded.books.copy_(torch.tensor([[500.0, 3.0, -500.0, 7.0]]))
    start.clamp()
    (factor,) = start.to_factors()
    assert factor.arrays["codebooks"].tolist() == [[-127, 3, 7, 127]]
    assert (lut.unpack_codes(factor) == 3).all()
    assert (factor.arrays["scales"] == -127).all()


@pytest.mark.parametrize("largest_entry", [31, 63, 127])
def test_codebooks_stay_within_the_entries_that_they_started_with(largest_entry: int) -> None:
    matrix = normal(16, 32)
    start = fit_lut(matrix, None, bits=3, block_size=32, refits=0, largest_entry=largest_entry).factor
    learned = LearnedLut([start], [matrix], CPU, "straight-through")
    learned.parameters["books"].mul_(10)
    learned.clamp()
    (factor,) = learned.to_factors()
    assert abs(factor.arrays["codebooks"].astype(int)).max() == largest_entry


def test_a_column_of_zeros_stays_so() -> None:
    matrix = normal(16, 64)
    matrix[:, 40:] = 0
    start = learned(matrix)
    start.set_gradients([torch.ones(16, 64)])
    assert start.coded.positions.grad is not None
    assert (start.coded.positions.grad[:, 40:] == 0).all() and (start.coded.positions.grad[:, :40] != 0).any()
    (factor,) = start.to_factors()
    np.testing.assert_array_equal(unpack(factor), start.weights()[0].numpy())
