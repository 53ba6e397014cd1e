"""Text written on a device: what is written is what this machine writes, and whatever goes wrong there ends with one message."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from board import Board

from edgecomp.cli import main
from edgecomp.devices import open_device
from edgecomp.devices.session import Session as DeviceSession
from edgecomp.errors import ConfigError, DeviceError, ModelError, RuntimeUnavailableError
from edgecomp.exported.language_folder import TOKENIZER
from edgecomp.generation.folder import Folder, read_folder
from edgecomp.generation.on_device import DeviceWriter
from edgecomp.generation.sampling import Sampler, Sampling
from edgecomp.generation.session import Session
from edgecomp.generation.text import Tokens
from edgecomp.generation.writing import Rates, TextWriter, Writer

PROMPT = [5, 17, 40, 3, 66, 21, 9, 33]
TEXT = "the quick brown fox"
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<assistant>"
SAMPLED = Sampling(temperature=1.3, top_k=20, top_p=0.9, seed=7)


def endless(path: Path) -> Folder:
    """The folder without tokens that end a text."""
    return replace(read_folder(path), stop=frozenset())


def tokens_of(folder: Folder) -> Tokens:
    return Tokens(folder.path / TOKENIZER, folder.vocabulary)


@contextlib.contextmanager
def there(folder: Folder, sampling: Sampling | None = None, **options: object) -> Iterator[DeviceWriter]:
    """A writer by the measuring program of this machine."""
    with open_device("local") as device:
        sampler = Sampler(sampling or Sampling())
        with DeviceWriter(DeviceSession(device), folder, tokens_of(folder), sampler, **options) as writer:  # type: ignore[arg-type]
            yield writer


def here(folder: Folder, sampling: Sampling | None = None) -> Writer:
    return Writer(Session(folder), tokens_of(folder), Sampler(sampling or Sampling()))


def text_of(writer: TextWriter, beginning: list[int], most: int) -> tuple[str, Rates]:
    pieces: list[str] = []
    rates = Rates()
    text = writer.write(beginning, most, pieces.append, rates)
    assert "".join(pieces) == text
    return text, rates


@pytest.mark.parametrize("kind", ["fused_folder", "portable_folder"])
@pytest.mark.parametrize("library", ["auto", "none"])
@pytest.mark.parametrize("sampling", [Sampling(), SAMPLED, Sampling(temperature=0.8)])
def test_the_same_is_written_there_as_here(kind: str, library: str, sampling: Sampling, request: pytest.FixtureRequest) -> None:
    folder = endless(request.getfixturevalue(kind))
    writer = here(folder, sampling)
    with there(folder, sampling, library=library) as remote:
        # The second turn begins as the first and goes on otherwise; random numbers go on too.
        for beginning, most in ((PROMPT, 13), ([*PROMPT, 8, 9, 10], 9), ([*PROMPT[:3], 11], 100)):
            (expected, told), (found, rates) = text_of(writer, beginning, most), text_of(remote, beginning, most)
            assert found == expected
            assert remote._given == writer._session.tokens
            assert (rates.cached_tokens, rates.prompt_tokens, rates.tokens) == (told.cached_tokens, told.prompt_tokens, told.tokens)
        assert rates.prompt_rate is not None
        assert rates.rate is not None
        assert remote.held().cache == (writer.held().cache if folder.in_place else remote.held().cache)
        assert (remote.held().peak or 0) > 1 << 20


def test_a_text_ends_with_its_token(fused_folder: Path) -> None:
    with there(endless(fused_folder)) as writer:
        text_of(writer, PROMPT, 6)
        written = writer._given[len(PROMPT) :]
    with there(replace(read_folder(fused_folder), stop=frozenset([written[2]]))) as writer:
        _, rates = text_of(writer, PROMPT, 6)
        assert rates.tokens == written.index(written[2]) + 1
        assert writer._given == [*PROMPT, *written[: rates.tokens - 1]]


def test_a_prompt_in_parts_of_512(language_model: object, fused_folder: Path) -> None:
    """A context has to hold it: 64 tokens here, and more are refused before anything is sent."""
    with there(endless(fused_folder), context=12) as writer:
        with pytest.raises(ModelError, match="shorter than the context of 12"):
            text_of(writer, PROMPT * 2, 1)
        assert text_of(writer, PROMPT, 100)[1].tokens == 4


def test_numbers_choose_as_numpy_does() -> None:
    """The same seed writes the same as before devices had numbers sent to them."""
    logits = np.random.default_rng(0).normal(0, 2, (50, 64)).astype(np.float32)
    sampler, random = Sampler(Sampling(temperature=0.7, seed=3)), np.random.default_rng(3)
    for row in logits:
        order = np.argsort(-row, kind="stable")
        weights = np.exp((row[order].astype(np.float64) - row.max()) / 0.7)
        assert sampler(row) == order[random.choice(64, p=weights / weights.sum())]


def test_a_chat_keeps_its_cache_there(
    fused_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgecomp.generation.chat._source", lambda *_: TEMPLATE)
    answers = []
    for device in ([], ["--device", "local"]):
        monkeypatch.setattr(sys, "stdin", io.StringIO("the fox\n\nthe dog\n"))
        assert main(["generate", str(fused_folder), "--chat", "--system", "brew", "-n", "4", "--json", *device]) == 0
        answers.append(json.loads(capsys.readouterr().out))
    local, remote = answers
    assert [turn["text"] for turn in remote["turns"]] == [turn["text"] for turn in local["turns"]]
    assert remote["turns"][1]["cached_tokens"] == local["turns"][1]["cached_tokens"] > 0
    assert (remote["device"], local["device"]) == ("local", None)
    assert 0 < remote["anonymous_bytes"] <= remote["peak_bytes"]


def test_rates_and_memory_are_told(fused_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", str(fused_folder), "--prompt", TEXT, "-n", "3", "--device", "local"]) == 0
    said = capsys.readouterr().err
    assert "a second" in said
    assert "MB anonymous" in said


def test_a_library_of_another_machine(fused_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "libother.so"
    other.write_bytes(b"\x7fELF" + bytes(14) + (8).to_bytes(2, "little"))  # MIPS
    command = ["generate", str(fused_folder), "--prompt", TEXT, "--device", "local", "--library", str(other)]
    assert main(command) == RuntimeUnavailableError.exit_code
    assert "must be a library for" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["--prefix", "x"], ConfigError, "leave them out with --device"),
        (["--timeout", "nan"], ConfigError, "--timeout must be at least 1"),
        (["--context", "65"], ConfigError, "2 to 64 tokens"),
        (["--prompt", "the fox " * 100], ModelError, "shorter than the context of 64"),
        (["--device", "ftp://x"], ConfigError, "a device must be local, ssh"),
    ],
)
def test_refusals(
    fused_folder: Path, arguments: list[str], error: type[ConfigError], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["generate", str(fused_folder), "--prompt", "x", "--device", "local", *arguments]
    assert main(command) == error.exit_code
    assert message in capsys.readouterr().err


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    """This machine behind a shell; whatever a test does, no session's folder is left."""
    device = Board(tmp_path)
    yield device
    device.clean_up()
    assert list((tmp_path / "edgecomp" / "runs").iterdir()) == []


def on_board(board: Board, folder: Folder, show: Callable[[str], None], most: int = 8) -> Rates:
    rates = Rates()
    with DeviceWriter(DeviceSession(board), folder, tokens_of(folder), Sampler(Sampling())) as writer:
        writer.write(PROMPT, most, show, rates)
    return rates


def program_on(board: Board) -> int:
    (number,) = Path(board.probe().folder, "runs").glob("*/pid")
    return int(number.read_text())


def test_behind_a_shell_the_model_is_brought_once(board: Board, fused_folder: Path) -> None:
    folder = endless(fused_folder)
    assert on_board(board, folder, lambda _: None).tokens == 8
    brought = {Path(path).name for path in board.uploads}
    assert {"model.onnx", "model.onnx.data"} < brought
    assert brought.isdisjoint({TOKENIZER, "genai_config.json"})
    board.uploads.clear()
    on_board(board, folder, lambda _: None)
    assert board.uploads == []


def test_a_program_that_is_killed_in_the_middle(board: Board, fused_folder: Path) -> None:
    written: list[str] = []

    def show(piece: str) -> None:
        written.append(piece)
        if len(written) == 2:
            os.kill(program_on(board), signal.SIGKILL)

    with pytest.raises(DeviceError, match="no memory left"):
        on_board(board, endless(fused_folder), show, most=50)
    assert len(written) >= 2


def test_ctrl_c_ends_the_program(board: Board, fused_folder: Path) -> None:
    number = 0

    def show(_: str) -> None:
        nonlocal number
        number = program_on(board)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        on_board(board, endless(fused_folder), show, most=50)
    board.clean_up()
    assert number > 0
    assert not Path(f"/proc/{number}/cmdline").exists() or "edgecomp-run" not in Path(f"/proc/{number}/cmdline").read_text()


def test_memory_that_ends(board: Board, fused_folder: Path) -> None:
    """Wherever the program is when it asks for too much, one line says so; where that is depends on the machine."""
    said = []
    for kilobytes in (30_000, 50_000, 60_000, 70_000):
        board.before = f"ulimit -v {kilobytes}; "
        try:
            on_board(board, endless(fused_folder), lambda _: None)
        except (DeviceError, RuntimeUnavailableError) as error:
            said.append(str(error))
    assert said
    assert not any("\n" in message for message in said)


READY, ASKED = '{"ready": {"load_ns": 1}}', '{"prompt": {"tokens": 8, "ns": 5}}'
LIES = {
    "nothing": [],
    "no JSON": [READY, "{"],
    "another answer": ['{"turn": {}}'],
    "no prompt": [READY, '{"token": 3, "ns": 1}'],
    "a time before its time": [READY, '{"prompt": {"ns": -5}}'],
    "a token of another kind": [READY, ASKED, '{"token": "3", "ns": 1}'],
    "a token that the model has not": [READY, ASKED, '{"token": 100000, "ns": 1}'],
    "more than were asked for": [READY, ASKED, *['{"token": 3, "ns": 1}'] * 9],
    "no memory": [READY, ASKED, '{"turn": {"tokens": 0, "cache_bytes": 1}}'],
    "an end in the middle": [READY, ASKED, '{"token": 3, "ns": 1}'],
    "a line without end": [READY, ASKED, '{"token": ' + "3" * 1_100_000],
}


@pytest.mark.parametrize("name", LIES)
def test_a_wrong_answer_is_the_devices_failure(board: Board, fused_folder: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "answer").write_text("".join(f"{line}\n" for line in LIES[name]))
    board.before = f"cat {tmp_path}/answer; exit 0; "
    with pytest.raises(DeviceError):
        on_board(board, endless(fused_folder), lambda _: None)
