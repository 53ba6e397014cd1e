"""Settings and fixtures of all tests."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when onnxruntime is first imported


@pytest.fixture(scope="session")
def empty_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A custom-op library that registers nothing: ONNX Runtime loads it and runs nodes by their function bodies."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("library")
    source, library = folder / "empty.c", folder / "libempty.so"
    source.write_text("void *RegisterCustomOps(void *options, const void *api) { (void)options; (void)api; return 0; }\n")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    return library
