"""Devices that answer wrongly: their records are partial and say so, the others' are kept, and nothing harms this machine."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from board import Board
from onnx_models import embedding_table, save_encoder

import edgecomp.devices
from edgecomp.bench.options import BenchOptions
from edgecomp.bench.record import Record
from edgecomp.bench.runner import run_benches
from edgecomp.cli import main
from edgecomp.devices.base import Completed
from edgecomp.devices.local import LocalDevice
from edgecomp.devices.process import run_bounded
from edgecomp.errors import DeviceError, visible

QUICK = BenchOptions(sequence=8, rounds=1, warmup=1, min_iterations=2, min_duration_s=0, max_spread=1e9)
Lie = Callable[[str, str], str]  # of an action and what the program answered


class LyingDevice(LocalDevice):
    """This machine, but for what it answers, and for the files that it gives."""

    lie: Lie = staticmethod(lambda _action, answer: answer)
    files: Mapping[str, bytes] = {}

    def __init__(self, url: Any) -> None:
        super().__init__(url._replace(netloc="", path=""))
        self.url = "liar://"

    def run(self, command: Sequence[str], stdin: str, timeout_s: float) -> Completed:
        done = super().run(command, stdin, timeout_s)
        action = next((line.partition("=")[2] for line in stdin.splitlines() if line.startswith("action=")), "measure")
        return replace(done, stdout=type(self).lie(action, done.stdout))

    def pull(self, name: str, target: Path) -> None:
        if name in self.files:
            target.write_bytes(self.files[name])
        else:
            super().pull(name, target)


@pytest.fixture
def liar(monkeypatch: pytest.MonkeyPatch) -> type[LyingDevice]:
    monkeypatch.setattr(edgecomp.devices, "TRANSPORTS", {**edgecomp.devices.TRANSPORTS, "liar": LyingDevice})
    monkeypatch.setattr(LyingDevice, "lie", staticmethod(lambda _action, answer: answer))
    monkeypatch.setattr(LyingDevice, "files", {})
    return LyingDevice


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_encoder(tmp_path_factory.mktemp("model") / "m.onnx", embedding_table())


def bench(model: Path, *, operators: bool) -> tuple[Record, Record]:
    options = replace(QUICK, time_operators=operators)
    honest, lying = run_benches([model], options, devices=["local", "liar://"], quiet=True)
    return honest, lying


def edited(action: str, *path: str | int, value: Any) -> Lie:
    """A lie about one entry of an answer; `...` leaves it out."""

    def lie(asked: str, text: str) -> str:
        if asked != action:
            return text
        answer = json.loads(text)
        target = answer
        for key in path[:-1]:
            target = target[key]
        if value is ...:
            del target[path[-1]]
        else:
            target[path[-1]] = value
        return json.dumps(answer)

    return lie


def instead(action: str, text: str) -> Lie:
    return lambda asked, answer: text if asked == action else answer


LIES: dict[str, Lie] = {
    "nothing": instead("measure", ""),
    "no JSON": instead("measure", "{"),
    "a list": instead("measure", "[]"),
    "a number": instead("describe", "3"),
    "null": instead("machine", "null"),
    "depth": instead("measure", "[" * 10**5),
    "some depth": instead("measure", '{"a":' + "[" * 200 + "]" * 200 + "}"),
    "no number": instead("measure", '{"before": NaN}'),
    "a number of ten thousand digits": instead("measure", '{"before": ' + "9" * 10_000 + "}"),
    "a large number": instead("measure", '{"before": ' + "9" * 1000 + "}"),
    "an error that there is not": instead("describe", '{"error": "NoSuchError", "message": "x"}'),
    "an error that is something else": instead("describe", '{"error": "first_line", "message": "x"}'),
    "an error that ends Python": instead("measure", '{"error": "__builtins__", "message": "x"}'),
    "an error of no name": instead("measure", '{"error": [], "message": "x"}'),
    "an error without a message": instead("measure", '{"error": "ModelError"}'),
    "an error of another's class": instead("measure", '{"error": "ModelError", "message": "the model is wrong"}'),
    "no machine": edited("describe", "machine", value=...),
    "a machine of another kind": edited("describe", "machine", value=[1]),
    "processors as text": edited("describe", "machine", "cpu_count", value="4"),
    "no inputs": edited("describe", "description", value={}),
    "inputs of another kind": edited("describe", "description", "inputs", value={"a": 1}),
    "an input without a name": edited("describe", "description", "inputs", 0, "name", value=None),
    "an input of 10^12 values": edited("describe", "description", "inputs", 0, "shape", value=[10**6, 10**6]),
    "an input of a negative size": edited("describe", "description", "inputs", 0, "shape", value=[-1, 8]),
    "an input of a size that is no number": edited("describe", "description", "inputs", 0, "shape", value=[1.5, 8]),
    "no temperatures": edited("machine", "before", "temperatures_celsius", value=None),
    "no state": edited("machine", "before", value=...),
    "no measurement": edited("measure", "measurement", value=...),
    "a measurement of another kind": edited("measure", "measurement", value="fast"),
    "no samples": edited("measure", "measurement", "samples_ns", value=[]),
    "a sample of no time": edited("measure", "measurement", "samples_ns", value=[0, 0]),
    "a sample before its time": edited("measure", "measurement", "samples_ns", value=[-5, 5]),
    "samples as text": edited("measure", "measurement", "samples_ns", value=["1", "2"]),
    "memory of another kind": edited("measure", "measurement", "memory", "steady", value=3),
    "an entry that nobody asked for": edited("measure", "measurement", "more", value=1),
    "another digest": edited("measure", "measurement", "outputs", 0, "sha256", value="0" * 64),
    "a digest of another kind": edited("measure", "measurement", "outputs", 0, "sha256", value=None),
    "outputs without end": edited("measure", "measurement", "outputs", value=[{"name": "a", "type": "b", "sha256": "c"}] * 5000),
    "runs of another kind": edited("trace", "trace", "runs", value="ten"),
    "runs that were not": edited("trace", "trace", "runs", value=10**6),
    "no runs": edited("trace", "trace", "runs", value=0),
    "no trace": edited("trace", "trace", value=...),
}


@pytest.mark.parametrize("name", LIES)
def test_a_wrong_answer_is_that_devices_failure(model: Path, liar: type[LyingDevice], monkeypatch: Any, name: str) -> None:
    monkeypatch.setattr(liar, "lie", staticmethod(LIES[name]))
    honest, lying = bench(model, operators="runs" in name or "trace" in name)
    assert honest.failure is None
    assert honest.validity.valid
    assert honest.rounds
    assert lying.failure is not None
    assert not lying.validity.valid


def npy(array: np.ndarray, **header: Any) -> bytes:
    import io

    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {**np.lib.format.header_data_from_array_1_0(array), **header})
    return file.getvalue() + array.tobytes()


FILES: dict[str, Mapping[str, bytes]] = {
    "no array": {"output-0.npy": b"no array"},
    "an array of pickles": {"output-0.npy": npy(np.zeros(1), descr="|O")},
    "an array that is too short": {"output-0.npy": npy(np.zeros(1), shape=(10**15,))},
    "an array of texts": {"output-0.npy": npy(np.array(["a"]))},
    "other numbers": {"output-0.npy": npy(np.zeros((1, 8, 4), np.float32))},
    "a header that is code": {"output-0.npy": b"\x93NUMPY\x01\x00\x40\x00" + b"{'descr': __import__('os').abort()}".ljust(64)},
    "a trace of nothing": {"trace.json": b""},
    "a trace of another kind": {"trace.json": b'{"dur": 1}'},
    "a trace of texts": {"trace.json": b'["dur"]'},
    "a trace of no names": {"trace.json": b'[{"dur": 1}]'},
    "a trace of texts as times": {"trace.json": json.dumps([{"name": "model_run", "ts": "a", "dur": "b"}] * 10).encode()},
    "a trace of infinite times": {"trace.json": b'[' + b", ".join([b'{"name": "model_run", "ts": 1, "dur": 1e999}'] * 10) + b"]"},
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_wrong_file_is_that_devices_failure(model: Path, liar: type[LyingDevice], monkeypatch: Any, name: str) -> None:
    monkeypatch.setattr(liar, "files", FILES[name])
    honest, lying = bench(model, operators="trace" in name)
    assert honest.failure is None
    assert lying.failure is not None


def test_the_command_ends_with_the_devices_code_and_keeps_the_records(
    model: Path, tmp_path: Path, liar: type[LyingDevice], monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.setattr(liar, "lie", staticmethod(instead("describe", '{"error": "\\u001b[2Jgone", "message": "\\u202e"}')))
    saved = tmp_path / "records.json"
    command = ["bench", str(model), "--device", "local", "--device", "liar://", "--rounds", "1", "--min-duration", "0"]
    assert main([*command, "--min-iterations", "2", "--save", str(saved)]) == DeviceError.exit_code
    assert [record["failure"] is None for record in json.loads(saved.read_text())] == [True, False]
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err + saved.read_text()
    assert r"\x1b[2Jgone" in said.err


def test_control_characters_are_made_visible() -> None:
    assert visible("ok\n\ta°\x1b]0;x\x07\u202e\x7f\x00") == "ok\n\ta°\\x1b]0;x\\x07\\u202e\\x7f\\x00"


def test_output_is_bounded_while_it_is_read(tmp_path: Path) -> None:
    endless = [sys.executable, "-c", "import sys\nwhile True: sys.stdout.write('x' * 4096)"]
    with pytest.raises(DeviceError, match="wrote more than 100,000 bytes"):
        run_bounded(endless, 60, largest=100_000)
    with pytest.raises(DeviceError, match="wrote more than 100,000 bytes"):
        run_bounded(endless, 60, largest=100_000, stdout=tmp_path / "file")
    assert (tmp_path / "file").stat().st_size <= 100_000
    talking = [sys.executable, "-c", "import sys\nfor i in range(20000): sys.stderr.write(f'\\x1b{i:08}\\n')\nprint('done')"]
    done = run_bounded(talking, 60)
    assert (done.exit_code, done.stdout) == (0, "done\n")
    assert len(done.stderr) <= 300_000
    assert done.stderr.endswith("\\x1b00019999\n")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("content")
    return path


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "board").mkdir()
    return tmp_path / "board"


def test_a_devices_folder_is_private(place: Path, file: Path) -> None:
    (place / "edgecomp" / "objects").mkdir(parents=True)
    (place / "edgecomp").chmod(0o777)
    board = Board(place)
    board.push({"a": file})
    assert stat.S_IMODE((place / "edgecomp").stat().st_mode) == 0o700


def test_a_folder_of_somebody_elses_is_refused_before_anything_in_it_goes(place: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    (theirs / "runs" / "old").mkdir(parents=True)
    os.utime(theirs / "runs" / "old", (0, 0))
    (place / "edgecomp").symlink_to(theirs)
    with pytest.raises(DeviceError, match=r"must be a folder of the user who logs in, and it is l"):
        Board(place).probe()
    assert (theirs / "runs" / "old").is_dir()


def test_what_lies_in_the_cache_is_hashed_again(place: Path, file: Path) -> None:
    first = Board(place)
    kept = Path(first.push({"a": file})["a"])
    again = Board(place)
    assert again.push({"a": file}) == {"a": str(kept)}
    assert again.uploads == []
    kept.write_text("changed")
    third = Board(place)
    assert third.push({"a": file}) == {"a": str(kept)}
    assert len(third.uploads) == 1
    assert kept.read_text() == "content"


@pytest.mark.parametrize("said", ["", "digest\n", "digest  other\n", "\n\n", "\\" * 100])
def test_digests_of_another_form_are_other_bytes(place: Path, file: Path, said: str) -> None:
    board = Board(place)
    board.edit = lambda script, stdout: said if "sha256sum" in script else stdout
    with pytest.raises(DeviceError, match="arrived with other bytes"):
        board.push({"a": file})


def test_names_that_look_like_options_are_names(place: Path, file: Path) -> None:
    paths = Board(place).push({"-c": file, "--help": file, "-rf": file})
    assert all(Path(path).read_text() == "content" for path in paths.values())


@pytest.mark.parametrize("name", ["../a", "/a", "a/../../b", "a\nb", "a\\b", "\x1b[2J"])
def test_names_that_leave_the_folder_are_refused(place: Path, file: Path, name: str) -> None:
    with pytest.raises(DeviceError, match="must have an ordinary name"):
        Board(place).push({name: file})


@pytest.mark.parametrize(
    ("line", "said"), [(0, "relative"), (0, "-rf"), (0, "/a\x1b[2J"), (3, "x 1 2 " + "9" * 5000), (3, "x ² ² ²")]
)
def test_probes_of_another_form(place: Path, line: int, said: str) -> None:
    board = Board(place)

    def edit(script: str, stdout: str) -> str:
        lines = stdout.splitlines()
        if "uname" in script:
            lines[line] = said
        return "\n".join(lines)

    board.edit = edit
    if line == 0:
        with pytest.raises(DeviceError, match="a whole path of ordinary characters"):
            board.probe()
    else:
        assert board.probe().free_bytes is None
