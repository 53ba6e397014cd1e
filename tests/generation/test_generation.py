"""Writing text with an exported language model: what is written, what is kept, and what is refused."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import language_models
import numpy as np
import pytest

from edgecomp.array_file import write_arrays
from edgecomp.checkpoint import CompressedModel
from edgecomp.cli import main
from edgecomp.errors import CheckpointError, ConfigError, ModelError
from edgecomp.exported.files import digest_of
from edgecomp.exported.language_folder import DESCRIPTION, GENAI, TOKENIZER
from edgecomp.exporters import export
from edgecomp.generation import session as session_module
from edgecomp.generation.chat import Template
from edgecomp.generation.folder import Folder, read_folder
from edgecomp.generation.prefix import load_prefix, save_prefix
from edgecomp.generation.sampling import Sampler, Sampling
from edgecomp.generation.session import Session
from edgecomp.generation.text import Tokens
from edgecomp.generation.writing import Rates, Writer

PROMPT = [5, 17, 40, 3, 66, 21, 9, 33]
TEXT = "the quick brown fox"


@pytest.fixture
def model(language_model: CompressedModel) -> CompressedModel:
    return language_model


@pytest.fixture
def path(fused_folder: Path) -> Path:
    return fused_folder


@pytest.fixture
def portable(portable_folder: Path) -> Path:
    return portable_folder


def endless(path: Path) -> Folder:
    """The folder without tokens that end a text."""
    return replace(read_folder(path), stop=frozenset())


def written(session: Session, prompt: list[int], count: int, sampling: Sampling | None = None) -> tuple[list[int], Rates]:
    """The tokens behind a prompt."""
    tokens = Tokens(session.folder.path / TOKENIZER, session.folder.vocabulary)
    rates = Rates()
    Writer(session, tokens, Sampler(sampling or Sampling())).write(prompt, count, lambda _: None, rates)
    return session.tokens[len(prompt) :], rates


@pytest.mark.parametrize("kind", ["path", "portable"])
@pytest.mark.parametrize("library", ["auto", "none"])
def test_tokens_are_those_of_pytorch(model: CompressedModel, kind: str, library: str, request: pytest.FixtureRequest) -> None:
    session = Session(endless(request.getfixturevalue(kind)), library)
    found, rates = written(session, PROMPT, 13)
    assert found == language_models.greedy(model, PROMPT, 12)  # the last one needs no run
    assert rates.tokens == 13


def test_a_cache_grows(model: CompressedModel, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "_ROOM", 4)
    monkeypatch.setattr(session_module, "_CHUNK", 3)
    session = Session(endless(path))
    before = session.cache_bytes
    assert written(session, PROMPT, 20)[0] == language_models.greedy(model, PROMPT, 19)
    assert session.cache_bytes > before


def test_a_text_ends_with_the_context(path: Path) -> None:
    session = Session(endless(path), context=12)
    found, _ = written(session, PROMPT, 100)
    assert len(found) == 3
    with pytest.raises(ModelError, match="12 tokens at most"):
        session.feed([1, 2])


def test_a_text_ends_with_its_token(path: Path) -> None:
    first = written(Session(endless(path)), PROMPT, 2)[0][0]
    session = Session(replace(read_folder(path), stop=frozenset([first])))
    assert written(session, PROMPT, 10)[0] == []


@pytest.mark.parametrize("kind", ["path", "portable"])
def test_what_a_turn_has_in_common_is_not_computed_again(kind: str, request: pytest.FixtureRequest) -> None:
    folder = endless(request.getfixturevalue(kind))
    session = Session(folder)
    written(session, PROMPT, 6)
    second = [*PROMPT[:6], 8, 9, 10]
    found, rates = written(session, second, 6)
    assert (rates.cached_tokens, rates.prompt_tokens) == (6, 3)
    assert found == written(Session(folder), second, 6)[0]
    assert written(session, second, 6)[1].prompt_tokens == 1  # logits are of a token that is given


def test_the_same_seed_writes_the_same(path: Path) -> None:
    def text(seed: int, **settings: Any) -> list[int]:
        return written(Session(endless(path)), PROMPT, 12, Sampling(temperature=1.0, seed=seed, **settings))[0]

    assert text(1) == text(1) != text(2)
    greedy = written(Session(endless(path)), PROMPT, 12)[0]
    assert text(1, top_k=1) == greedy
    assert text(1, top_p=1e-9) == greedy


def test_sampling_follows_the_probabilities() -> None:
    sampler = Sampler(Sampling(temperature=1.0, top_k=3))
    logits = np.log(np.array([0.1, 0.6, 0.05, 0.25], np.float32))
    drawn = np.bincount([sampler(logits) for _ in range(4000)], minlength=4) / 4000
    assert np.abs(drawn - np.array([0.1, 0.6, 0, 0.25]) / 0.95).max() < 0.03


@pytest.mark.parametrize(
    "settings", [{"temperature": -1.0}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.5}, {"seed": -1}, {"temperature": float("nan")}]
)
def test_sampling_out_of_range(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Sampling(**settings)


def test_a_saved_beginning(path: Path, portable: Path, tmp_path: Path) -> None:
    session = Session(endless(path))
    session.feed(PROMPT)
    save_prefix(session, tmp_path / "begin")
    other = Session(endless(path))
    load_prefix(other, tmp_path / "begin")
    longer = [*PROMPT, 11, 12]
    found, rates = written(other, longer, 6)
    assert rates.cached_tokens == len(PROMPT)
    assert found == written(Session(endless(path)), longer, 6)[0]
    with pytest.raises(CheckpointError, match="another one computed it"):
        load_prefix(Session(endless(portable)), tmp_path / "begin")
    with pytest.raises(ModelError, match="shorter than the context"):
        load_prefix(Session(endless(path), context=8), tmp_path / "begin")
    (tmp_path / "short").write_bytes((tmp_path / "begin").read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="must be a beginning"):
        load_prefix(Session(endless(path)), tmp_path / "short")


def test_a_cache_of_a_wrong_shape(path: Path, tmp_path: Path) -> None:
    session = Session(endless(path))
    digest = np.frombuffer(bytes.fromhex(session.folder.digest), np.uint8)
    cache = {f"past_key_values.{i}.{kind}": np.zeros((1, 2, 2, 16), np.float32) for i in range(2) for kind in ("key", "value")}
    write_arrays(tmp_path / "begin", {"tokens": np.array([1, 2, 3]), "model": digest, **cache})
    write_arrays(tmp_path / "floats", {"tokens": np.array([np.nan]), "model": digest, **cache})
    with pytest.raises(CheckpointError, match="int64"):
        load_prefix(session, tmp_path / "floats")
    with pytest.raises(ModelError, match=r"\[1, 2, 3, 16\], got float32 \[1, 2, 2, 16\]"):
        load_prefix(session, tmp_path / "begin")


def test_tokens_that_the_model_does_not_have(path: Path) -> None:
    session = Session(endless(path))
    for token in (-1, session.folder.vocabulary):
        with pytest.raises(ModelError, match="the tokenizer is of another model"):
            session.feed([3, token])
    with pytest.raises(ConfigError, match="at least one token"):
        session.feed([])


def test_another_tokenizer(path: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(path, tmp_path / "copy")
    content = json.loads((folder / TOKENIZER).read_text())
    content["model"]["vocab"]["zzz"] = 5000
    (folder / TOKENIZER).write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="a tokenizer of another model"):
        read_folder(folder)
    with pytest.raises(CheckpointError, match="5000"):
        Tokens(folder / TOKENIZER, 79)


@pytest.mark.parametrize(
    "changed",
    [
        {"version": 99},
        {"files": {"../other": "00"}},
        {"files": {"/etc/hosts": "00"}},
        {"files": []},
        {"format": None},
        {"files": {}},
        {"attention": "strange"},
        {"runtime": "strange"},
        {"context": "many"},
        {"context": float("inf")},
        {"vocabulary": []},
        {"stop": 3},
        {"stop": [{}]},
    ],
)
def test_a_damaged_description(path: Path, tmp_path: Path, changed: dict[str, Any]) -> None:
    folder = shutil.copytree(path, tmp_path / "copy")
    content = json.loads((folder / DESCRIPTION).read_text()) | changed
    (folder / DESCRIPTION).write_text(json.dumps(content))
    with pytest.raises(CheckpointError):
        read_folder(folder)


def redescribed(folder: Path) -> Path:
    """The folder with the digests of the files that are in it now, as a stranger would write it."""
    description = json.loads((folder / DESCRIPTION).read_text())
    description["files"] = {name: digest_of(folder / name) for name in description["files"]}
    (folder / DESCRIPTION).write_text(json.dumps(description))
    return folder


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (TOKENIZER, "{}"),
        ("tokenizer_config.json", "["),
        ("tokenizer_config.json", "[]"),
        ("model.onnx", ""),
    ],
)
def test_a_hostile_folder(path: Path, tmp_path: Path, name: str, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shutil.copytree(path, tmp_path / "copy")
    (folder / name).write_text(content)
    assert main(["generate", str(redescribed(folder)), "--prompt", TEXT, "--chat"]) == CheckpointError.exit_code
    assert name in capsys.readouterr().err


def test_a_model_without_a_cache(path: Path, model: CompressedModel, tmp_path: Path) -> None:
    folder = shutil.copytree(path, tmp_path / "copy")
    export(model, "onnx", folder / "model.onnx", overwrite=True)
    with pytest.raises(CheckpointError, match="keys and values of past tokens"):
        Session(read_folder(redescribed(folder)))


def test_a_library_that_lies_in_the_folder_is_never_loaded(path: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(path, tmp_path / "copy")
    for name in ("libedgecomp_onnxruntime.so", "libother.so"):
        (folder / name).write_bytes(b"not a library: loading it fails")
    content = json.loads((folder / GENAI).read_text())
    content["model"]["decoder"]["session_options"]["custom_ops_library"] = str(folder / "libother.so")
    (folder / GENAI).write_text(json.dumps(content))
    assert Session(read_folder(redescribed(folder))).feed(PROMPT).size


def test_memory_that_ends_while_the_cache_grows(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(endless(path))
    monkeypatch.setattr(session_module, "_ROOM", 4)

    def refuse(*_: object) -> None:
        raise MemoryError("no memory for 9 GB")

    monkeypatch.setattr(session._cache, "run", refuse)
    with pytest.raises(ModelError, match="no memory is left for the cache of 8 tokens"):
        session.feed(PROMPT)


def test_a_library_of_another_machine(path: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = shutil.copytree(path, tmp_path / "copy")
    content = json.loads((folder / DESCRIPTION).read_text()) | {"library_for": "aarch64"}
    (folder / DESCRIPTION).write_text(json.dumps(content))
    assert main(["generate", str(folder), "--prompt", TEXT, "-n", "2"]) == 0
    assert "is for aarch64" in capsys.readouterr().err


def byte_tokenizer(file: Path) -> Path:
    """A tokenizer whose tokens are bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: index for index, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(file))
    return file


def test_characters_are_whole(tmp_path: Path) -> None:
    tokens = Tokens(byte_tokenizer(tmp_path / "tokenizer.json"), 256)
    text = "né € 😀."
    pieces = list(map(tokens.stream(), tokens.encode(text, special=True)))
    assert "".join(pieces) == text
    assert "😀" in pieces
    assert pieces.count("") == 1 + 2 + 3


def test_ctrl_c_ends_behind_a_character(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    def interrupted(self: Writer, beginning: list[int], most: int, show: Callable[[str], None], rates: Rates) -> str:
        rates.prompt_tokens, rates.tokens = len(beginning), 2
        show("né")
        raise KeyboardInterrupt

    monkeypatch.setattr(Writer, "write", interrupted)
    assert main(["generate", str(path), "--prompt", TEXT]) == 130
    said = capsys.readouterr()
    assert said.out == "né\n"
    assert "interrupted; behind 2 tokens" in said.err


TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<assistant>"


def test_a_chat_keeps_its_cache(path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecomp.generation.chat._source", lambda *_: TEMPLATE)
    monkeypatch.setattr(sys, "stdin", io.StringIO("the fox\n\nthe dog\n"))
    assert main(["generate", str(path), "--chat", "--system", "brew", "-n", "4", "--json"]) == 0
    turns = json.loads(capsys.readouterr().out)["turns"]
    assert len(turns) == 2
    assert turns[1]["cached_tokens"] >= turns[0]["prompt_tokens"]


def test_templates(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no chat template"):
        Template(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(TEMPLATE)
    assert Template(tmp_path)([{"role": "user", "content": "hi"}]) == "<user>hi\n<assistant>"
    (tmp_path / "chat_template.jinja").write_text("{{ raise_exception('only users') }}")
    with pytest.raises(ModelError, match="only users"):
        Template(tmp_path)([])
    (tmp_path / "chat_template.jinja").write_text("{{ messages.__class__.__mro__ }}")
    with pytest.raises(ModelError, match="unsafe"):
        Template(tmp_path)([])
    (tmp_path / "chat_template.jinja").write_text("{% if %}")
    with pytest.raises(CheckpointError, match="jinja"):
        Template(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --prompt TEXT, or --chat"),
        (["--prompt", ""], "at least one character"),
        (["--prompt", "x", "--system", "y"], "give --chat too"),
        (["--prompt", "x", "-n", "0"], "--max-tokens must be at least 1"),
        (["--prompt", "the fox " * 100], "shorter than the context of 64"),
        (["--prompt", "x", "--context", "65"], "2 to 64 tokens"),
        (["--chat", "--prompt", "x"], "no chat template"),
    ],
)
def test_refusals(path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", str(path), *arguments]) != 0
    assert message in capsys.readouterr().err


def test_what_is_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", str(tmp_path), "--prompt", "x"]) == ModelError.exit_code
    assert "must be the folder of a language model" in capsys.readouterr().err


def test_rates_are_told(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", str(path), "--prompt", TEXT, "-n", "3"]) == 0
    assert "for the cache" in capsys.readouterr().err
    session = Session(endless(path))
    written(session, PROMPT, 2)
    tokens = Tokens(path / TOKENIZER, session.folder.vocabulary)
    assert Writer(session, tokens, Sampler(Sampling())).held().peak > 1 << 20
