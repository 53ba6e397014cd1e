from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import executorch_programs
import numpy as np
import pytest
import torch
from packed_models import chain_model, features, linear, plan, random_factor

from edgecomp import native
from edgecomp.errors import CheckpointError, ModelError, RuntimeUnavailableError
from edgecomp.exported.executorch_session import ExecutorchModel
from edgecomp.exporters import export
from edgecomp.ops import OPERATORS

IDS = np.random.default_rng(0).integers(0, 200, (2, 5))


@pytest.fixture(scope="module")
def program(tied_program: Path) -> Iterator[ExecutorchModel]:
    with ExecutorchModel(tied_program) as artifact:
        yield artifact


def test_outputs_by_name_and_surplus_inputs_left_out(program: ExecutorchModel) -> None:
    (expected,) = executorch_programs.tied_model().module(torch.from_numpy(IDS))
    got = program.run({"ids": IDS, "attention_mask": IDS})
    assert list(got) == ["y"]
    np.testing.assert_allclose(got["y"], expected.numpy(), atol=1e-4)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, r"needs an input ids, int64 \[batch <= 4, sequence <= 16\], and got none"),
        ({"ids": IDS.astype(np.float32)}, r"must be int64 \[batch <= 4, sequence <= 16\], got float32 \[2, 5\]"),
        ({"ids": np.zeros((1, 17), np.int64)}, r"got int64 \[1, 17\].*--max-size"),
        ({"ids": np.zeros(3, np.int64)}, r"got int64 \[3\]"),
        (
            {"ids": IDS + 200},
            r"edgecomp::lut_gather\.out: every index must lie in \[-N, N\); got indices of shape \[2, 5\], N=200",
        ),
    ],
)
def test_inputs_that_do_not_fit(program: ExecutorchModel, inputs: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        program.run(inputs)
    program.run({"ids": IDS})  # goes on


def test_a_process_that_ends_is_an_error(tied_program: Path) -> None:
    with ExecutorchModel(tied_program) as artifact:
        os.kill(artifact._worker._process.pid, signal.SIGKILL)
        with pytest.raises(RuntimeUnavailableError, match=r"the process that runs .*tied\.pte was ended by SIGKILL"):
            artifact.run({"ids": IDS})


def test_library_that_does_not_load(tied_program: Path, tmp_path: Path) -> None:
    (tmp_path / "other.so").write_bytes(b"no library")
    with pytest.raises(CheckpointError, match=r"other\.so"):
        ExecutorchModel(tied_program, str(tmp_path / "other.so"))


def test_library_for_another_release_is_not_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert native.get_library_path("executorch").endswith("libedgecomp_executorch.so")
    (tmp_path / "version.txt").write_text("1.4.0\n")
    monkeypatch.setattr(native, "_EXECUTORCH_VERSION", tmp_path / "version.txt")
    installed = metadata.version("executorch").partition("+")[0]
    with pytest.raises(RuntimeUnavailableError, match=f"built for ExecuTorch 1.4.0, and {installed} is installed"):
        native.get_library_path("executorch")
    monkeypatch.setattr(native, "_EXECUTORCH_LIBRARY", tmp_path / "none.so")
    with pytest.raises(RuntimeUnavailableError, match=r"built without ExecuTorch.*--no-build-isolation"):
        native.get_library_path("executorch")


# In a process of its own: the second copy is a library of its own for the loader, and must find the operators registered.
SECOND_LOAD = """
import ctypes, sys
import torch
from executorch.runtime import Runtime
torch.ops.load_library(sys.argv[1])
torch.ops.load_library(sys.argv[1])
copy = ctypes.CDLL(sys.argv[2])
assert copy.ec_executorch_register() == 0
names = [name for name in Runtime.get().operator_registry.operator_names if name.startswith("edgecomp::")]
assert sorted(names) == sorted(sys.argv[4:]), names
method = Runtime.get().load_program(sys.argv[3]).load_method("edgecomp_input_names")
assert method.execute([]) == ["ids"]
"""


def test_loading_the_library_twice_registers_once(tied_program: Path, tmp_path: Path) -> None:
    library = native.get_library_path("executorch")
    copy = shutil.copy(library, tmp_path / "copy.so")
    names = [name for operator in OPERATORS.values() for name in operator.executorch_names]
    result = subprocess.run(
        [sys.executable, "-P", "-c", SECOND_LOAD, library, str(copy), str(tied_program), *names],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("array", "bad", "message"),
    [
        ("scales", np.int8(-128), r"scales must lie in \[-127, 127\]"),
        ("tile_book", np.uint16(3), "every entry of tile_book must name a codebook that is there"),
        ("row_scale", np.float32(np.nan), "row_scale must be finite"),
    ],
)
def test_damaged_values_are_refused(books_program: Path, tmp_path: Path, array: str, bad: np.generic, message: str) -> None:
    path = Path(shutil.copy(books_program, tmp_path))
    with path.open("r+b") as file:
        file.seek(position_of(array, books_program))
        file.write(bad.tobytes())
    with ExecutorchModel(path) as artifact, pytest.raises(ModelError, match=message):
        artifact.run({"x": np.ones((1, 64), np.float32)})


# The file is mapped: written in place, it changes under a program whose factors were checked in full before.
CHANGED_UNDER_WAY = """
import sys
import torch
from executorch.runtime import Runtime
library, program, position = sys.argv[1], sys.argv[2], int(sys.argv[3])
torch.ops.load_library(library)
method = Runtime.get().load_program(program).load_method("forward")
x = torch.ones(1, 64)
assert torch.equal(method.execute([x])[0], method.execute([x])[0])
with open(program, "r+b") as file:
    file.seek(position)
    file.write(b"\\xff\\xff")
try:
    method.execute([x])
except RuntimeError:
    print("refused")
"""


def test_bounds_are_checked_at_every_call(books_program: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(books_program, tmp_path))
    arguments = [native.get_library_path("executorch"), str(path), str(position_of("tile_book", books_program))]
    result = subprocess.run(
        [sys.executable, "-P", "-c", CHANGED_UNDER_WAY, *arguments], capture_output=True, text=True, check=False
    )
    assert result.stdout == "refused\n", result.stderr
    assert "every entry of tile_book must name a codebook that is there" in result.stderr


BOOKS_FACTOR = random_factor(512, 64, books=3)


@pytest.fixture(scope="module")
def books_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A matrix with several codebooks, so that each of its arrays is found in the file."""
    path = tmp_path_factory.mktemp("books") / "books.pte"
    export(chain_model({"fc": plan([linear()])}, {"w": BOOKS_FACTOR}, features(64)), "executorch", path)
    return path


def position_of(array: str, program: Path) -> int:
    values, content = BOOKS_FACTOR.arrays[array].tobytes(), program.read_bytes()
    assert content.count(values) == 1
    return content.index(values)
