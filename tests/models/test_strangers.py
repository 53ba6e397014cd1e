"""What strangers bring: heads, folders without tokenizer, encoders of T5, files that are no models, outputs of any structure."""

from __future__ import annotations

import json
import logging
import shutil
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import edgecomp
from edgecomp.errors import CalibrationError, ModelError
from edgecomp.exported.session import OnnxModel
from edgecomp.exporters import ExportOptions, export
from edgecomp.models import load_model
from edgecomp.models.base import LoadedModel
from edgecomp.models.bound import named_tensors
from edgecomp.tensor import TensorSpec

transformers = pytest.importorskip("transformers")

SETTINGS = ["passes.0.weighting=none", "passes.0.refits=1", "passes.0.compute=float"]
SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
BERT = {**SMALL, "max_position_embeddings": 64}
T5 = {"d_model": 64, "d_kv": 32, "d_ff": 128, "num_layers": 2, "num_heads": 2}
IDS = np.array([[5, 17, 3, 40, 8]])
SAMPLE = {"input_ids": IDS, "attention_mask": np.ones_like(IDS)}
HEADS = {
    "BertForMaskedLM": ("BertConfig", BERT, ["logits"]),
    "AlbertForMaskedLM": ("AlbertConfig", {**BERT, "embedding_size": 32}, ["logits"]),
    "BertForSequenceClassification": ("BertConfig", {**BERT, "num_labels": 3}, ["logits"]),
    "BertForTokenClassification": ("BertConfig", {**BERT, "num_labels": 3}, ["logits"]),
    "BertForQuestionAnswering": ("BertConfig", BERT, ["start_logits", "end_logits"]),
    "T5EncoderModel": ("T5Config", T5, ["last_hidden_state"]),
}


def saved(architecture: str, folder: Path, *, tokenizer: bool = True) -> Path:
    config, options, _ = HEADS[architecture]
    size = tiny_models.save_tokenizer(folder) if tokenizer else 120
    torch.manual_seed(0)
    model = getattr(transformers, architecture)(getattr(transformers, config)(vocab_size=size, **options))
    model.save_pretrained(folder)
    return folder


def test_an_encoder_of_t5_loads_as_such(tmp_path: Path) -> None:
    folder = saved("T5EncoderModel", tmp_path)
    original = transformers.T5EncoderModel.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = original(**{name: torch.from_numpy(value) for name, value in SAMPLE.items()})
    loaded = load_model(str(folder))
    assert loaded.source["architecture"] == "T5EncoderModel"
    np.testing.assert_allclose(loaded.run(SAMPLE)["last_hidden_state"], expected.last_hidden_state, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", HEADS)
def test_a_model_keeps_its_head_to_the_exported_file(architecture: str, tmp_path: Path) -> None:
    folder = saved(architecture, tmp_path / "model")
    original = getattr(transformers, architecture).from_pretrained(folder).eval()
    with torch.no_grad():
        expected = original(**{name: torch.from_numpy(value) for name, value in SAMPLE.items()})
    names = HEADS[architecture][2]
    loaded = load_model(str(folder))
    assert list(loaded.outputs) == names
    for name, value in loaded.run(SAMPLE).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-5)
    edgecomp.compress(str(folder), "lut-8bit", overrides=SETTINGS).save(tmp_path / "m.ec")
    packed = edgecomp.load(tmp_path / "m.ec")
    export(packed, "onnx", tmp_path / "m.onnx")
    outputs, reference = OnnxModel(tmp_path / "m.onnx").run(SAMPLE), packed.run(SAMPLE)
    assert list(outputs) == names
    for name, value in outputs.items():
        np.testing.assert_allclose(value, reference[name], rtol=1e-3, atol=1e-4)
        difference = np.linalg.norm(value - expected[name].numpy()) / np.linalg.norm(expected[name])
        assert 0 < difference < 0.05  # 8 bits


def test_models_of_other_kinds_are_refused_by_what_they_are(tmp_path: Path) -> None:
    size = tiny_models.save_tokenizer(tmp_path / "t5")
    transformers.T5ForConditionalGeneration(transformers.T5Config(vocab_size=size, **T5)).save_pretrained(tmp_path / "t5")
    with pytest.raises(ModelError, match=r"got T5ForConditionalGeneration: it has an encoder and a decoder.*T5EncoderModel"):
        load_model(str(tmp_path / "t5"))
    config = transformers.CLIPConfig(text_config={**BERT, "vocab_size": 120}, vision_config={**SMALL, "image_size": 32})
    transformers.CLIPModel(config).save_pretrained(tmp_path / "clip")
    with pytest.raises(ModelError, match=r"got 'clip'.*factory"):
        load_model(str(tmp_path / "clip"))
    folder = saved("BertForMaskedLM", tmp_path / "bert")
    described = json.loads((folder / "config.json").read_text())
    for architectures, message in ((["BertForMultipleChoice"], "its head is of another kind"), (None, "names none")):
        (folder / "config.json").write_text(json.dumps({**described, "architectures": architectures}))
        with pytest.raises(ModelError, match=message):
            load_model(str(folder))


@pytest.mark.parametrize("left", [[], ["special_tokens_map.json", "tokenizer_config.json"]])
def test_a_folder_without_a_tokenizer_has_none_and_takes_arrays(left: list[str], tmp_path: Path, text_file: str) -> None:
    folder = saved("BertForMaskedLM", tmp_path / "model", tokenizer=False)
    if left:
        tiny_models.save_tokenizer(tmp_path / "tokenizer")
        for name in left:
            if (tmp_path / "tokenizer" / name).exists():
                shutil.copy(tmp_path / "tokenizer" / name, folder / name)
    assert load_model(str(folder)).tokenizer is None
    with pytest.raises(CalibrationError, match=r"this model has no tokenizer.*tokenizer\.json"):
        edgecomp.compress(str(folder), "lut-8bit", text_file)
    np.savez(tmp_path / "inputs.npz", **SAMPLE)
    edgecomp.compress(str(folder), "lut-8bit", str(tmp_path / "inputs.npz")).save(tmp_path / "m.ec")
    loaded = edgecomp.load(tmp_path / "m.ec")
    assert loaded.tokenizer is None
    assert loaded.run(SAMPLE)["logits"].shape == (1, 5, 120)


def save_files(folder: Path) -> None:
    module = nn.Sequential(nn.Linear(4, 4))
    torch.jit.trace(module, torch.ones(1, 4)).save(str(folder / "script.pt"))
    torch.save(module.state_dict(), folder / "state.pt")
    torch.save(module, folder / "pytorch_model.bin")
    torch.save(module.state_dict(), folder / "old.pth", _use_new_zipfile_serialization=False)
    torch.export.save(torch.export.export(module, (torch.ones(1, 4),)), str(folder / "program.zip"))
    save_file(module.state_dict(), str(folder / "model.safetensors"))
    (folder / "cut.pt").write_bytes((folder / "state.pt").read_bytes()[:200])
    (folder / "notes.ipynb").write_text("{}")
    (folder / "m.onnx").write_bytes(b"")
    (folder / "empty").mkdir()
    (folder / "weights").mkdir()
    shutil.copy(folder / "model.safetensors", folder / "weights" / "model.safetensors")
    edgecomp.compress(tiny_models.tied_tokens(), "lut-8bit", tiny_models.tokens(), overrides=SETTINGS).save(folder / "m.ec")


FILES = {
    "script.pt": r"is a TorchScript program.*torch\.jit\.load\(.script\.pt.\)\.state_dict\(\)",
    "state.pt": r"is saved by torch\.save: pickled weights.*package\.module:factory.*weights_only=True",
    "pytorch_model.bin": r"is saved by torch\.save: pickled weights, or a module",
    "old.pth": r"is saved by torch\.save",
    "program.zip": r"is a program of torch\.export, whose name must end in \.pt2: rename it to program\.pt2",
    "model.safetensors": r"weights without the module that they belong to.*config\.json",
    "cut.pt": "cut short or damaged",
    "notes.ipynb": "is no model of a kind that is read",
    "m.onnx": "is an ONNX model, and PyTorch models are compressed",
    "empty": r"must hold config\.json, and holds neither that nor weights",
    "weights": r"must hold config\.json, and holds only model\.safetensors",
    "m.ec": "is a checkpoint, which is compressed already",
}


def test_files_that_are_no_models_are_named(tmp_path: Path) -> None:
    save_files(tmp_path)
    for name, message in FILES.items():
        with pytest.raises(ModelError, match=message):
            load_model(str(tmp_path / name))


@dataclass
class Found:
    """What a detector returns."""

    boxes: Tensor
    scores: Tensor | None = None


Pair = namedtuple("Pair", "left right")


class Structured(nn.Module):
    """Returns its two results in a structure."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.one, self.two, self.kind = nn.Linear(32, 32), nn.Linear(32, 48), kind

    def forward(self, x: Tensor) -> Any:
        a, b = self.one(x), self.two(x)
        if self.kind == "dictionary":
            return {"a": a, "x": b}
        if self.kind == "dataclass":
            return Found(a, b)
        if self.kind == "none":
            return Found(a + b.sum())
        if self.kind == "output":
            return transformers.modeling_outputs.BaseModelOutput(last_hidden_state=a, hidden_states=(a, b))
        if self.kind == "named tuple":
            return Pair(a, b)
        if self.kind == "nested":
            return a, (b, [a + 1])
        return {"z": {"deep": a}, "more": [b]} if self.kind == "inside" else [a, b]


NAMES = {
    "dictionary": ["a", "x_out"],  # an input is named x
    "dataclass": ["boxes", "scores"],
    "none": ["boxes"],
    "output": ["last_hidden_state", "hidden_states", "hidden_states_1"],
    "named tuple": ["left", "right"],
    "nested": ["output", "output_1", "output_1_1"],
    "inside": ["z_deep", "more"],
    "list": ["output", "output_1"],
}
X = {"x": np.random.default_rng(0).standard_normal((2, 32)).astype(np.float32)}


@pytest.mark.parametrize("kind", NAMES)
def test_outputs_of_any_structure_are_tensors_by_name(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Structured(kind).eval()
    packed = edgecomp.compress(model, "lut-8bit", [X], overrides=SETTINGS)
    assert list(packed.outputs) == NAMES[kind]
    packed.save(tmp_path / "m.ec")
    loaded = edgecomp.load(tmp_path / "m.ec", model=model)
    expected = loaded.run(X)
    if kind != "none":
        with torch.no_grad():
            first = model.one(torch.from_numpy(X["x"]))
        np.testing.assert_allclose(expected[NAMES[kind][0]], first, rtol=0.1, atol=0.05)
    export(loaded, "onnx", tmp_path / "m.onnx")
    outputs = OnnxModel(tmp_path / "m.onnx").run(X)
    assert list(outputs) == NAMES[kind]
    for name, value in outputs.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-4)


def test_a_dataclass_is_exported_to_executorch(tmp_path: Path) -> None:
    pytest.importorskip("executorch")
    from edgecomp.exported.executorch_session import ExecutorchModel

    packed = edgecomp.compress(Structured("dataclass").eval(), "lut-8bit", [X], overrides=SETTINGS)
    export(packed, "executorch", tmp_path / "m.pte", options=ExportOptions(max_sizes={"batch": 2}))
    with ExecutorchModel(tmp_path / "m.pte") as program:
        outputs = program.run(X)
    assert list(outputs) == NAMES["dataclass"]
    for name, value in packed.run(X).items():
        np.testing.assert_allclose(outputs[name], value, rtol=1e-4, atol=1e-4)


def test_outputs_without_tensors_are_refused() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(32, 32)

        def forward(self, x: Tensor) -> Any:
            return {"y": self.fc(x), "info": {"rows": 3}}

    model = LoadedModel(Counts(), (TensorSpec("x", "float32", ("batch", 32)),), ())
    with pytest.raises(ModelError, match="info_rows is of type int: return tensors alone"):
        edgecomp.compress(model, "lut-8bit", [X])
    with pytest.raises(ModelError, match="returns none"):
        named_tensors(OrderedDict(a=None))


def test_what_a_folder_takes_for_granted_is_said_and_texts_calibrate_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = saved("BertForSequenceClassification", tmp_path)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with caplog.at_level(logging.WARNING, "edgecomp"):
        model = edgecomp.compress(folder, "lut-8bit", ["the first of texts", "the second\nof them"], overrides=SETTINGS)
    assert sum("so that token_type_ids are 0, as of single texts" in message for message in caplog.messages) == 1
    assert model.provenance["calibration"]["samples"] == 2
