"""Compression that is interrupted goes on where it stopped, and ends with the same bytes."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import tiny_models
import torch
from torch import nn

import edgecomp
from edgecomp import context
from edgecomp.cli import INTERRUPTED, main
from edgecomp.config import PassConfig
from edgecomp.context import PassContext
from edgecomp.draft import Draft
from edgecomp.errors import OutputError
from edgecomp.fitting.lut_fit import LutFit
from edgecomp.formats import lut
from edgecomp.passes import PASSES, lut_kmeans
from edgecomp.resume import FinishedFactor, Kept, Work, discard, open_work
from edgecomp.tensor import ConvParams, Factor, Stage, TensorSpec

TESTS = Path(tiny_models.__file__).parent
KEY, OTHER_KEY = "a" * 64, "b" * 64


class Deep(nn.Module):
    """Twelve layers, each a matrix of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(384, 384) for _ in range(12))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x).relu()
        return x


def deep() -> tuple[nn.Module, list[TensorSpec]]:
    torch.manual_seed(0)
    return Deep(), [TensorSpec("x", "float32", ("batch", 384))]


def vectors() -> list[dict[str, np.ndarray]]:
    return [{"x": np.random.default_rng(seed).standard_normal((8, 384)).astype(np.float32)} for seed in range(4)]


COMPRESS = ("compress", "test_resume:deep", "--calibration", "test_resume:vectors", "-r", "lut-4bit", "-o", "m.ec")
# By the whole Hessian, so that there is time to be killed in.
SLOW = ("--set", "passes.0.weighting=hessian")


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-m", "edgecomp", *arguments]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # A shell starts its background jobs with Ctrl-C ignored, and that is inherited: the tests may run in such a job.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def digests(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def results_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/[!.]*.safetensors"))


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.long
def test_killed_at_random_moments_it_ends_with_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty kills, each some results and some milliseconds after a start, each followed by the same command again."""
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["edgecomp.compression", "edgecomp.cli"])  # torch is imported once, not forty times

    def begin(folder: Path) -> multiprocessing.process.BaseProcess:
        arguments = [*COMPRESS[:-1], str(folder / "m.ec"), *SLOW, "--force", "--quiet"]
        process = processes.Process(target=main, args=(arguments,))
        process.start()
        return process

    (tmp_path / "whole").mkdir()
    begin(tmp_path / "whole").join()
    expected = digests(tmp_path / "whole" / "m.ec")
    moments = random.Random(0)
    killed = 0
    for trial in range(20):
        folder, work = tmp_path / str(trial), tmp_path / str(trial) / ".m.ec.work"
        folder.mkdir()
        process = begin(folder)
        awaited = moments.randint(0, 10)
        wait_for(lambda: len(results_in(work)) >= awaited or not process.is_alive())  # noqa: B023  (called at once)
        time.sleep(moments.uniform(0, 0.1))
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        kept = {path: path.stat().st_mtime_ns for path in results_in(work)}
        process = begin(folder)
        wait_for(lambda: len(results_in(work)) > len(kept) or not process.is_alive())  # noqa: B023  (called at once)
        assert all(path.stat().st_mtime_ns == written for path, written in kept.items() if path.exists())
        process.join()
        assert digests(folder / "m.ec") == expected
        assert not work.exists()
    assert killed >= 18  # a process may end by itself first


def test_control_c_says_how_to_go_on(tmp_path: Path) -> None:
    # So slow that it cannot end before the signal, however busy the machine is.
    process = start(tmp_path, *COMPRESS, "--set", "passes.0.refits=1000", "--quiet")
    wait_for(lambda: len(results_in(tmp_path / ".m.ec.work")) >= 2)
    process.send_signal(signal.SIGINT)
    printed, messages = process.communicate()
    assert process.returncode == INTERRUPTED
    assert printed == ""
    assert messages.startswith("edgecomp compress: interrupted; what is finished is in .m.ec.work: run the same command again")
    assert messages.count("\n") == 1
    assert not (tmp_path / "m.ec").exists()


@pytest.fixture
def fitted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the matrices that were fitted, in order."""
    shapes: list[tuple[int, ...]] = []
    fit = lut_kmeans.fit_lut

    def record(matrix: torch.Tensor, *arguments: object, **settings: object) -> LutFit:
        shapes.append(tuple(matrix.shape))
        return fit(matrix, *arguments, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(lut_kmeans, "fit_lut", record)
    return shapes


def compress(folder: Path, *, bits: int = 4, scale: float = 1, dense_dtype: str = "float32") -> edgecomp.CompressedModel:
    module, specs = deep()
    with torch.no_grad():
        module.get_parameter("layers.0.weight").mul_(scale)
    overrides = [f"passes.0.bits={bits}", "passes.0.refits=1", f"dense_dtype={dense_dtype}"]
    calibration = [{specs[0].name: sample["x"] * scale} for sample in vectors()]
    return edgecomp.compress(module, "lut-4bit", calibration, overrides=overrides, work_folder=folder)


def test_finished_matrices_are_not_fitted_again(tmp_path: Path, fitted: list[tuple[int, ...]]) -> None:
    first = compress(tmp_path / "work")
    assert len(fitted) == 12
    results = results_in(tmp_path / "work")
    assert len(results) == 12
    second = compress(tmp_path / "work")
    assert len(fitted) == 12
    assert first.provenance == second.provenance
    for name, factor in first.factors.items():
        assert all(np.array_equal(array, second.factors[name].arrays[key]) for key, array in factor.arrays.items())


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "swapped"])
def test_a_damaged_result_is_computed_again(damage: str, tmp_path: Path, fitted: list[tuple[int, ...]]) -> None:
    compress(tmp_path / "work")
    paths = results_in(tmp_path / "work")
    sizes = [path.stat().st_size for path in paths]
    path = paths[sizes.index(max(sizes))]
    data = path.read_bytes()
    damaged = {
        "truncated": data[:-100],
        "flipped": data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
        "empty": b"",
        "swapped": b"{}" * 99,
    }
    path.write_bytes(damaged[damage])
    compress(tmp_path / "work")
    assert len(fitted) == 13


@pytest.mark.parametrize("change", [{"bits": 3}, {"scale": 2.0}])
def test_what_decides_the_result_decides_whether_it_is_used_again(
    change: dict[str, float], tmp_path: Path, fitted: list[tuple[int, ...]]
) -> None:
    compress(tmp_path / "work")
    compress(tmp_path / "work", **change)  # type: ignore[arg-type]
    assert len(fitted) == 24
    assert len(results_in(tmp_path / "work")) == 12


def test_how_dense_tensors_are_stored_costs_no_finished_work(tmp_path: Path, fitted: list[tuple[int, ...]]) -> None:
    compress(tmp_path / "work")
    assert compress(tmp_path / "work", dense_dtype="float16").dense["layers.0.bias"].dtype == torch.float16
    assert len(fitted) == 12


def test_starting_afresh_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".m.ec.work" / OTHER_KEY).mkdir(parents=True)
    assert main([*COMPRESS, "--set", "passes.0.refits=0"]) == 0
    assert "starting afresh: .m.ec.work holds results of another model" in capsys.readouterr().err
    assert not (tmp_path / ".m.ec.work").exists()


def test_a_mistake_removes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".m.ec.work" / OTHER_KEY).mkdir(parents=True)
    assert main([*COMPRESS, "--set", "passes.0.block_size=160"]) == 3
    assert [path.name for path in (tmp_path / ".m.ec.work").iterdir()] == [OTHER_KEY]


def test_files_of_others_stay(tmp_path: Path) -> None:
    work = open_work(tmp_path / "work", KEY).work
    work.keep("name", Kept({}, {}))
    (tmp_path / "work" / "mine.txt").write_text("mine")
    discard(tmp_path / "work")
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["mine.txt"]
    discard(tmp_path / "absent")


def test_parts_have_names_of_their_own(tmp_path: Path) -> None:
    work = open_work(tmp_path / "work", KEY).work
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    work.of("one").keep("block/0", Kept({"state": array}, {"loss": 0.1}))
    kept = work.of("one").find("block/0")
    assert kept is not None
    assert kept.facts == {"loss": 0.1}
    assert np.array_equal(kept.arrays["state"], array)
    assert work.of("two").find("block/0") is None
    assert Work().find("block/0") is None


def test_a_factor_that_breaks_its_format_counts_as_absent(tmp_path: Path) -> None:
    work = open_work(tmp_path / "work", KEY).work
    codes, scales = np.zeros((4, 32), np.uint8), np.ones((4, 1), np.int8)
    good = lut.pack(codes, np.zeros((1, 16), np.int8), scales, np.ones(4, np.float32), bits=4, block_size=32)
    work.keep_factor("good", FinishedFactor(good, {"relative_error": 0.25}))
    work.keep_factor("bad", FinishedFactor(Factor("lut", (99, 32), good.attributes, good.arrays), {}))
    found = work.find_factor("good")
    assert found is not None
    assert found.record == {"relative_error": 0.25}
    assert work.find_factor("bad") is None


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "work").write_text("a file")
    work, message = open_work(tmp_path / "work", KEY)
    assert message is None
    with pytest.raises(OutputError, match="to keep finished work in"):
        work.keep("name", Kept({}, {}))


class SplitConfig(PassConfig):
    """Settings of `Split`."""

    method: Literal["split"] = "split"


class Split:
    """Replaces each layer by a chain of two stages; it finishes nothing that could be kept."""

    Config = SplitConfig

    def __init__(self, config: PassConfig) -> None:
        del config

    def prepare(self, draft: Draft, context: PassContext) -> None:
        """Nothing."""

    def requires(self, draft: Draft) -> None:
        """Nothing."""

    def ensures(self, draft: Draft) -> None:
        """Nothing."""

    def run(self, draft: Draft, context: PassContext) -> None:
        """Split each matrix by its singular values."""
        for name, layer in draft.layers.items():
            u, values, v = torch.linalg.svd(draft.matrices.pop(layer.factor).double(), full_matrices=False)
            first, second = values[:32, None] * v[:32], u[:, :32]
            if layer.op == "gather":  # a row is an output
                first, second = u[:, :32] * values[:32], v[:32].T
            draft.matrices |= {f"{name}.b": first.float().contiguous(), f"{name}.c": second.float().contiguous()}
            later = None if layer.conv is None else ConvParams(32, (1, 1))
            stages = Stage(f"{name}.b", layer.op, layer.conv), Stage(f"{name}.c", "conv" if later else "linear", later)
            draft.plans[name] = replace(draft.plans[name], terms=(stages,))


class StoppedError(Exception):
    """Raised in the place of a kill."""


@pytest.mark.parametrize(
    ("layers", "sample"),
    [
        (lambda: [nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64)], np.random.default_rng(0).normal(size=(64, 64))),
        (lambda: [nn.Conv2d(64, 64, 1), nn.Tanh(), nn.Conv2d(64, 64, 1)], np.random.default_rng(0).normal(size=(1, 64, 8, 8))),
        (lambda: [nn.Embedding(96, 64), nn.Tanh(), nn.Linear(64, 64)], np.arange(96)[None]),
    ],
)
@pytest.mark.parametrize("memory", [1 << 30, 1])
def test_chains_end_with_the_same_bytes_wherever_it_stopped(
    layers: Callable[[], list[nn.Module]], sample: np.ndarray, memory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PASSES, "split", Split)
    monkeypatch.setattr(context, "_STATISTIC_BYTES", memory)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Sequential(*layers()), nn.Identity())  # one unit
    recipe = {"version": 1, "passes": [{"method": "split"}, {"method": "lut-kmeans", "bits": 2, "weighting": "hessian"}]}
    calibration = [{"x": sample if sample.dtype == np.int64 else sample.astype(np.float32)}]
    expected = edgecomp.compress(model, recipe, calibration)
    keep = PassContext.keep
    for awaited in range(1, 4):
        left = iter(range(awaited - 1))

        def stop(self: PassContext, factor: str, finished: FinishedFactor, left: Iterator[int] = left) -> FinishedFactor:
            kept = keep(self, factor, finished)
            if next(left, None) is None:
                raise StoppedError
            return kept

        work = tmp_path / str(awaited)
        with monkeypatch.context() as patched, pytest.raises(StoppedError):
            patched.setattr(PassContext, "keep", stop)
            edgecomp.compress(model, recipe, calibration, work_folder=work)
        continued = edgecomp.compress(model, recipe, calibration, work_folder=work)
        assert list(continued.factors) == list(expected.factors)  # what learns goes by their order
        for name, factor in expected.factors.items():
            for key, array in factor.arrays.items():
                assert np.array_equal(array, continued.factors[name].arrays[key]), (awaited, name, key)
