"""Language models with a cache: ONNX Runtime computes from the exported folder what PyTorch does from the packed weights."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import language_models
import numpy as np
import onnx
import pytest

from edgecomp.checkpoint import CompressedModel
from edgecomp.errors import ConfigError, ExportError, OutputError
from edgecomp.exported.language_folder import ATTENTIONS, Attention
from edgecomp.exporters import ExportOptions, export
from edgecomp.native import get_library_path

ort = pytest.importorskip("onnxruntime")

PROMPT = [5, 17, 40, 3, 66, 21, 9, 33]  # longer than the windows of the families that have one
COUNT = 12


class Runner:
    """A session on an exported folder, and its cache."""

    def __init__(self, folder: Path, library: bool = True, rows: int = 1) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        if library:
            options.register_custom_ops_library(get_library_path())
        self.session = ort.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
        self.names = [spec.name for spec in self.session.get_inputs()[2:]]
        types = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int8)": np.int8}
        self.cache = {
            spec.name: np.zeros((rows, spec.shape[1], 0, spec.shape[3]), types[spec.type]) for spec in self.session.get_inputs()[2:]
        }

    def __call__(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        logits, *present = self.session.run(None, {"input_ids": ids, "attention_mask": mask, **self.cache})
        self.cache = dict(zip(self.names, present, strict=True))
        return np.asarray(logits)

    def greedy(self, prompt: list[int], count: int) -> list[int]:
        written: list[int] = []
        new = prompt
        for length in range(len(prompt), len(prompt) + count):
            logits = self(np.array([new]), np.ones((1, length), np.int64))
            written.append(int(logits[0, -1].argmax()))
            new = written[-1:]
        return written


def _long(*values: str) -> list[Any]:
    """Parameters for `make test-long` alone: each is a model to compress or to export."""
    return [pytest.param(value, marks=pytest.mark.long) for value in values]


@pytest.fixture(scope="module", params=["llama", *_long("mistral", "qwen3", "gemma", "gpt2")])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> CompressedModel:
    return language_models.compressed(tmp_path_factory.mktemp("model"), request.param)


@pytest.fixture(scope="module", params=["fused", *_long("gqa", "portable")])
def folder(request: pytest.FixtureRequest, model: CompressedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "model"
    export(model, "onnx", folder, options=ExportOptions(attention=request.param))
    return folder


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("library", [True, pytest.param(False, marks=pytest.mark.long)], ids=["library", "stock"])
def test_greedy_tokens_are_those_of_pytorch(model: CompressedModel, folder: Path, library: bool) -> None:
    assert Runner(folder, library).greedy(PROMPT, COUNT) == language_models.greedy(model, PROMPT, COUNT)


def test_a_prompt_in_two_parts(model: CompressedModel, folder: Path) -> None:
    ids = np.array([PROMPT])
    expected = language_models.logits(model, ids, np.ones_like(ids))
    runner = Runner(folder)
    parts = [runner(ids[:, :3], np.ones((1, 3), np.int64)), runner(ids[:, 3:], np.ones((1, 8), np.int64))]
    assert_close(np.concatenate(parts, 1), expected)


def test_rows_with_padding(model: CompressedModel, folder: Path) -> None:
    """Three rows padded in front, then two tokens each; PyTorch is given each row alone."""
    lengths = (8, 5, 3)
    ids, mask = np.zeros((3, 8), np.int64), np.zeros((3, 8), np.int64)
    rows = [PROMPT[:length] for length in lengths]
    for row, tokens in enumerate(rows):
        ids[row, 8 - len(tokens) :], mask[row, 8 - len(tokens) :] = tokens, 1
    runner = Runner(folder, rows=3)
    logits = runner(ids, mask)
    for _ in range(3):
        for row, tokens in enumerate(rows):
            alone = np.array([tokens])
            assert_close(logits[row, -1], language_models.logits(model, alone, np.ones_like(alone))[0, -1])
        new = logits[:, -1].argmax(-1)
        rows = [[*tokens, int(token)] for tokens, token in zip(rows, new, strict=True)]
        mask = np.concatenate([mask, np.ones((3, 1), np.int64)], 1)
        logits = runner(new[:, None], mask)


def test_names_that_runtimes_know(folder: Path) -> None:
    session = Runner(folder).session
    cache = session.get_inputs()[2]
    assert [spec.name for spec in session.get_inputs()[:4]] == [
        *("input_ids", "attention_mask", "past_key_values.0.key", "past_key_values.0.value")
    ]
    assert [spec.name for spec in session.get_outputs()[:3]] == ["logits", "present.0.key", "present.0.value"]
    assert session.get_inputs()[1].shape == ["batch", "total_sequence_length"]
    assert cache.shape[::2] == ["batch", "past_sequence_length"]
    assert session.get_outputs()[1].shape == ["batch", cache.shape[1], "total_sequence_length", cache.shape[3]]
    genai = json.loads((folder / "genai_config.json").read_text())["model"]
    assert genai["decoder"]["num_key_value_heads"] == cache.shape[1]
    assert genai["decoder"]["head_size"] == cache.shape[3]
    assert genai["context_length"] == 64
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"  # which transformers 4 knows, and Optimum with it
    assert tokenizer["model_input_names"] == ["input_ids", "attention_mask"]
    assert {"config.json", "tokenizer.json", "generation_config.json", "libedgecomp_onnxruntime.so"} <= {
        path.name for path in folder.iterdir()
    }


def nodes_at_run_time(folder: Path, target: Path) -> Counter[str]:
    """What ONNX Runtime makes of the model."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.register_custom_ops_library(get_library_path())
    options.optimized_model_filepath = str(target)
    ort.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(target, load_external_data=False).graph.node)


@pytest.mark.long
@pytest.mark.parametrize(
    ("attention", "nodes"), [("fused", {"KVAppendFloat32": 4, "KVAttentionFloat32": 2}), ("gqa", {"GroupQueryAttention": 2})]
)
def test_few_nodes_a_layer(tmp_path: Path, attention: Attention, nodes: dict[str, int]) -> None:
    """Products of q, k and v, of the output, of gate and up, and down; attention and two norms."""
    counts = []
    for layers in (1, 3):
        place = tmp_path / str(layers)
        place.mkdir()
        model = language_models.compressed(place, "llama", num_hidden_layers=layers)
        export(model, "onnx", place / "out", options=ExportOptions(attention=attention))
        counts.append(nodes_at_run_time(place / "out", place / "optimised.onnx"))
    assert counts[1] - counts[0] == {"LutMatMul": 8, "SimplifiedLayerNormalization": 4, **nodes}


@pytest.mark.parametrize(("cache", "row", "error"), [("float16", 16, 1e-3), ("int8", 18, 0.05)])
def test_smaller_caches_are_near(cache: str, row: int, error: float, tmp_path: Path) -> None:
    """Rows of other lengths, in two parts: by our library, and without it the same."""
    model = language_models.compressed(tmp_path, "llama")
    export(model, "onnx", tmp_path / "out", options=ExportOptions(cache=cache))
    ids, mask = np.array([[0, 0, 5, 17], [40, 3, 66, 21]]), np.array([[0, 0, 1, 1], [1, 1, 1, 1]])
    new = np.array([[7], [9]])
    longer = np.concatenate([mask, np.ones((2, 1), np.int64)], 1)
    expected = language_models.logits(model, np.concatenate([ids, new], 1), longer)[:, -1]
    found = []
    for library in (True, False):
        runner = Runner(tmp_path / "out", library, rows=2)
        runner(ids, mask)
        found.append(runner(new, longer)[:, -1])
        assert next(iter(runner.cache.values())).shape == (2, 2, 5, row)
    assert_close(found[0], found[1])
    assert 0 < np.abs(found[0] - expected).max() <= error * np.abs(expected).max()
    genai = json.loads((tmp_path / "out" / "genai_config.json").read_text())["model"]
    assert genai["decoder"]["head_size"] == row


def test_other_attention_keeps_float32() -> None:
    with pytest.raises(ConfigError, match="gqa attention keeps a float32 cache, got int8"):
        ExportOptions(attention="gqa", cache="int8")
    with pytest.raises(ConfigError, match="cache must be one of float32, float16, int8, got 'int4'"):
        ExportOptions(cache="int4")


@pytest.mark.long
def test_last_logits_and_a_shorter_context(tmp_path: Path) -> None:
    model = language_models.compressed(tmp_path, "llama")
    for attention in ATTENTIONS:
        folder = tmp_path / attention
        export(model, "onnx", folder, options=ExportOptions(attention=attention, last_logits=True, context=32))
        ids, mask = np.array([[0, 0, 5, 17], [40, 3, 66, 21]]), np.array([[0, 0, 1, 1], [1, 1, 1, 1]])
        found = Runner(folder, rows=2)(ids, mask)
        assert found.shape[1] == 1
        assert_close(found[:, 0], language_models.logits(model, ids, mask)[:, -1])
        assert json.loads((folder / "genai_config.json").read_text())["model"]["context_length"] == 32


@pytest.mark.long
def test_a_file_has_no_cache(tmp_path: Path) -> None:
    model = language_models.compressed(tmp_path, "llama")
    export(model, "onnx", tmp_path / "model.onnx")
    inputs = ort.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"]).get_inputs()
    assert [spec.name for spec in inputs] == ["input_ids", "attention_mask"]
    with pytest.raises(ConfigError, match="a file without a cache"):
        export(model, "onnx", tmp_path / "other.onnx", options=ExportOptions(context=16))


@pytest.mark.long
def test_a_folder_replaces_its_like_alone(tmp_path: Path) -> None:
    model = language_models.compressed(tmp_path, "llama")
    folder = tmp_path / "out"
    export(model, "onnx", folder)
    with pytest.raises(OutputError, match="exists already"):
        export(model, "onnx", folder)
    export(model, "onnx", folder, overwrite=True)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"notes\.txt"):
        export(model, "onnx", folder, overwrite=True)
    with pytest.raises(OutputError, match="only an exported language model"):
        export(model, "onnx", tmp_path, overwrite=True)


@pytest.mark.long
def test_machines_without_a_library(tmp_path: Path) -> None:
    model = language_models.compressed(tmp_path, "llama")
    with pytest.raises(ExportError, match="Android"):
        export(model, "onnx", tmp_path / "out", options=ExportOptions(machine="android"))
    export(model, "onnx", tmp_path / "out", options=ExportOptions(machine="none"))
    assert not list((tmp_path / "out").glob("*.so"))
    session = json.loads((tmp_path / "out" / "genai_config.json").read_text())["model"]["decoder"]["session_options"]
    assert "custom_ops_library" not in session
