"""What application developers build on: find_package(edgecomp), the libraries and headers of the wheel."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import executorch_programs
import numpy as np
import pytest
import torch

import edgecomp

SOURCE = Path(__file__).parent / "cpp" / "consumer"


def run(*command: str | Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, env={**os.environ, "PATH": path}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("consumer")
    spec = importlib.util.find_spec("executorch")
    assert spec is not None and spec.submodule_search_locations
    executorch = f"-Dexecutorch_DIR={spec.submodule_search_locations[0]}/share/cmake"
    own = f"-Dedgecomp_DIR={edgecomp.get_cmake_path()}"
    run("cmake", "-S", SOURCE, "-B", folder, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Debug", executorch, own)
    run("cmake", "--build", folder)
    return folder


@pytest.mark.parametrize("kind", ["static", "shared"])
def test_kernels_without_a_runtime(build: Path, kind: str) -> None:
    expected = " ".join(str(32 * row) for row in range(16))
    assert run(build / f"kernels_{kind}") == f"{edgecomp.__version__} {expected}\n"


@pytest.mark.parametrize("kind", ["static", "shared"])
def test_program_in_an_application(build: Path, kind: str, tied_program: Path) -> None:
    got = np.array(run(build / f"program_{kind}", tied_program).split(), np.float32)
    (expected,) = executorch_programs.tied_model().module(torch.tensor([[1, 2, 3]]))
    np.testing.assert_allclose(got, expected[0, -1].numpy(), atol=1e-4)
