"""Learning of codebooks, scales and maps: the learned representation, and the pass over whole models."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from torch import Tensor, nn

import edgecomp
from edgecomp.calibration import Sample
from edgecomp.checkpoint import CompressedModel
from edgecomp.errors import CalibrationError, ConfigError
from edgecomp.formats import lut, unpack
from edgecomp.passes import learning
from edgecomp.passes.learned_lut import LearnedLut, MapGradient
from edgecomp.passes.lut_fit import fit_lut
from edgecomp.tensor import Factor

CPU = torch.device("cpu")


def normal(n: int, k: int, seed: int = 0) -> Tensor:
    return torch.randn(n, k, generator=torch.Generator().manual_seed(seed))


def fitted(matrix: Tensor, bits: int = 3, block_size: int = 32) -> Factor:
    return fit_lut(matrix, None, bits=bits, block_size=block_size, refits=1).factor


def learned(*matrices: Tensor, bits: int = 3, map_gradient: MapGradient = "straight-through") -> LearnedLut:
    return LearnedLut([fitted(matrix, bits) for matrix in matrices], matrices, CPU, map_gradient)


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
    codes = start.positions.round().long()
    entries, scales = start.books.clone().requires_grad_(), start.scales.clone().requires_grad_()
    steps = (scales * row_scale[:, None]).repeat_interleave(32, dim=1)
    (entries[books[:, None], codes] * steps * gradient).sum().backward()
    torch.testing.assert_close(start.books.grad, entries.grad)
    torch.testing.assert_close(start.scales.grad, scales.grad)
    torch.testing.assert_close(start.positions.grad, gradient * steps.detach())


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
    assert start.positions.grad is not None
    torch.testing.assert_close(start.positions.grad[0, :4], torch.tensor([0, 1 / 61, 1 / 51, 1 / 118]))
    start.set_gradients([-torch.ones(1, 32)])
    torch.testing.assert_close(start.positions.grad[0, :4], -torch.tensor([1 / 61, 1 / 51, 1 / 118, 0]))


def test_naive_gradients_grow_with_the_distance_of_the_codeword() -> None:
    factor, weights = permuted_factor()
    start = LearnedLut([factor], [weights], CPU, "naive")
    np.testing.assert_array_equal(start.weights()[0].numpy(), weights.numpy())
    gradient = normal(40, 64, seed=2)
    start.set_gradients([gradient])
    # The derivative of sum_k softmax(I)[k] c[k], with the hard codeword in the place of that mean.
    lanes = torch.from_numpy(lut.lane_of_row(factor))
    steps = (
        start.scales.round().repeat_interleave(32, dim=1) * torch.from_numpy(factor.arrays["row_scale"]).reshape(-1)[lanes, None]
    )
    books = start.books[torch.from_numpy(factor.arrays["tile_book"].astype(np.int64))[lanes // 16]]
    hard = books.gather(1, start.positions.argmax(dim=-1))
    expected = (gradient * steps)[..., None] * start.positions.softmax(dim=-1) * (books[:, None, :] - hard[..., None])
    torch.testing.assert_close(start.positions.grad, expected)
    start.positions += torch.tensor([0.0, 0.0, 0.0, 100.0])
    start.clamp()
    assert (lut.unpack_codes(start.to_factors()[0])[lanes.numpy(), :64] == 3).all()


def test_without_a_map_gradient_codes_stay() -> None:
    start = learned(normal(16, 32), map_gradient="none")
    start.set_gradients([torch.ones(16, 32)])
    assert start.positions.grad is None
    assert start.books.grad is not None


def test_what_leaves_the_grid_is_brought_back() -> None:
    start = learned(normal(16, 32), bits=2)
    start.positions += 100
    start.scales -= 1000
    start.books.copy_(torch.tensor([[500.0, 3.0, -500.0, 7.0]]))
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


def recipe(bits: int = 2, **settings: Any) -> dict[str, Any]:
    passes = [
        {"method": "lut-kmeans", "bits": bits, "refits": 1, "compute": "float"},
        {"method": "jlcm", "steps": 30, "batch": 2, **settings},
    ]
    return {"version": 1, "dense_dtype": "float32", "passes": passes}


def distance(model: CompressedModel, original: nn.Module, samples: list[Sample]) -> float:
    """Mean squared difference of the outputs over the mean square of the original's."""
    inputs = [[torch.from_numpy(array) for array in sample.values()] for sample in samples]
    with torch.no_grad():
        got, expected = [torch.cat([module(*x) for x in inputs]) for module in (model.module, original.eval())]
    return float((got - expected).square().mean() / expected.square().mean())


@pytest.mark.parametrize(("factory", "samples"), [("convolutional", "images"), ("tied_tokens", "tokens")])
def test_learning_brings_a_model_nearer_to_the_original(factory: str, samples: str) -> None:
    original, inputs = getattr(tiny_models, factory)(), list(getattr(tiny_models, samples)())
    kmeans = edgecomp.compress(original, recipe() | {"passes": recipe()["passes"][:1]}, inputs)
    before = {name: tensor.clone() for name, tensor in original.state_dict().items()}
    model = edgecomp.compress(original, recipe(), inputs)
    assert distance(model, original, inputs) < 0.5 * distance(kmeans, original, inputs)
    assert all(torch.equal(tensor, before[name]) for name, tensor in original.state_dict().items())
    assert all(parameter.grad is None for parameter in original.parameters())


def test_padding_channels_keep_the_padding_code() -> None:
    grown = nn.Sequential(nn.Conv2d(24, 32, 3), nn.Flatten(), nn.Linear(32, 8))
    inputs = [{"x": normal(2, 24 * 9, seed=i).reshape(2, 24, 3, 3).numpy()} for i in range(2)]
    factor = edgecomp.compress(grown, recipe(), inputs).factors["0.weight"]
    codes = lut.unpack_codes(factor).reshape(32, 9, 32)
    assert (codes[:, :, 24:] == lut.padding_codes(factor.arrays["codebooks"], 2)[0]).all()


def test_the_same_inputs_give_the_same_bits() -> None:
    inputs = list(tiny_models.images())
    first, second = (edgecomp.compress(tiny_models.convolutional(), recipe(), inputs) for _ in range(2))
    for name, factor in first.factors.items():
        for key, array in factor.arrays.items():
            np.testing.assert_array_equal(array, second.factors[name].arrays[key])


def many_images() -> list[Sample]:
    """Enough samples for some to be held back."""
    return [{name: array + 0.01 * i for name, array in sample.items()} for i in range(8) for sample in tiny_models.images()]


def test_samples_are_held_back_evenly_where_there_are_enough() -> None:
    assert learning.hold_back(7) == (list(range(7)), [])
    learned, held = learning.hold_back(20)
    assert held == [5, 15]
    assert sorted(learned + held) == list(range(20))
    assert len(learning.hold_back(1000)[1]) == 16


def test_learning_that_makes_the_model_worse_is_not_taken() -> None:
    rates = {"position_rate": 3.0, "book_rate": 90.0, "scale_rate": 90.0, "dense_rate": 1.0}
    for samples, taken in ((many_images(), False), (many_images()[:1], True)):  # of one sample none can be held back
        kmeans, model = (
            edgecomp.compress(tiny_models.convolutional(), recipe(**rates) | {"passes": recipe(**rates)["passes"][:count]}, samples)
            for count in (1, 2)
        )
        changed = [not np.array_equal(unpack(factor), unpack(kmeans.factors[name])) for name, factor in model.factors.items()]
        assert any(changed) == taken


@pytest.mark.parametrize("samples", [tiny_models.images, many_images])
def test_an_interrupted_run_continues_with_the_same_bits(
    samples: Callable[[], list[Sample]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning, "_KEEP_SECONDS", 0.0)
    whole = edgecomp.compress(tiny_models.convolutional(), recipe(), list(samples()))
    set_gradients, calls = learning.Student.set_gradients, itertools.count(1)

    def interrupted(student: learning.Student, weights: Mapping[str, Tensor]) -> None:
        if next(calls) == 12:
            raise KeyboardInterrupt
        set_gradients(student, weights)

    def compress() -> CompressedModel:
        return edgecomp.compress(tiny_models.convolutional(), recipe(), list(samples()), work_folder=tmp_path / "work")

    monkeypatch.setattr(learning.Student, "set_gradients", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compress()
    continued = compress()
    assert next(calls) == 12 + 30 - 11 + 1  # one for each step: the eleven steps before the interruption were not done again
    for name, factor in whole.factors.items():
        for key, array in factor.arrays.items():
            np.testing.assert_array_equal(array, continued.factors[name].arrays[key])
    assert all(torch.equal(tensor, continued.dense[name]) for name, tensor in whole.dense.items())


def test_the_error_of_the_learned_weights_is_recorded() -> None:
    original = tiny_models.tied_tokens()
    model = edgecomp.compress(original, recipe(), tiny_models.tokens())
    weights = original.fc.weight.detach().numpy()
    expected = np.linalg.norm(unpack(model.factors["fc.weight"]) - weights) / np.linalg.norm(weights)
    assert model.provenance["factors"]["fc.weight"] == {"relative_error": pytest.approx(expected, rel=1e-5)}


def test_dense_tensors_are_learned_or_left() -> None:
    original, inputs = tiny_models.convolutional(), list(tiny_models.images())
    left = edgecomp.compress(original, recipe(dense_rate=0.0), inputs)
    learned = edgecomp.compress(original, recipe(dense_rate=1e-2), inputs)
    assert torch.equal(left.dense["norm.weight"], original.norm.weight)
    assert not torch.equal(learned.dense["norm.weight"], original.norm.weight)
    assert torch.equal(learned.dense["first.bias"], learned.dense["second.bias"])  # one tensor of two names


def test_it_needs_inputs_and_factors() -> None:
    inputs = list(tiny_models.images())
    with pytest.raises(ConfigError, match="put lut-kmeans before it"):
        edgecomp.compress(tiny_models.convolutional(), {"version": 1, "passes": [{"method": "jlcm"}]}, inputs)
    unweighted = {"method": "lut-kmeans", "weighting": "none", "refits": 0}
    model, specs = tiny_models.described()
    with pytest.raises(CalibrationError, match="jlcm learns from calibration inputs"):
        edgecomp.compress("tiny_models:described", {"version": 1, "passes": [unweighted, {"method": "jlcm"}]})
    assert specs[0].name == "image" and isinstance(model, nn.Module)


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"device must be one that PyTorch can use.*'abacus'"):
        edgecomp.compress(tiny_models.convolutional(), recipe(), list(tiny_models.images()), device="abacus")
