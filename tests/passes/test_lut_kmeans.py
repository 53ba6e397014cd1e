"""The fit of one matrix, and the pass over a draft."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgecomp.columns import ConvColumns
from edgecomp.context import Batch, PassContext
from edgecomp.draft import Draft
from edgecomp.errors import CalibrationError, ConfigError, FormatError
from edgecomp.fitting.kmeans import kmeans_1d
from edgecomp.fitting.lut_fit import LutFit, fit_lut
from edgecomp.formats import lut, unpack
from edgecomp.layers import draft_of, find_layers
from edgecomp.passes import run_passes
from edgecomp.passes.lut_kmeans import LutKmeans, LutKmeansConfig
from edgecomp.progress import ProgressBar
from edgecomp.resume import FinishedFactor
from edgecomp.tensor import ConvParams, Stage


def normal(n: int, k: int, seed: int = 0) -> Tensor:
    return torch.randn(n, k, generator=torch.Generator().manual_seed(seed))


def fit(matrix: Tensor, energy: Tensor | None = None, *, bits: int = 3, block_size: int = 32, refits: int = 4) -> LutFit:
    return fit_lut(matrix, energy, bits=bits, block_size=block_size, refits=refits)


def error_of(fitted: LutFit, matrix: Tensor) -> float:
    """Relative error of what the packed factor holds, in float64."""
    weights = matrix.double().numpy()
    return float(np.linalg.norm(unpack(fitted.factor) - weights) / np.linalg.norm(weights))


def clustering_cost(points: np.ndarray, mass: np.ndarray, centres: Iterable[float]) -> float:
    distances = (points[:, None] - np.array(list(centres))[None]) ** 2
    return float((mass * distances.min(axis=1)).sum())


@pytest.mark.parametrize("clusters", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(4))
def test_kmeans_on_a_line_is_as_good_as_trying_every_partition(clusters: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points, mass = np.sort(rng.standard_normal(9)), rng.uniform(0.1, 3, 9)
    best = np.inf
    for cuts in itertools.combinations(range(1, 9), clusters - 1):
        parts = np.split(np.arange(9), cuts)
        best = min(best, clustering_cost(points, mass, [np.average(points[part], weights=mass[part]) for part in parts]))
    centres = kmeans_1d(points, mass, clusters)
    assert np.array_equal(centres, np.sort(centres))
    assert clustering_cost(points, mass, centres) == pytest.approx(best, abs=1e-12)


def test_kmeans_ignores_points_without_mass_and_repeats_centres_where_points_are_few() -> None:
    points, mass = np.array([-1.0, 0.0, 0.5, 9.0]), np.array([1.0, 0.0, 2.0, 0.0])
    centres = kmeans_1d(points, mass, 4)
    assert len(centres) == 4
    assert clustering_cost(points, mass, centres) == 0


def test_error_falls_with_every_bit() -> None:
    matrix = normal(32, 64)
    errors = [fit(matrix, bits=bits).relative_error for bits in range(1, 9)]
    assert all(more > less for more, less in itertools.pairwise(errors))
    assert errors[3] < 0.09  # 4 bits of a normal distribution
    assert errors[7] < 0.006


@pytest.mark.parametrize("bits", [1, 2, 4, 7, 8])
@pytest.mark.parametrize(("n", "k", "block_size"), [(5, 7, 32), (17, 33, 64), (40, 96, 32)])
def test_recorded_error_is_that_of_the_packed_weights(bits: int, n: int, k: int, block_size: int) -> None:
    matrix = normal(n, k)
    fitted = fit(matrix, bits=bits, block_size=block_size, refits=1)
    assert fitted.factor.shape == (n, k)
    assert fitted.factor.attributes == {"bits": bits, "block_size": block_size}
    assert fitted.relative_error == pytest.approx(error_of(fitted, matrix), rel=1e-4)


@pytest.mark.parametrize(("largest_entry", "most_lost"), [(31, 1.5), (63, 1.1)])
@pytest.mark.parametrize("bits", range(1, 9))
def test_entries_stay_within_the_largest_entry(bits: int, largest_entry: int, most_lost: float) -> None:
    matrix = normal(40, 96)
    small, full = (
        fit_lut(matrix, None, bits=bits, block_size=32, refits=4, largest_entry=largest) for largest in (largest_entry, 127)
    )
    entries = small.factor.arrays["codebooks"].astype(int)
    assert abs(entries).max() == 127 if bits >= 7 else largest_entry // 2 < abs(entries).max() <= largest_entry
    assert small.relative_error < most_lost * full.relative_error
    assert small.relative_error == pytest.approx(error_of(small, matrix), rel=1e-4)


def test_importance_moves_the_error_to_unimportant_columns() -> None:
    matrix, energy = normal(64, 64), torch.ones(64)
    energy[::2] = 100
    plain = unpack(fit(matrix).factor) - matrix.numpy()
    weighted = unpack(fit(matrix, energy).factor) - matrix.numpy()
    assert np.square(weighted[:, ::2]).sum() < 0.9 * np.square(plain[:, ::2]).sum()
    assert np.square(weighted[:, 1::2]).sum() > np.square(plain[:, 1::2]).sum()


@pytest.mark.parametrize("energy", [torch.zeros(64), torch.full((64,), 7.0)], ids=["zero", "constant"])
def test_energy_without_differences_counts_for_nothing(energy: Tensor) -> None:
    matrix = normal(16, 64)
    assert np.array_equal(unpack(fit(matrix, energy).factor), unpack(fit(matrix).factor))


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_zero_blocks_and_rows_stay_exactly_zero(bits: int) -> None:
    matrix = normal(20, 96)
    matrix[3] = 0
    matrix[5, 32:64] = 0
    weights = unpack(fit(matrix, bits=bits).factor)
    assert not weights[3].any()
    assert not weights[5, 32:64].any()
    assert not unpack(fit(torch.zeros(4, 40), bits=bits).factor).any()


def test_blocks_whose_largest_weight_is_negative_have_negative_scales() -> None:
    matrix = normal(16, 64).abs()
    matrix[:, :32] *= -1
    fitted = fit(matrix)
    assert fitted.relative_error < 0.15
    assert (fitted.factor.arrays["scales"] < 0).any()


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("value", [1.0, -0.3])
def test_constant_matrices_are_kept(bits: int, value: float) -> None:
    matrix = torch.full((16, 32), value)
    assert np.abs(unpack(fit(matrix, bits=bits).factor) / value - 1).max() < 1e-6


@pytest.mark.parametrize("magnitude", [1e-30, 1e-20, 1e20, 1e36])
def test_magnitude_makes_no_difference(magnitude: float) -> None:
    matrix = normal(16, 64)
    fitted = fit(matrix * magnitude)
    assert np.isfinite(unpack(fitted.factor)).all()
    assert error_of(fitted, matrix * magnitude) < 1.05 * fit(matrix).relative_error


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_float_dtype_is_fitted(dtype: torch.dtype) -> None:
    matrix = normal(16, 64).to(dtype)
    assert np.array_equal(unpack(fit(matrix).factor), unpack(fit(matrix.float()).factor))


def test_twice_the_same_bytes() -> None:
    first, second = (fit(normal(32, 64), torch.arange(64.0)).factor for _ in range(2))
    assert all(np.array_equal(first.arrays[name], second.arrays[name]) for name in first.arrays)


class Tied(nn.Module):
    """An embedding and a head that share a weight, a linear layer, two convolutions, one of them depthwise."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(48, 64)
        self.fc = nn.Linear(64, 64)
        self.conv = nn.Conv2d(48, 32, 3)
        self.depthwise = nn.Conv2d(32, 32, 3, groups=32)
        self.head = nn.Linear(64, 48, bias=False)
        self.head.weight = self.table.weight


def context_of(model: nn.Module, *batches: Sequence[Tensor]) -> PassContext:
    samples = [Batch(f"sample {number}", batch) for number, batch in enumerate(batches)]
    return PassContext(model, find_layers(model), samples, ProgressBar(quiet=True))


def run_on(draft: Draft, context: PassContext, **settings: Any) -> None:
    run_passes([LutKmeans(LutKmeansConfig(**settings))], draft, context)


def run_pass(**settings: Any) -> Draft:
    model = Tied()
    draft = draft_of(model)
    run_on(draft, context_of(model), **{"weighting": "none", "refits": 0, "bits": 2, **settings})
    return draft


def bits_of(draft: Draft) -> dict[str, int]:
    return {name.removesuffix(".weight"): factor.attributes["bits"] for name, factor in draft.factors.items()}


def test_every_matrix_that_gets_smaller_is_packed_once() -> None:
    draft = run_pass()
    assert bits_of(draft) == {"table": 2, "fc": 2, "conv": 2, "depthwise": 8}  # the head is the table's
    assert bits_of(run_pass(narrow_bits=3))["depthwise"] == 3
    assert {name for name, factor in draft.factors.items() if factor.format == "lut_narrow"} == {"depthwise.weight"}
    assert not draft.matrices
    assert draft.records.keys() == draft.factors.keys()


def test_settings_by_name_and_by_kind_of_layer() -> None:
    draft = run_pass(layers=[{"match": ["f*"], "bits": 5}, {"ops": ["conv"], "bits": 3, "narrow_bits": 3}])
    assert bits_of(draft) == {"table": 2, "fc": 5, "conv": 3, "depthwise": 3}
    tied = run_pass(layers=[{"match": ["table", "head"], "bits": 6, "block_size": 64}])
    assert tied.factors["table.weight"].attributes == {"bits": 6, "block_size": 64}


def test_the_last_match_counts_and_keeps_what_it_leaves_out() -> None:
    draft = run_pass(layers=[{"match": ["fc"], "bits": 5, "block_size": 64}, {"match": ["*"], "bits": 3}])
    assert draft.factors["fc.weight"].attributes == {"bits": 3, "block_size": 64}


def test_skipped_layers_stay() -> None:
    draft = run_pass(skip=["fc", "conv*"])
    assert set(draft.matrices) == {"fc.weight", "conv.weight"}


@pytest.mark.parametrize("settings", [{"skip": ["encoder.*"]}, {"layers": [{"match": ["fc", "encoder.*"]}]}])
def test_patterns_that_fit_nothing_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"'encoder\.\*' fits none.*table, fc"):
        run_pass(**settings)


@pytest.mark.parametrize("group", [{"match": ["head"]}, {"match": ["table"]}, {"ops": ["gather"]}])
def test_tied_layers_have_what_fits_any_of_them(group: dict[str, Any]) -> None:
    assert bits_of(run_pass(layers=[{**group, "bits": 5}]))["table"] == 5
    both = run_pass(layers=[{"match": ["table"], "bits": 5}, {"match": ["head"], "bits": 3}])
    assert bits_of(both)["table"] == 3  # the last one counts
    assert "table.weight" in run_pass(skip=["head"]).matrices


def test_a_block_size_is_halved_for_layers_that_it_does_not_divide() -> None:
    model = nn.ModuleDict(
        {"wide": nn.Linear(256, 16), "odd": nn.Linear(300, 16), "narrow": nn.Linear(72, 16)}
    )  # padded: 320 and 96
    draft = draft_of(model)
    run_on(draft, context_of(model), weighting="none", refits=0, bits=2, block_size=128)
    block_sizes = {name.removesuffix(".weight"): factor.attributes["block_size"] for name, factor in draft.factors.items()}
    assert block_sizes == {"wide": 128, "odd": 64, "narrow": 32}


def test_a_block_size_that_does_not_fit_is_refused_before_any_work() -> None:
    model = Tied()
    draft = draft_of(model)
    with pytest.raises(ConfigError, match=r"layer table.*block_size=96.*fit: \[32, 64\]"):
        run_on(draft, context_of(model), block_size=96)  # not even calibration is missed
    assert not draft.factors


def test_missing_calibration_is_refused_before_any_work() -> None:
    model = Tied()
    draft = draft_of(model)
    with pytest.raises(CalibrationError, match="--calibration"):
        run_on(draft, context_of(model), refits=0)
    assert not draft.factors


def test_weighting_by_activations_needs_calibration_that_reaches_the_layers() -> None:
    with pytest.raises(CalibrationError, match="--calibration"):
        run_pass(weighting="activations", skip=["table", "head"])
    model = nn.Sequential()
    model.fc, model.conv = nn.Linear(64, 64), nn.Conv2d(32, 32, 3)
    draft = draft_of(model)
    model.forward = lambda x: model.fc(x)  # type: ignore[method-assign]
    context = context_of(model, [torch.ones(1, 64)])
    with pytest.raises(CalibrationError, match=r'conv was never called.*skip = \["conv"\]'):
        run_on(draft, context, bits=2, refits=0)
    assert not draft.factors


def test_a_layer_that_no_sample_reaches_is_refused_before_any_pass_runs() -> None:
    model = nn.Sequential()
    model.fc, model.rare, model.never, model.idle = (nn.Linear(64, 64) for _ in range(4))
    model.forward = lambda x: model.rare(x) if x.sum() < 0 else model.fc(x)  # type: ignore[method-assign]
    first, second = torch.ones(1, 64), -torch.ones(1, 64)
    draft = draft_of(model)
    passes = [
        LutKmeans(LutKmeansConfig(layers=[], skip=skip, weighting=w))
        for skip, w in ((["never", "idle"], "none"), ([], "activations"))
    ]
    with pytest.raises(CalibrationError, match=r'never, idle were never called.*reach them.*skip = \["never", "idle"\]'):
        run_passes(passes, draft, context_of(model, [first], [second]))
    assert not draft.factors
    with pytest.raises(CalibrationError, match="rare was never called"):
        run_on(draft, context_of(model, [first]), skip=["never", "idle"])
    assert not draft.factors
    run_on(draft, context_of(model, [first], [second]), skip=["never", "idle"], bits=2, refits=0)
    assert list(draft.factors) == ["fc.weight", "rare.weight"]


def test_a_hessian_is_let_go_of_before_the_next_block_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)) for _ in range(3))).eval()
    fitted: list[weakref.ref[Tensor]] = []
    fit_one = LutKmeans._fit
    alive: list[int] = []

    def noting(self: LutKmeans, matrix: Tensor, importance: Tensor, *arguments: Any, **keywords: Any) -> FinishedFactor:
        assert importance.shape == (64, 64)
        fitted.append(weakref.ref(importance))
        return fit_one(self, matrix, importance, *arguments, **keywords)

    monkeypatch.setattr(LutKmeans, "_fit", noting)
    model.register_forward_pre_hook(lambda *_: alive.append(sum(reference() is not None for reference in fitted)))
    for block in model:
        block.register_forward_pre_hook(lambda *_: alive.append(sum(reference() is not None for reference in fitted)))
    run_on(draft_of(model), context_of(model, [torch.randn(8, 64)]), weighting="hessian")
    assert len(fitted) == 6
    assert set(alive) == {0}


def test_padding_channels_of_a_convolution_neither_count_nor_cost() -> None:
    model = nn.Sequential(nn.Conv2d(24, 32, 3, bias=False))
    draft = draft_of(model)
    run_on(draft, context_of(model), bits=1, refits=2, weighting="none")
    factor = draft.factors["0.weight"]
    codes = lut.unpack_codes(factor).reshape(32, 9, 32)
    assert (codes[:, :, 24:] == lut.padding_codes(factor.arrays["codebooks"], 1)[0]).all()
    kernel = model[0].weight.detach().permute(0, 2, 3, 1).numpy()
    difference = unpack(factor).reshape(32, 3, 3, 32)[..., :24] - kernel
    recorded = draft.records["0.weight"]["relative_error"]
    assert recorded == pytest.approx(float(np.linalg.norm(difference) / np.linalg.norm(kernel)), rel=1e-4)
    assert recorded < 0.6  # of a uniform distribution; zeros among the weights would spoil the codebook


def test_a_later_stage_has_columns_of_its_own() -> None:
    """Three convolution stages, of which the last has more channels than the layer: none of its columns is lost."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(52, 48, 3, padding=1, bias=False))
    shapes = [ConvParams(52, (1, 1)), ConvParams(64, (3, 3), padding=(1, 1, 1, 1), groups=64), ConvParams(64, (1, 1))]
    draft = draft_of(model)
    draft.plans["0"] = replace(draft.plans["0"], terms=(tuple(Stage(f"f{i}", "conv", conv) for i, conv in enumerate(shapes)),))
    draft.matrices = {
        f"f{i}": ConvColumns(conv).matrix(torch.randn(n, conv.in_channels // conv.groups, *conv.kernel_size))
        for i, (conv, n) in enumerate(zip(shapes, [64, 64, 48], strict=True))
    }
    kernels = {name: matrix.clone() for name, matrix in draft.matrices.items()}
    config = LutKmeans(LutKmeansConfig(bits=8, refits=1, weighting="none"))
    config.run(draft, context_of(model))
    assert {name: factor.format for name, factor in draft.factors.items()} == {"f0": "lut", "f1": "lut_narrow", "f2": "lut"}
    for name, conv in zip(draft.factors, shapes, strict=True):
        columns = ConvColumns(conv)
        packed = columns.kernel(torch.from_numpy(unpack(draft.factors[name])))
        expected = columns.kernel(kernels[name])
        assert float((packed - expected).norm() / expected.norm()) < 0.01


def test_an_error_that_a_pass_does_not_see_is_found() -> None:
    """A mask that hides columns from the fit hides them from its own error; the check knows no mask."""
    draft = draft_of(nn.Sequential(nn.Linear(64, 32)))
    matrix = draft.matrices["0.weight"]
    real = torch.arange(64) < 40
    fit = fit_lut(matrix, None, bits=8, block_size=32, refits=1, real=real)
    assert fit.relative_error < 0.01
    with pytest.raises(
        FormatError, match=r"0\.weight must unpack to its matrix within the relative error 0\.00.*fault of the pass"
    ):
        draft.finish("0.weight", fit.factor, {"relative_error": fit.relative_error})
    assert "0.weight" in draft.matrices


def test_candidates_tell_bytes_and_errors_before_anything_runs() -> None:
    model = Tied()
    draft = draft_of(model)
    candidates = LutKmeans(LutKmeansConfig(refits=0, weighting="none")).candidates(draft, context_of(model), "fc")
    assert [candidate.settings["bits"] for candidate in candidates] == list(range(1, 9))
    for less, more in itertools.pairwise(candidates):
        assert (less.packed_bytes <= more.packed_bytes, less.relative_error > more.relative_error) == (True, True)
    run_on(draft, context_of(model), bits=4, refits=0, weighting="none")
    assert draft.factors["fc.weight"].packed_bytes == candidates[3].packed_bytes
    assert draft.records["fc.weight"]["relative_error"] == pytest.approx(candidates[3].relative_error, rel=0.05)


def test_layers_that_would_not_become_smaller_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    model = nn.Sequential(nn.Linear(32, 4), nn.Linear(64, 64))
    draft = draft_of(model)
    context = replace(context_of(model), progress=ProgressBar(quiet=False))
    run_on(draft, context, weighting="none", refits=0)
    assert "leaves as they are, since packed they would not be smaller: 0\n" in capsys.readouterr().err
    assert [*draft.matrices] == ["0.weight"]
