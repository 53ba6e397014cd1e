"""The library of operators is ours or the one that is named: never one that lies beside a model or in the current folder."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from onnx_models import save_with_our_node

from edgecomp.cli import main
from edgecomp.devices.bundle import LIBRARIES


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder with libraries that leave a file when they are loaded."""
    compiler = shutil.which("cc")
    assert compiler is not None
    folder = tmp_path / "model"
    folder.mkdir()
    source = tmp_path / "ran.c"
    source.write_text(
        f'#include <stdio.h>\n__attribute__((constructor)) static void ran(void) {{ fclose(fopen("{tmp_path}/ran", "w")); }}\n'
    )
    library = tmp_path / "theirs.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    runtimes = ("libonnxruntime.so.1", "libonnxruntime.so", "libonnxruntime_providers_shared.so", "libstdc++.so.6", "libm.so.6")
    for name in (*LIBRARIES.values(), *runtimes):
        shutil.copy(library, folder / name)
    save_with_our_node(folder / "m.onnx")
    return folder


def test_libraries_beside_a_model_are_not_loaded(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    quick = ["--rounds", "1", "--min-iterations", "2", "--min-duration", "0", "--library", "none"]
    assert main(["inspect", "m.onnx"]) == 0
    assert main(["bench", "m.onnx", *quick]) == 0
    main(["bench", "m.onnx", *quick[:-2]])  # whose operator our library does not have: what counts is which one was loaded
    assert not (tmp_path / "ran").exists()
