"""Method `jlcm` over whole models."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from torch import nn

import edgecomp
from edgecomp.calibration import Sample
from edgecomp.checkpoint import CompressedModel
from edgecomp.errors import CalibrationError, ConfigError
from edgecomp.formats import lut, lut_narrow, unpack
from edgecomp.learning import optimise
from edgecomp.learning.student import Student


def recipe(bits: int = 2, **settings: Any) -> dict[str, Any]:
    passes = [
        {"method": "lut-kmeans", "bits": bits, "narrow_bits": bits, "refits": 1, "compute": "float"},
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
    torch.manual_seed(0)
    grown = nn.Sequential(nn.Conv2d(24, 32, 3), nn.Flatten(), nn.Linear(32, 8))
    inputs = [{"x": torch.randn(2, 24, 3, 3).numpy()} for _ in range(2)]
    factor = edgecomp.compress(grown, recipe(), inputs).factors["0.weight"]
    codes = lut.unpack_codes(factor).reshape(32, 9, 32)
    assert (codes[:, :, 24:] == lut.padding_codes(factor.arrays["codebooks"], 2)[0]).all()


@pytest.mark.parametrize("map_gradient", ["scores", "straight-through", "none"])
def test_a_depthwise_layer_is_learned_by_the_same_settings(map_gradient: str) -> None:
    torch.manual_seed(0)
    original = nn.Sequential(nn.Conv2d(24, 24, 3, groups=24), nn.ReLU(), nn.Flatten(), nn.Linear(24, 8))
    inputs = [{"x": torch.randn(2, 24, 3, 3).numpy()} for _ in range(4)]
    settings = recipe(map_gradient=map_gradient, dense_rate=0, book_rate=0.3, scale_rate=0)
    kmeans = edgecomp.compress(original, settings | {"passes": settings["passes"][:1]}, inputs).factors["0.weight"]
    learned = edgecomp.compress(original, settings, inputs).factors["0.weight"]
    assert learned.format == "lut_narrow"
    np.testing.assert_array_equal(learned.arrays["row_scale"], kmeans.arrays["row_scale"])
    assert (learned.arrays["codebook"] != kmeans.arrays["codebook"]).any()
    assert (lut_narrow.unpack_codes(learned) != lut_narrow.unpack_codes(kmeans)).any() == (map_gradient != "none")


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
    assert optimise.hold_back(7) == (list(range(7)), [])
    learned, held = optimise.hold_back(20)
    assert held == [5, 15]
    assert sorted(learned + held) == list(range(20))
    assert len(optimise.hold_back(1000)[1]) == 16


def test_learning_that_makes_the_model_worse_is_not_taken() -> None:
    rates = {"position_rate": 3.0, "book_rate": 90.0, "scale_rate": 90.0, "dense_rate": 1.0}
    for samples, taken in ((many_images(), False), (many_images()[:1], True)):  # of one sample none can be held back
        kmeans, model = (
            edgecomp.compress(tiny_models.convolutional(), recipe(**rates) | {"passes": recipe(**rates)["passes"][:count]}, samples)
            for count in (1, 2)
        )
        changed = [not np.array_equal(unpack(factor), unpack(kmeans.factors[name])) for name, factor in model.factors.items()]
        assert any(changed) == taken


@pytest.mark.parametrize("samples", [tiny_models.images, pytest.param(many_images, marks=pytest.mark.long)])
def test_an_interrupted_run_continues_with_the_same_bits(
    samples: Callable[[], list[Sample]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimise, "_KEEP_SECONDS", 0.0)
    whole = edgecomp.compress(tiny_models.convolutional(), recipe(), list(samples()))
    set_gradients, calls = Student.set_gradients, itertools.count(1)

    def interrupted(student: Student) -> None:
        if next(calls) == 12:
            raise KeyboardInterrupt
        set_gradients(student)

    def compress() -> CompressedModel:
        return edgecomp.compress(tiny_models.convolutional(), recipe(), list(samples()), work_folder=tmp_path / "work")

    monkeypatch.setattr(Student, "set_gradients", interrupted)
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
