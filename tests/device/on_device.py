"""Helpers of the tests on devices."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import onnx
from onnx import TensorProto, helper
from raspberry_pi import RaspberryPi

from edgecomp.bench.options import BenchOptions

QUICK = BenchOptions(sequence=8, rounds=1, warmup=1, min_iterations=5, min_duration_s=0, max_spread=1e9)


def given(name: str) -> Path:
    """A path from the environment."""
    return Path(os.environ[name])


def left_on(pi: RaspberryPi) -> list[str]:
    """Sessions' folders, files on their way, and measuring programs that are still there."""
    folders = "for d in .cache /small /filling /noexec; do ls -d $d/edgecomp/runs/* $d/edgecomp/incoming/*; done 2>/dev/null"
    return [*pi.shell(f"{folders}; true").splitlines(), *programs_on(pi, "[e]dgecomp-run")]


def programs_on(pi: RaspberryPi, pattern: str) -> list[str]:
    """Process numbers of the programs whose command line has the pattern; one in brackets does not find itself."""
    return [line.split()[0] for line in pi.shell(f"ps | grep '{pattern}'; true").splitlines()]


def save_expansion(path: Path, values: int) -> Path:
    """A model whose output is its one input, `values` times: small to bring, and as large to run as one likes."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [values])
    size = helper.make_tensor("size", TensorProto.INT64, [1], [values])
    graph = helper.make_graph([helper.make_node("Expand", ["x", "size"], ["y"])], "expansion", [x], [y], [size])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def bundle_with(bundle: Path, folder: Path, source: str, *flags: str) -> Path:
    """A small bundle whose measuring program is another C++ program, without ONNX Runtime."""
    program = "edgecomp-run-onnxruntime"
    files = ["ld-linux-aarch64.so.1", "libc.so.6", "libm.so.6", "libstdc++.so.6", "libgcc_s.so.1"]
    folder.mkdir()
    for name in files:
        shutil.copy(bundle / name, folder)
    command = ["aarch64-linux-gnu-g++", *flags, "-x", "c++", "-", "-o", str(folder / program)]
    subprocess.run(command, input=source, text=True, check=True)
    description = json.loads((bundle / "bundle.json").read_text(encoding="utf-8")) | {"files": [*files, program]}
    (folder / "bundle.json").write_text(json.dumps(description), encoding="utf-8")
    return folder
