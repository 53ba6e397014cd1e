"""Whole models: compressed, saved, loaded; the original untouched."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
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
from edgecomp.columns import ConvColumns
from edgecomp.draft import Draft
from edgecomp.errors import CalibrationError, ConfigError, ModelError
from edgecomp.formats import unpack
from edgecomp.models import load_model
from edgecomp.modules import PackedLayer
from edgecomp.passes import PASSES, PassContext
from edgecomp.passes.lut_kmeans import LutKmeansConfig
from edgecomp.trust import NOBODY, Trust


def recipe(bits: int = 4, **settings: Any) -> dict[str, Any]:
    """A quick recipe; settings of the recipe itself are given as top_NAME."""
    top = {name.removeprefix("top_"): settings.pop(name) for name in list(settings) if name.startswith("top_")}
    return {"version": 1, **top, "passes": [{"method": "lut-kmeans", "bits": bits, "refits": 1, **settings}]}


IMAGES = list(tiny_models.images())


def relative_error(got: Tensor, expected: Tensor) -> float:
    return float((got - expected).detach().norm() / expected.detach().norm())


def outputs(module: nn.Module, sample: Sample) -> Tensor:
    with torch.no_grad():
        y: Tensor = module(*map(torch.from_numpy, sample.values()))
    return y


def test_a_module_is_compressed_and_left_as_it_was() -> None:
    model = tiny_models.convolutional().train()
    model.norm.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    expected = outputs(copy.deepcopy(model).eval(), IMAGES[0])
    packed = edgecomp.compress(model, recipe(8), IMAGES)
    assert relative_error(packed(IMAGES[0])[0], expected) < 0.02
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(outputs(copy.deepcopy(model).eval(), IMAGES[0]), expected)
    assert (model.training, model.head.training, model.norm.training) == (True, True, False)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_compress_stays_callable_after_its_first_use() -> None:
    for _ in range(2):
        edgecomp.compress(tiny_models.tied_tokens(), recipe(2, weighting="none"), tiny_models.tokens())


def test_error_falls_with_the_bits() -> None:
    model = tiny_models.convolutional().eval()
    expected = outputs(model, IMAGES[0])
    packed = [edgecomp.compress(model, recipe(bits, weighting="none", compute="float"), IMAGES) for bits in (2, 4, 8)]
    errors = [relative_error(each(IMAGES[0])[0], expected) for each in packed]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.01


def test_layers_keep_the_order_of_the_model() -> None:
    packed = edgecomp.compress(tiny_models.convolutional(), recipe(3), IMAGES)
    assert list(packed.plans) == ["stem", "same", "grouped", "depthwise", "first", "second", "head"]
    formats = {name.removesuffix(".weight"): factor.format for name, factor in packed.factors.items()}
    assert formats == {
        "stem": "lut_narrow",
        "same": "lut",
        "grouped": "lut",
        "depthwise": "lut_narrow",
        "first": "lut",
        "head": "lut",
    }
    assert "norm.running_mean" in packed.dense
    assert not {"stem.weight", "depthwise.weight"} & set(packed.dense)
    assert not {"same.weight", "first.weight", "second.weight"} & set(packed.dense)


def test_packed_kernels_are_near_the_original_ones() -> None:
    model = tiny_models.convolutional()
    packed = edgecomp.compress(model, recipe(8), IMAGES)
    for name in ("stem", "same", "grouped", "depthwise"):
        stage = packed.plans[name].terms[0][0]
        assert stage.conv is not None
        kernel = ConvColumns(stage.conv).kernel(torch.from_numpy(unpack(packed.factors[stage.factor])))
        assert relative_error(kernel, model.get_submodule(name).weight) < 0.01


def test_a_tied_weight_is_stored_once(tmp_path: Path) -> None:
    packed = edgecomp.compress("tiny_models:tied_tokens", recipe(), "tiny_models:tokens")
    assert list(packed.factors) == ["table.weight", "fc.weight"]
    assert set(packed.dense) == {"fc.bias"}
    packed.save(tmp_path / "m.ec")
    body = edgecomp.load(tmp_path / "m.ec", model="tiny_models:tied_tokens").module
    assert body.table.factor("table.weight") is body.head.factor("table.weight")


def test_attention_with_its_own_projections_is_packed_too() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(64, 2, batch_first=True)
            self.fc = nn.Linear(64, 64)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.fc(self.attention(x, x, x, need_weights=False)[0])
            return y

    torch.manual_seed(0)
    model, sample = Block().eval(), {"x": np.random.default_rng(0).standard_normal((2, 5, 64)).astype(np.float32)}
    packed = edgecomp.compress(model, recipe(8), [sample])
    assert sorted(packed.plans) == [*(f"attention.{name}_proj" for name in ("k", "out", "q", "v")), "fc"]
    assert relative_error(packed(sample)[0], outputs(model, sample)) < 0.02


def test_transformer_layers_of_torch_run_packed() -> None:
    torch.manual_seed(0)
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(64, 2, 96, batch_first=True), 2).eval()
    sample = {"src": np.random.default_rng(0).standard_normal((2, 5, 64)).astype(np.float32)}
    packed = edgecomp.compress(model, recipe(8), [sample])
    names = (*(f"self_attn.{name}_proj" for name in ("k", "out", "q", "v")), "linear1", "linear2")
    assert sorted(packed.plans) == sorted(f"layers.{i}.{name}" for i in (0, 1) for name in names)
    assert relative_error(packed(sample)[0], outputs(model, sample)) < 0.02


def test_a_pass_over_other_layers_keeps_the_rest_exact() -> None:
    model = tiny_models.tied_tokens().eval()
    packed = edgecomp.compress(model, recipe(2, skip=["table", "head"], top_dense_dtype="float32"), tiny_models.tokens())
    assert list(packed.plans) == ["fc"]
    ids = torch.arange(96)
    assert torch.equal(packed.module.table(ids), model.table(ids))
    assert packed.module.head.weight is packed.module.table.weight


@pytest.mark.parametrize(
    ("make", "samples"), [(tiny_models.convolutional, IMAGES), (tiny_models.tied_tokens, tiny_models.tokens())]
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_module_of_another_precision_is_compressed_as_its_float32_values(
    make: Callable[[], nn.Module], samples: list[Sample], dtype: torch.dtype
) -> None:
    module = make().eval().to(dtype)
    packed = edgecomp.compress(module, recipe(3), samples)
    expected = edgecomp.compress(make().eval().to(dtype).float(), recipe(3), samples)
    assert {tensor.dtype for tensor in module.parameters()} == {dtype}
    assert {tensor.dtype for tensor in packed.module.parameters()} == {torch.float32}
    assert torch.equal(packed(samples[0])[0], expected(samples[0])[0])
    assert packed.dense.keys() == expected.dense.keys()
    assert all(torch.equal(tensor, expected.dense[name]) for name, tensor in packed.dense.items())


def test_a_compressed_copy_takes_no_memory_for_what_is_filled_in() -> None:
    model = tiny_models.tied_tokens()
    packed = edgecomp.compress(model, recipe(8, skip=["table", "head"], top_dense_dtype="float32"), tiny_models.tokens())
    assert packed.dense["table.weight"].data_ptr() == model.table.weight.data_ptr()
    assert packed.module.table.weight.data_ptr() == model.table.weight.data_ptr()


def test_provenance_names_the_files_or_the_tensors_of_the_source(llama_folder: str, text_file: str) -> None:
    packed = edgecomp.compress(llama_folder, recipe(8), text_file, samples=1, sequence_length=8)
    expected = {
        name: hashlib.sha256(Path(llama_folder, name).read_bytes()).hexdigest() for name in ("config.json", "model.safetensors")
    }
    assert packed.provenance["source"] == expected
    loaded = load_model(llama_folder)
    first = edgecomp.compress(loaded, recipe(8), text_file, samples=1, sequence_length=8).provenance["source"]
    loaded.module.get_parameter("body.model.norm.weight").data[0] += 1
    second = edgecomp.compress(loaded, recipe(8), text_file, samples=1, sequence_length=8).provenance["source"]
    assert first.keys() == second.keys() == {"tensors"}
    assert first != second


def test_weights_that_are_not_finite_are_refused() -> None:
    model = tiny_models.tied_tokens()
    model.fc.weight.data[0, 0] = torch.nan
    with pytest.raises(ModelError, match=r"fc\.weight holds 1 NaN"):
        edgecomp.compress(model, recipe(weighting="none"), tiny_models.tokens())


class Gains(nn.Module):
    """A layer between a gain and a bound that float16 holds neither of, and a head that stays dense."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.head = nn.Linear(64, 64), nn.Linear(64, 8, bias=False)
        self.gain = nn.Parameter(torch.tensor(2e-8))
        self.register_buffer("eps", torch.tensor(1e-8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc(x) * 1e8 * self.gain
        y: Tensor = self.head(x) / (self.head(x).abs() + self.eps)
        return y


def test_what_float16_loses_stays_float32_and_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    model = Gains()
    model.fc.bias.data[0] = 1e6
    settings = recipe(8, compute="float", weighting="none", skip=["head"], top_dense_dtype="float16")
    packed = edgecomp.compress(model, settings, [X], quiet=False)
    said = capsys.readouterr().err
    assert "3 dense tensors stay float32" in said
    for name in ("gain (of 1 values 1 become 0)", "eps (of 1 values 1 become 0)", "fc.bias (of 64 values 1 become infinite)"):
        assert name in said
    assert {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in packed.dense.items()} == {
        "gain": "float32",
        "eps": "float32",
        "fc.bias": "float32",
        "head.weight": "float16",
    }
    assert packed.provenance["dense"]["gain"]["zeroed"] == 1
    assert 0 < packed.provenance["dense"]["head.weight"]["relative_error"] < 2**-11
    outputs = packed(X)[0]
    torch.testing.assert_close(outputs, model(torch.from_numpy(X["x"])), rtol=1e-2, atol=0)


def test_values_beyond_float32_are_refused_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_models.tied_tokens()
    model.fc.bias = nn.Parameter(torch.full((64,), 1e300, dtype=torch.float64))
    monkeypatch.setattr(PASSES["lut-kmeans"], "run", lambda *_: pytest.fail("no pass may run"))
    with pytest.raises(ModelError, match=r"fc\.bias must hold values of float32"):
        edgecomp.compress(model, recipe(), tiny_models.tokens())


def test_complex_tensors_are_refused_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_models.tied_tokens()
    model.register_buffer("frequencies", torch.ones(4, dtype=torch.complex64))
    monkeypatch.setattr(PASSES["lut-kmeans"], "run", lambda *_: pytest.fail("no pass may run"))
    with pytest.raises(ModelError, match="frequencies holds complex numbers"):
        edgecomp.compress(model, recipe(), tiny_models.tokens())


class Idle(nn.Module):
    """Has a layer that it never calls."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(64, 64), nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.used(x)
        return y


X = {"x": np.ones((1, 64), np.float32)}


@pytest.mark.parametrize(
    ("model", "calibration", "message"),
    [
        ("tiny_models:described", None, "--set passes.0.weighting=none .*needs calibration inputs: give --calibration"),
        ("tiny_models:convolutional", None, "inputs of this model are unknown"),
        ("tiny_models:described", [], "at least one sample"),
        ("tiny_models:described", "missing.npz", "missing.npz"),
        (
            "tiny_models:described",
            [{"picture": IMAGES[0]["image"]}],
            r"hold the inputs \['image'\] of the model; sample 0 holds \['picture'\]",
        ),
        ("tiny_models:convolutional", [X], r"fails on float32 \[1, 64\]"),
    ],
)
def test_calibration_that_cannot_serve_is_refused(model: str | nn.Module, calibration: Any, message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        edgecomp.compress(model, recipe(), calibration)


def test_layers_that_nothing_depends_on_are_left_out() -> None:
    packed = edgecomp.compress(Idle(), recipe(), [X])
    assert (list(packed.plans), packed.unused) == (["used"], ["unused"])
    with pytest.raises(CalibrationError, match="unused was never called"):
        edgecomp.compress(Idle(), recipe(), [X], exportable=False)


def test_calibration_text_must_fill_a_window(llama_folder: str, text_file: str) -> None:
    with pytest.raises(CalibrationError, match="at least one window of 100000 tokens"):
        edgecomp.compress(llama_folder, recipe(), text_file, sequence_length=100_000)


@pytest.mark.parametrize("options", [{"samples": 0}, {"sequence_length": 1}])
def test_impossible_amounts_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=r"\(--samples\) must be at least 1 and sequence_length \(--sequence-length\) at least 2"):
        edgecomp.compress("tiny_models:described", recipe(), IMAGES, **options)  # type: ignore[arg-type]


def test_samples_beyond_the_count_are_not_used() -> None:
    few = edgecomp.compress("tiny_models:described", recipe(), IMAGES, samples=1)
    assert few.provenance["calibration"]["samples"] == 1
    same = edgecomp.compress("tiny_models:described", recipe(), IMAGES[:1])
    assert few.provenance["calibration"] == same.provenance["calibration"]


def test_a_module_is_saved_and_loaded_into_another(tmp_path: Path) -> None:
    packed = edgecomp.compress(tiny_models.tied_tokens(), recipe(2), tiny_models.tokens())
    other = tiny_models.tied_tokens()
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    assert_survives_saving(packed, tiny_models.tokens()[0], tmp_path, other)
    assert all(torch.equal(tensor, before[name]) for name, tensor in other.state_dict().items())


def assert_survives_saving(
    packed: CompressedModel, sample: Sample, folder: Path, model: str | nn.Module | None = None, trust: Trust = NOBODY
) -> CompressedModel:
    """Saving and loading changes no bit of the outputs."""
    packed.save(folder / "m.ec")
    loaded = edgecomp.load(folder / "m.ec", model=model, trust=trust)
    for got, expected in zip(loaded(sample), packed(sample), strict=True):
        assert torch.equal(got, expected)
    assert (loaded.inputs, loaded.outputs, loaded.kind) == (packed.inputs, packed.outputs, packed.kind)
    assert (loaded.plans, loaded.recipe, loaded.provenance) == (packed.plans, packed.recipe, packed.provenance)
    return loaded


@pytest.mark.parametrize("architecture", ["bert", "llama", "gpt2"])
def test_hugging_face_models(request: pytest.FixtureRequest, tmp_path: Path, text_file: str, architecture: str) -> None:
    folder = request.getfixturevalue(f"{architecture}_folder")
    packed = edgecomp.compress(folder, recipe(8), text_file, samples=4, sequence_length=16)
    original = load_model(folder)
    sample = original.samples(text_file, count=1, sequence_length=12)[0]
    assert relative_error(packed(sample)[0], original(sample)[0]) < 0.05
    linear = {"bert": 12, "llama": 14, "gpt2": 8}[architecture]
    assert sum(isinstance(module, PackedLayer) for module in packed.module.modules()) >= linear
    loaded = assert_survives_saving(packed, sample, tmp_path)
    assert loaded.tokenizer is not None
    assert loaded.tokenizer("the fox")["input_ids"] == original.tokenizer("the fox")["input_ids"]


def test_a_factory_and_its_checkpoint(tmp_path: Path) -> None:
    packed = edgecomp.compress("tiny_models:convolutional", recipe(3), "tiny_models:images")
    loaded = assert_survives_saving(packed, IMAGES[1], tmp_path, "tiny_models:convolutional")
    assert loaded.source == {"kind": "factory", "model": "tiny_models:convolutional"}


@pytest.mark.parametrize(
    ("make", "sample"), [(tiny_models.convolutional, IMAGES[0]), (tiny_models.tied_tokens, tiny_models.tokens()[0])]
)
def test_an_exported_program_and_its_checkpoint(tmp_path: Path, make: Callable[[], nn.Module], sample: Sample) -> None:
    module = make().eval()
    (value,) = map(torch.from_numpy, sample.values())
    program = torch.export.export(module, (value,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    path = tmp_path / "model.pt2"
    torch.export.save(program, path)
    trusted = Trust(code=True)
    name = load_model(str(path), trusted).inputs[0].name
    sample = {name: value.numpy()}
    packed = edgecomp.compress(str(path), recipe(8), [sample], trust=trusted)
    assert len(packed.factors) == len(edgecomp.compress(make(), recipe(8), [sample]).factors)
    assert relative_error(packed(sample)[0], outputs(module, sample)) < 0.03
    assert_survives_saving(packed, sample, tmp_path, str(path), trusted)


def test_twice_the_same_checkpoint(tmp_path: Path, bert_folder: str, text_file: str) -> None:
    files = []
    for name in ("first.ec", "second.ec"):
        edgecomp.compress(bert_folder, recipe(3), text_file, samples=4, sequence_length=16).save(tmp_path / name)
        files.append({str(p.relative_to(tmp_path / name)): p.read_bytes() for p in (tmp_path / name).rglob("*") if p.is_file()})
    assert files[0] == files[1]


def test_outputs_are_named_without_calibration(tmp_path: Path) -> None:
    packed = edgecomp.compress("tiny_models:described", recipe(4, weighting="none"))
    assert packed.outputs == ("output",)


def test_a_matrix_that_a_pass_replaced_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    class Zero:
        Config = LutKmeansConfig

        def __init__(self, config: object) -> None: ...

        def prepare(self, draft: Draft, context: PassContext) -> None: ...

        def requires(self, draft: Draft) -> None: ...

        def run(self, draft: Draft, context: PassContext) -> None:
            draft.matrices = {name: torch.zeros_like(matrix) for name, matrix in draft.matrices.items()}
            draft.tensors["fc.bias"] = torch.full((64,), 2.0)

        def ensures(self, draft: Draft) -> None: ...

    monkeypatch.setitem(PASSES, "lut-kmeans", Zero)
    packed = edgecomp.compress(tiny_models.tied_tokens(), recipe(4), tiny_models.tokens())
    assert {factor.format for factor in packed.factors.values()} == {"dense"}
    assert not packed(tiny_models.tokens()[0])[0].any()
    assert (packed.dense["fc.bias"] == 2).all()


class Scaled(nn.Module):
    """A buffer decides what it gives that no file holds."""

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(32, 32)
        self.register_buffer("scale", scale, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(x.float().reshape(-1, 32) * self.scale.real)
        return y


def test_digests_tell_buffers_shapes_and_dtypes_apart() -> None:
    flat = np.arange(64, dtype=np.float32)
    samples = [flat.reshape(2, 32), flat.reshape(2, 4, 8), flat.reshape(2, 32).view(np.int32)]
    scales = [torch.tensor(1.0), torch.tensor(2.0), torch.tensor(1.0 + 1.0j)]
    settings = recipe(8, weighting="none")
    models = [edgecomp.compress(Scaled(scales[0]), settings, [{"x": sample}]) for sample in samples]
    models += [edgecomp.compress(Scaled(scale), settings, [{"x": samples[0]}]) for scale in scales[1:]]
    assert len({model.provenance["calibration"]["sha256"] for model in models}) == 3
    assert len({model.provenance["source"]["tensors"] for model in models}) == 3


@pytest.mark.parametrize(
    ("passes", "message"),
    [
        ([{"method": "lut-kmeans"}, {"method": "lut-kmeans"}], "the passes before it have left none"),
        ([{"method": "lut-kmeans", "bits": 8}, {"method": "jlcm", "dense_rate": 0.0}], "those of 1 to 6 bits, and there is none"),
    ],
)
def test_passes_without_work_are_refused_before_anything_runs(
    passes: list[dict[str, Any]], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PASSES["lut-kmeans"], "run", lambda *_: pytest.fail("no pass may run"))
    with pytest.raises(ConfigError, match=message):
        edgecomp.compress(tiny_models.tied_tokens(), {"version": 1, "passes": passes}, tiny_models.tokens())


def test_a_second_pass_may_pack_what_the_first_has_left() -> None:
    passes = [
        {"method": "lut-kmeans", "bits": 8, "skip": ["fc"]},
        {"method": "lut-kmeans", "bits": 2},
        {"method": "jlcm", "steps": 1},
    ]
    packed = edgecomp.compress(tiny_models.tied_tokens(), {"version": 1, "passes": passes}, tiny_models.tokens())
    assert {name: factor.attributes["bits"] for name, factor in packed.factors.items()} == {"table.weight": 8, "fc.weight": 2}
