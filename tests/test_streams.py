"""Standard streams that cannot be written, and names that are not UTF-8."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import tiny_models

import edgecomp
from edgecomp.cli import VERBS, main
from edgecomp.errors import ConfigError, OutputError
from edgecomp.exporters import export

ARGUMENTS = {
    "compress": ["m", "-o", "m.ec"],
    "diff": ["a.ec", "b.ec"],
    "export": ["m.ec", "-o", "m.onnx"],
    "generate": ["folder"],
    "selftest": ["m.onnx"],
    "verify": ["m.onnx", "--against", "m"],
    "bench": ["m.onnx"],
    "inspect": ["m.onnx"],
    "report": ["run", "-o", "r.html"],
}
BAD_NAME = os.fsdecode(b"n\xff.onnx")


def prints(monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    """Let a verb print a result and a message, and do nothing else."""

    def run(_: Any) -> None:
        sys.stderr.write("a message\n")
        sys.stdout.write("a result\n")

    monkeypatch.setattr(import_module(f"edgecomp.cli.{verb.replace('-', '_')}"), "run", run)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("verb", VERBS)
def test_a_full_disk_behind_stdout_is_an_error_of_the_output(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prints(monkeypatch, verb)
    with open("/dev/full", "w") as full:  # noqa: PTH123
        monkeypatch.setattr(sys, "stdout", full)
        assert main([verb, *ARGUMENTS.get(verb, [])]) == OutputError.exit_code
    assert f"edgecomp {verb}: error: stdout cannot be written: No space left on device" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_messages_that_cannot_be_written_end_no_work_but_are_told_by_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prints(monkeypatch, "recipe")
    with open("/dev/full", "w", buffering=1) as full:  # noqa: PTH123
        monkeypatch.setattr(sys, "stderr", full)
        assert main(["recipe"]) == OutputError.exit_code
    assert capsys.readouterr().out == "a result\n"


def test_a_reader_that_has_gone_is_no_error_to_speak_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert main(["recipe"]) == 1
    assert capsys.readouterr().err == ""


def test_characters_that_stdout_does_not_have_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    prints(monkeypatch, "recipe")
    monkeypatch.setattr(import_module("edgecomp.cli.recipe"), "run", lambda _: sys.stdout.write("70 °C\n"))
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    assert main(["recipe"]) == 0
    assert written.getvalue() == b"70 \\xb0C\n"


def run_with(redirections: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, behind a shell's redirections."""
    command = ["sh", "-c", f'exec "$@" {redirections}', "sh", sys.executable, "-P", "-m", "edgecomp", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", [["recipe"], ["--help"]])
def test_a_closed_stdout_is_refused(arguments: list[str]) -> None:
    done = run_with(">&-", *arguments)
    assert done.returncode == OutputError.exit_code
    assert done.stderr.startswith("edgecomp: error: stdout must be open")
    assert run_with(">&- 2>&-", *arguments).returncode == OutputError.exit_code


def test_a_closed_stderr_wants_no_messages() -> None:
    done = run_with("2>&-", "recipe")
    assert (done.returncode, "lut-4bit" in done.stdout) == (0, True)
    assert run_with("2>&-", "recipe", "no-such").returncode == ConfigError.exit_code


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("arguments", [["recipe"], ["--help"], ["recipe", "--help"], ["--version"]])
def test_nothing_else_is_said_at_the_end_of_the_process(arguments: list[str]) -> None:
    """Python flushes stdout once more."""
    done = run_with(">/dev/full", *arguments)
    assert done.returncode == OutputError.exit_code
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("arguments", [["inspect", BAD_NAME], ["bench", "m.onnx", BAD_NAME], ["compress", "m", "-o", BAD_NAME]])
def test_names_that_are_not_utf8_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == ConfigError.exit_code
    assert r"names must be UTF-8, got n\xff.onnx" in capsys.readouterr().err


def test_the_current_folder_has_a_name_in_utf8_and_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Runtimes are given whole paths."""
    (tmp_path / BAD_NAME).mkdir()
    monkeypatch.chdir(tmp_path / BAD_NAME)
    assert main(["recipe"]) == ConfigError.exit_code
    assert r"n\xff.onnx: run in another one" in capsys.readouterr().err
    (tmp_path / BAD_NAME).rmdir()
    assert main(["recipe"]) == ConfigError.exit_code
    assert "has been removed: run in another one" in capsys.readouterr().err


def test_outputs_whose_name_is_not_utf8_are_refused(tmp_path: Path) -> None:
    model = edgecomp.compress(
        tiny_models.tied_tokens(), "lut-8bit", tiny_models.tokens(), overrides=["passes.0.weighting=none", "passes.0.refits=0"]
    )
    for target, name in (("onnx", BAD_NAME), ("executorch", BAD_NAME.replace(".onnx", ".pte"))):
        with pytest.raises(OutputError, match="must be UTF-8"):
            export(model, target, tmp_path / name)
    with pytest.raises(OutputError, match="must be UTF-8"):
        model.save(tmp_path / BAD_NAME)
