"""Programs with another word: refused, or run; where the runtime dies all the same, that is said, and the rest is kept."""

from __future__ import annotations

import shutil
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgecomp.bench.options import BenchOptions
from edgecomp.bench.runner import run_benches
from edgecomp.devices import open_device
from edgecomp.devices.session import Session
from edgecomp.errors import CheckpointError, DeviceError, EdgecompError
from edgecomp.exported.executorch_file import read_executorch
from edgecomp.exported.executorch_session import ExecutorchModel
from edgecomp.native import get_library_path

QUICK = BenchOptions(batch=1, sequence=8, rounds=1, warmup=0, min_iterations=1, min_duration_s=0, max_spread=1e9)
WORDS = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x1234)


def mutants(program: bytes, count: int) -> list[tuple[int, int]]:
    """Places of words before the weights, and what to write there."""
    rng = np.random.default_rng(0)
    size = struct.unpack_from("<Q", program, 16)[0]
    return [(4 * int(rng.integers(12, size // 4)), WORDS[rng.integers(len(WORDS))]) for _ in range(count)]


def test_few_mutants_end_the_measuring_program(tied_program: Path, tmp_path: Path) -> None:
    """A fifth did, before every offset was held to its bounds."""
    source = tied_program.read_bytes()
    path = tmp_path / "m.pte"
    np.save(tmp_path / "ids.npy", np.ones((1, 8), np.int64))
    lines = [("artifact", path), ("file", path), ("library", get_library_path("executorch")), ("threads", 1)]
    lines += [("input", f"ids={tmp_path / 'ids.npy'}"), ("warmup", 0), ("min_iterations", 1)]
    died = 0
    with open_device("local") as device:
        session = Session(device)
        for at, word in mutants(source, 150):
            path.write_bytes(source[:at] + struct.pack("<I", word) + source[at + 4 :])
            try:
                session.ask(path, lines, 30)
            except DeviceError as error:
                died += " died of " in str(error)
            except EdgecompError:
                pass  # refused
    assert died <= 7


def with_word(folder: Path, program: bytes, at: int, word: int) -> Path:
    path = folder / "m.pte"
    path.write_bytes(program[:at] + struct.pack("<i", word) + program[at + 4 :])
    return path


def test_operators_of_negative_numbers_are_refused(tied_program: Path, tmp_path: Path) -> None:
    program = tied_program.read_bytes()
    refused = set()
    for at in range(48, struct.unpack_from("<Q", program, 16)[0] - 4, 4):
        try:
            read_executorch(with_word(tmp_path, program, at, -5))
        except CheckpointError as error:
            refused.add(str(error).partition("(")[2].partition(";")[0])
    assert any(reason.startswith("an instruction calls number -5 of") for reason in refused)


@pytest.fixture
def crashing_library(tmp_path: Path) -> Path:
    """Stands for a runtime with a fault: it ends the process when it is loaded."""
    compiler = shutil.which("cc")
    assert compiler is not None
    source = tmp_path / "crash.c"
    source.write_text("#include <stdlib.h>\n__attribute__((constructor)) static void end(void) { abort(); }\n")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(tmp_path / "crash.so"), str(source)], check=True)
    return tmp_path / "crash.so"


def test_a_runtime_that_dies_is_said_to_have_died(tied_program: Path, crashing_library: Path) -> None:
    with pytest.raises(EdgecompError, match=r"tied\.pte died of SIGABRT: the model is damaged, or made to end the runtime"):
        ExecutorchModel(tied_program, str(crashing_library))
    (record,) = run_benches([tied_program], replace(QUICK, library=str(crashing_library)))
    assert "died of SIGABRT" in str(record.failure)
