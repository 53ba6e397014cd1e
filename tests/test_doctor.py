from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from edgecomp import doctor, native
from edgecomp.cli import main
from edgecomp.errors import RuntimeUnavailableError


def test_everything_works_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["problems"] == []
    assert [node["operator"] for node in found["nodes"]] == ["LutMatMul", "LutGather", "LutConv2D"]
    assert all(node["relative_difference"] < 1e-5 for node in found["nodes"])
    assert [variant["name"] for variant in found["variants"] if variant["selected"]] == [native.selected_variant()]
    assert set(found["verbs"].values()) == {"ready"}
    versions = {package["name"]: package["version"] for package in found["packages"]}
    assert versions["torch"] == metadata.version("torch")
    assert {"torch", "transformers", "onnx", "onnxruntime", "plotly"} <= set(versions)

    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert f"{native.selected_variant()}: selected" in printed
    assert "LutConv2D in ONNX Runtime: correct" in printed
    assert f"ExecuTorch library: {native.get_library_path('executorch')}" in printed


def test_missing_packages_come_with_the_command_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = metadata.version

    def version(name: str) -> str:
        if name in ("onnxruntime", "torch", "plotly"):
            raise metadata.PackageNotFoundError(name)
        return installed(name)

    monkeypatch.setattr(doctor.metadata, "version", version)
    diagnosis = doctor.diagnose()
    assert diagnosis.problems == ()  # the base works without them
    assert diagnosis.verbs == {
        "compress": "needs torch: pip install 'edgecomp[torch]'",
        "export": "needs torch, onnxruntime: pip install 'edgecomp[onnx]'",
        "export --target executorch": "needs torch: pip install 'edgecomp[executorch]'",
        "verify": "needs torch, onnxruntime: pip install 'edgecomp[onnx]'",
        "bench": "needs onnxruntime: pip install 'edgecomp[bench]'",
        "report": "needs plotly: pip install 'edgecomp[report]'",
    }
    text = diagnosis.to_text()
    assert "torch~=2.13.0: missing: pip install 'edgecomp[torch]'" in text
    assert "ONNX Runtime: not installed: pip install 'edgecomp[bench]'" in text


def test_a_build_without_executorch_is_told_and_no_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(native, "_EXECUTORCH_LIBRARY", tmp_path / "none.so")
    diagnosis = doctor.diagnose()
    assert diagnosis.problems == ()
    assert "ExecuTorch library: this edgecomp was built without ExecuTorch" in diagnosis.to_text()


def run_doctor(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "edgecomp", "doctor"]
    return subprocess.run(command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False)


def test_a_wrong_variant_is_a_problem(tmp_path: Path) -> None:
    result = run_doctor(tmp_path, EDGECOMP_FORCE_ISA="avx9000")
    assert result.returncode == RuntimeUnavailableError.exit_code
    assert "processor:" in result.stdout
    assert "EDGECOMP_FORCE_ISA=avx9000, available:" in result.stderr
    assert "Traceback" not in result.stderr
    assert "ref: selected" in run_doctor(tmp_path, EDGECOMP_FORCE_ISA="ref").stdout


def test_a_missing_library_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(native, "_LIBRARY", tmp_path / "absent.so")
    assert main(["doctor"]) == RuntimeUnavailableError.exit_code
    printed = capsys.readouterr()
    assert "kernel library: missing" in printed.out
    assert "must be installed with the package" in printed.err


def test_a_library_that_registers_nothing_is_a_problem(empty_library: Path) -> None:
    (*_, conv) = doctor._run_nodes(str(empty_library))
    assert conv.problem is not None
    assert "must run it with our library" in conv.problem


def test_a_wrong_result_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    right = doctor.lut.matmul
    monkeypatch.setattr(doctor.lut, "matmul", lambda *arguments, **options: right(*arguments, **options) + np.float32(0.1))
    problems = doctor.diagnose().problems
    assert [problem.partition(":")[0] for problem in problems] == ["LutMatMul", "LutConv2D"]
    assert "must compute what the numpy reference does" in problems[0]


def test_a_runtime_that_does_not_import_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeUnavailableError("ONNX Runtime is needed and does not import")

    monkeypatch.setattr(doctor, "import_onnxruntime", fail)
    assert all("does not import" in problem for problem in doctor.diagnose().problems)


def test_the_doctor_loads_neither_torch_nor_onnx(tmp_path: Path) -> None:
    code = "import sys; from edgecomp.doctor import diagnose; diagnose(); print(sorted({'torch', 'onnx'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_a_checkout_says_that_it_must_be_installed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def requires(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.metadata, "requires", requires)
    assert main(["doctor"]) == RuntimeUnavailableError.exit_code
    assert "pip install ." in capsys.readouterr().err
