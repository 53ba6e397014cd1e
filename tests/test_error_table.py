"""What goes wrong for a person: each case ends with its exit code and a message that says what to do, and leaves nothing half done.

Interruptions (Ctrl-C, kill -9) are in test_resume.py; more ways to damage a checkpoint are in test_checkpoint.py.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tiny_models
import torch
from limits import small_files
from onnx_models import embedding_table, save_encoder, save_with_our_node
from torch import nn

import edgecomp
from edgecomp import errors, native
from edgecomp.cli import main
from edgecomp.tensor import TensorSpec

AARCH64 = 183  # e_machine of ELF
QUICK = ("--set", "passes.0.refits=0")
MODEL = ("tiny_models:described", "--calibration", "tiny_models:images", *QUICK)


def not_finite() -> tuple[nn.Module, list[TensorSpec]]:
    module, specs = tiny_models.described()
    weight = module.get_parameter("head.weight")
    with torch.no_grad():
        weight[0, 0], weight[1, 1] = torch.nan, torch.inf
    return module, specs


def wide() -> tuple[nn.Module, list[TensorSpec]]:
    """A Hessian of its columns would take terabytes."""
    return nn.Sequential(nn.Linear(1_000_000, 16)), [TensorSpec("x", "float32", (1, 1_000_000))]


def ones() -> Iterator[dict[str, np.ndarray]]:
    yield {"x": np.ones((1, 1_000_000), np.float32)}


@dataclass(frozen=True)
class Case:
    """A command that is refused: its error, words of the message, and what has to be in the folder before it."""

    error: type[errors.EdgecompError]
    arguments: tuple[str, ...]
    words: tuple[str, ...]
    prepare: Callable[[Path], object] = lambda folder: None


def compress(*arguments: str) -> tuple[str, ...]:
    return ("compress", *arguments, "-o", "out.ec")


def write(name: str, content: str | bytes) -> Callable[[Path], object]:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def checkpoint(damage: Callable[[Path], object]) -> Callable[[Path], object]:
    """A checkpoint `m.ec`, then damaged."""

    def prepare(folder: Path) -> None:
        edgecomp.compress("tiny_models:tied_tokens", "lut-4bit", "tiny_models:tokens", overrides=["passes.0.refits=0"]).save("m.ec")
        damage(folder / "m.ec")

    return prepare


def cut_weights(folder: Path) -> None:
    with (folder / "weights.safetensors").open("r+b") as file:
        file.truncate(1000)


def edit_weights(folder: Path) -> None:
    with (folder / "weights.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x55")


def set_version(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "version": 99}))


def artifact(damage: Callable[[Path], object]) -> Callable[[Path], object]:
    """A model `m.onnx` with its data in `m.data`, which is then damaged."""

    def prepare(folder: Path) -> None:
        save_encoder(folder / "m.onnx", embedding_table(), external=True)
        damage(folder / "m.data")

    return prepare


def library_for_another_machine(folder: Path) -> None:
    save_with_our_node(folder / "ours.onnx")
    data = bytearray(Path(native.get_library_path()).read_bytes())
    struct.pack_into("<H", data, 18, AARCH64)
    (folder / "other.so").write_bytes(data)


CASES = {
    "no module": Case(errors.ModelError, compress("no_such_module:f", *QUICK), ("importable package.module:attribute", "no_such")),
    "no folder": Case(errors.ModelError, compress("./no-such-folder"), ("no-such-folder must be a Hugging Face folder",)),
    "no program": Case(errors.ModelError, compress("none.pt2"), ("none.pt2", "no such file")),
    "no program inside": Case(
        errors.ModelError,
        compress("m.pt2", "--trust-code"),
        ("m.pt2 must be a file written by torch.export.save",),
        write("m.pt2", "no zip"),
    ),
    "program that is not trusted": Case(errors.ModelError, compress("m.pt2"), ("m.pt2", "--trust-code"), write("m.pt2", "no zip")),
    "no GGUF inside": Case(errors.ModelError, compress("./m.gguf"), ("m.gguf must be",), write("m.gguf", "no GGUF")),
    "unknown recipe": Case(errors.ConfigError, compress(*MODEL, "-r", "lut-44bit"), ("lut-44bit", "did you mean lut-4bit?")),
    "unknown recipe key": Case(errors.ConfigError, compress(*MODEL, "--set", "passes.0.bitz=4"), ("bitz: unknown key",)),
    "impossible bits": Case(errors.ConfigError, compress(*MODEL, "--set", "passes.0.bits=9"), ("bits", "less than or equal to 8")),
    "block size that does not fit": Case(
        errors.ConfigError, compress(*MODEL, "--set", "passes.0.block_size=96"), ("layer ", "block sizes that fit: [32, 64]")
    ),
    "recipe that is no TOML": Case(
        errors.ConfigError, compress(*MODEL, "-r", "r.toml"), ("r.toml must be valid TOML",), write("r.toml", "bits = = 4")
    ),
    "no calibration": Case(errors.CalibrationError, compress("tiny_models:described", *QUICK), ("--calibration FILE",)),
    "calibration that is not there": Case(
        errors.CalibrationError, compress("tiny_models:described", "--calibration", "none.npz"), ("none.npz must be a readable",)
    ),
    "empty calibration": Case(
        errors.CalibrationError,
        compress("tiny_models:described", "--calibration", "empty.npz"),
        ("same number of samples, at least one",),
        lambda folder: np.savez(folder / "empty.npz", image=np.zeros((0, 3, 16, 16), np.float32)),
    ),
    "NaN and infinite weights": Case(
        errors.ModelError, compress("test_error_table:not_finite", *MODEL[1:]), ("head.weight holds 2 NaN or infinite values",)
    ),
    "more memory than there is": Case(
        errors.ConfigError,
        compress("test_error_table:wide", "--calibration", "test_error_table:ones", *QUICK, "--set", "passes.0.weighting=hessian"),
        (
            "the errors of 0 by a Hessian of 1,000,000 columns needs 20,000.0 GB",
            "are available",
            "--set passes.0.weighting=activations",
        ),
    ),
    "truncated checkpoint": Case(
        errors.CheckpointError, ("export", "m.ec", "-o", "m.onnx"), ("weights.safetensors", "copy"), checkpoint(cut_weights)
    ),
    "edited checkpoint": Case(
        errors.CheckpointError, ("export", "m.ec", "-o", "m.onnx"), ("sha256 differs", "copy"), checkpoint(edit_weights)
    ),
    "newer checkpoint": Case(
        errors.CheckpointError, ("inspect", "m.ec"), ("version 99, this edgecomp reads 1", "install"), checkpoint(set_version)
    ),
    "no checkpoint": Case(errors.CheckpointError, ("export", "none.ec", "-o", "m.onnx"), ("must be a checkpoint folder",)),
    "artifact without its data": Case(
        errors.CheckpointError,
        ("bench", "m.onnx"),
        ("needs its data file m.data", "copy both"),
        artifact(lambda data: data.unlink()),
    ),
    "artifact with short data": Case(
        errors.CheckpointError,
        ("bench", "m.onnx"),
        ("m.data must hold at least 25600 bytes and holds 5",),
        artifact(lambda data: data.write_bytes(b"short")),
    ),
    "no artifact": Case(
        errors.ModelError, ("verify", "m.onnx", "--against", "tiny_models:described"), ("no ONNX model at m.onnx",)
    ),
    "no ExecuTorch program": Case(
        errors.ModelError, ("verify", "m.pte", "--against", "tiny_models:described"), ("no ExecuTorch program at m.pte",)
    ),
    "no ExecuTorch program inside": Case(
        errors.CheckpointError,
        ("bench", "m.pte"),
        ("m.pte is not a complete ExecuTorch program", "copy or export it again"),
        write("m.pte", "no program"),
    ),
    "library for another machine": Case(
        errors.RuntimeUnavailableError,
        ("bench", "ours.onnx", "--library", "other.so", "--rounds", "1"),
        ("other.so does not load",),
        library_for_another_machine,
    ),
    "parent of the output is a file": Case(
        errors.OutputError, ("compress", *MODEL, "-o", "file/out.ec"), ("folder of an output must exist",), write("file", "")
    ),
    "output exists": Case(errors.OutputError, compress(*MODEL), ("out.ec exists already", "--force"), write("out.ec", "mine")),
    "only a checkpoint is replaced": Case(
        errors.OutputError, (*compress(*MODEL), "--force"), ("only a checkpoint may be replaced",), write("out.ec", "mine")
    ),
    "nothing to report": Case(errors.ModelError, ("report", ".", "-o", "r.html"), ("nothing to report", "bench*.json")),
}


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Every file's bytes, and None for folders."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize("name", CASES)
def test_what_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    case = CASES[name]
    monkeypatch.chdir(tmp_path)
    case.prepare(tmp_path)
    before = snapshot(tmp_path)
    assert main(case.arguments) == case.error.exit_code
    printed = capsys.readouterr()
    message = printed.err[printed.err.rindex(f"edgecomp {case.arguments[0]}: error: ") :]
    assert all(word in message for word in case.words), message
    assert printed.out == ""
    assert "Traceback" not in printed.err
    assert snapshot(tmp_path) == before


def test_calibration_text_that_is_too_short(
    tmp_path: Path, llama_folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short.txt").write_text("the quick brown fox")
    assert main(compress(llama_folder, "--calibration", "short.txt")) == errors.CalibrationError.exit_code
    assert "short.txt must hold at least one window of 512 tokens, got 4 tokens" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["short.txt"]


def test_damaged_weights(
    tmp_path: Path, bert_folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(bert_folder, "bert")
    cut = tmp_path / "bert" / "model.safetensors"
    cut.write_bytes(cut.read_bytes()[:5000])
    assert main(compress("./bert", *QUICK)) == errors.ModelError.exit_code
    assert "bert must be a Hugging Face folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["bert"]


def test_force_replaces_an_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*compress(*MODEL), "--set", "passes.0.bits=4"]) == 0
    first = (tmp_path / "out.ec" / "manifest.json").read_bytes()
    other = [*compress(*MODEL), "--set", "passes.0.bits=3"]
    assert main(other) == errors.OutputError.exit_code
    assert (tmp_path / "out.ec" / "manifest.json").read_bytes() == first
    assert main([*other, "--force"]) == 0
    assert (tmp_path / "out.ec" / "manifest.json").read_bytes() != first
    assert [path.name for path in tmp_path.iterdir()] == ["out.ec"]
    capsys.readouterr()


def test_a_model_without_our_nodes_is_benched_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save_encoder(tmp_path / "plain.onnx", embedding_table())
    quick = ("--rounds", "1", "--min-iterations", "2", "--min-duration", "0", "-s", "4", "--json", "--quiet")
    assert main(["bench", "plain.onnx", *quick]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)[0]["artifact"]["uses_edgecomp"] is False
    assert printed.err == "edgecomp bench: plain.onnx has no nodes of ours: the runtime's own kernels ran\n"


def test_our_library_for_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    library_for_another_machine(tmp_path)
    monkeypatch.setattr(native, "_LIBRARY", tmp_path / "other.so")
    native._library.cache_clear()
    try:
        assert main(["doctor"]) == errors.RuntimeUnavailableError.exit_code
    finally:
        native._library.cache_clear()
    assert "the kernel library must load on this machine" in capsys.readouterr().err


def test_a_file_that_cannot_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    with small_files():
        code = main([*compress(*MODEL), "--quiet"])
    assert code == errors.OutputError.exit_code
    printed = capsys.readouterr()
    assert "could not be written" in printed.err
    assert "File too large" in printed.err
    assert not (tmp_path / "out.ec").exists()
    assert all(path.parent.name == ".out.ec.work" or path.is_dir() for path in tmp_path.iterdir())


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a memory file system with the options given; again with other options changes them."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount; test_a_file_that_cannot_grow shows the same error by another limit")
    folder = tmp_path / "disk"
    folder.mkdir()
    options: list[str] = []

    def mount(option: str) -> Path:
        options.append(option)
        first = ["mount", "-t", "tmpfs", "-o", option, "none", str(folder)]
        command = first if len(options) == 1 else ["mount", "-o", f"remount,{option}", str(folder)]
        if subprocess.run(command, check=False).returncode != 0:
            options.clear()
            pytest.skip("this root may not mount, as in a container; test_a_file_that_cannot_grow shows the same error")
        return folder

    yield mount
    if options:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_named_and_the_work_goes_on_when_there_is_room(
    mounted: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    disk = mounted("size=64k")
    command = ["compress", *MODEL, "-o", str(disk / "out.ec")]
    assert main(command) == errors.OutputError.exit_code
    printed = capsys.readouterr()
    assert "No space left on device" in printed.err
    assert "Traceback" not in printed.err
    assert [path.name for path in disk.iterdir()] == [".out.ec.work"]
    mounted("size=4m")
    assert main(command) == 0
    assert "continuing an interrupted run" in capsys.readouterr().err
    assert [path.name for path in disk.iterdir()] == ["out.ec"]


@pytest.mark.parametrize("command", [["compress", *MODEL], ["report", "run"]])
def test_a_disk_that_is_read_only(
    command: list[str],
    mounted: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    disk = mounted("ro")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    save_encoder(tmp_path / "m.onnx", embedding_table())
    quick = ("--rounds", "1", "--min-iterations", "2", "--min-duration", "0", "-s", "4", "--quiet")
    assert main(["bench", "m.onnx", *quick, "--save", "run/bench.json"]) == 0
    capsys.readouterr()
    assert main([*command, "-o", str(disk / "out")]) == errors.OutputError.exit_code
    assert "Read-only file system" in capsys.readouterr().err
    assert not list(disk.iterdir())
