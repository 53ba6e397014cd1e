"""No rows, no indices and images of no pixels, on the ONNX Runtime at hand with our library, in every variant, and without."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import empty_cases
import pytest

from edgecomp import native
from edgecomp.exported.library import AUTO, NONE

SCRIPT = Path(empty_cases.__file__)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("empty")
    empty_cases.save_models(folder)
    return folder


def check(models: Path, library: str, **environment: str) -> None:
    command = [sys.executable, str(SCRIPT), str(models), library]
    result = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    # Both compute modes.
    checks = {name: 2 * len(case.shapes) for name, case in empty_cases.CASES.items()}
    assert int(result.stdout) == sum(checks.values()) + sum(checks[name] for name in empty_cases.NARROW)


def test_stock_runtime(models: Path) -> None:
    check(models, NONE)


@pytest.mark.parametrize("variant", [v.name for v in native.variants()])
def test_library(models: Path, variant: str) -> None:
    if not next(v for v in native.variants() if v.name == variant).available:
        pytest.skip(f"this CPU cannot run {variant}")
    check(models, AUTO, EDGECOMP_FORCE_ISA=variant)
