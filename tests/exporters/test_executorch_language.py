"""Language models for ExecuTorch, whose programs keep keys and values: all who load them write what PyTorch writes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import language_models
import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from edgecomp.checkpoint import CompressedModel
from edgecomp.cli import main
from edgecomp.errors import ConfigError
from edgecomp.exported.executorch_file import read_executorch
from edgecomp.exported.executorch_session import ExecutorchModel
from edgecomp.exporters import ExportOptions, export
from edgecomp.models import body_of
from edgecomp.native import get_library_path

PROMPT = [5, 17, 40, 3, 66, 21, 9, 33]
CHUNK = 6


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> CompressedModel:
    return language_models.compressed(tmp_path_factory.mktemp("model"), "llama")


@pytest.fixture(scope="module", params=["float32", pytest.param("float16", marks=pytest.mark.long), "int8"])
def cache(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def folder(cache: str, model: CompressedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "model"
    options = ExportOptions(cache=cache, context=32, max_sizes={"sequence": CHUNK})
    export(model, "executorch", folder, options=options)
    return folder


def run(program: ExecutorchModel, tokens: list[int], start: int) -> np.ndarray:
    inputs = {"tokens": np.array([tokens]), "start": np.array([start])}
    return program.run(inputs)["logits"][0, -1]


def test_logits_are_those_of_pytorch_in_parts_and_after_going_back(model: CompressedModel, folder: Path, cache: str) -> None:
    tolerance = {"float32": 1e-4, "float16": 5e-3, "int8": 0.08}[cache]
    with ExecutorchModel(folder / "model.pte") as program:
        for parts in ((6, 2), (1, 3, 4), (4,)):  # the last one behind what was kept of the others
            start = 8 - sum(parts)
            for length in parts:
                logits = run(program, PROMPT[start : start + length], start)
                start += length
            expected = language_models.logits(model, np.array([PROMPT]), np.ones((1, 8), np.int64))[0, -1]
            assert np.abs(logits - expected).max() <= tolerance * np.abs(expected).max()


def test_the_cache_is_written_in_place_and_not_stored(folder: Path, cache: str) -> None:
    program = read_executorch(folder / "model.pte")
    assert f"edgecomp::kv_append_{cache}_" in program.operators
    assert not any("copy_" in name and "dim_order" not in name for name in program.operators)
    assert f"edgecomp::kv_append_{cache}.out" not in program.operators


def test_the_cache_is_in_memory_once(folder: Path, cache: str) -> None:
    from executorch.exir._serialize._program import deserialize_pte_binary

    (plan,) = (plan for plan in deserialize_pte_binary((folder / "model.pte").read_bytes()).program.execution_plan if plan.inputs)
    row = {"float32": 4 * 16, "float16": 2 * 16, "int8": 16 + 2}[cache]
    caches = 2 * 2 * 2 * 32 * row  # layers, keys and values, heads, places
    assert caches <= sum(plan.non_const_buffer_sizes) <= caches + 8192  # and what six tokens need


def test_text_by_generate(model: CompressedModel, folder: Path, cache: str, capsys: pytest.CaptureFixture[str]) -> None:
    from edgecomp.generation.folder import read_folder
    from edgecomp.generation.text import Tokens

    found = read_folder(folder)
    assert (found.description.runtime, found.context) == ("executorch", 32)
    prompt = "the quick brown fox"
    assert main(["generate", str(folder), "--prompt", prompt, "-n", "6", "--json", "--quiet"]) == 0
    text = json.loads(capsys.readouterr().out)["turns"][0]["text"]
    if cache == "float32":
        tokens = Tokens(folder / "tokenizer.json", found.vocabulary)
        stream = tokens.stream()
        written = language_models.greedy(model, tokens.encode(prompt, special=True), 6)
        stops = [i for i, token in enumerate(written) if token in found.stop]
        assert text == "".join(stream(token) for token in written[: stops[0] if stops else None])
    assert main(["generate", str(folder), "--prompt", prompt, "--save-prefix", "x"]) == ConfigError.exit_code
    assert "keeps its cache itself" in capsys.readouterr().err


# In a process of its own: whatever loads our library registers its operators for good.
RUNNER = """
import sys
import torch
import executorch.runtime
torch.ops.load_library(sys.argv[1])
from executorch.extension.llm.runner import GenerationConfig, TextLLMRunner
runner, written = TextLLMRunner(sys.argv[2] + "/model.pte", sys.argv[4]), []
settings = GenerationConfig(max_new_tokens=6, temperature=0.0, echo=False)
runner.generate(sys.argv[3], settings, written.append, None)
print("written:" + "".join(written))
"""


def letters(path: Path, vocabulary: int) -> Tokenizer:
    """A tokenizer of a kind that the runner knows: bytes, as many as the model has tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = [*"abcdefghijklmnopqrstuvwxyz", "\u0120", *alphabet]
    tokenizer = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(dict.fromkeys(names)) if i < vocabulary}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(path))
    return tokenizer


def test_executorchs_own_runner_writes_the_same(model: CompressedModel, folder: Path, cache: str, tmp_path: Path) -> None:
    tokenizer = letters(tmp_path / "tokenizer.json", int(body_of(model.module).config.vocab_size))
    prompt = tokenizer.encode("the fox").ids
    if cache == "float32":
        expected = language_models.greedy(model, prompt, 6)
    else:
        expected = []
        with ExecutorchModel(folder / "model.pte") as program:
            run(program, prompt[:CHUNK], 0)
            logits = run(program, prompt[CHUNK:], CHUNK)
            for place in range(len(prompt), len(prompt) + 6):
                expected.append(int(logits.argmax()))
                logits = run(program, expected[-1:], place)
    arguments = [get_library_path("executorch"), str(folder), "the fox", str(tmp_path / "tokenizer.json")]
    done = subprocess.run([sys.executable, "-P", "-c", RUNNER, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    stop = expected.index(2) if 2 in expected else None  # the configuration's token that ends a text
    assert tokenizer.decode(expected[:stop]) in done.stdout.partition("written:")[2]


def test_options_that_others_have(model: CompressedModel, tmp_path: Path) -> None:
    for options in (ExportOptions(attention="gqa"), ExportOptions(machine="none")):
        with pytest.raises(ConfigError, match="takes no --attention, --for or --bundle"):
            export(model, "executorch", tmp_path / "out", options=options)
    with pytest.raises(ConfigError, match="chosen for a language model's folder"):
        export(model, "executorch", tmp_path / "m.pte", options=ExportOptions(cache="int8"))
    assert not list(tmp_path.iterdir())
