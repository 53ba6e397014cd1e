"""The functions of a model keep its weights packed in a stock ONNX Runtime: no float32 copies, at load or at run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from packed_models import Chain, chain_model, compressed, features, linear, plan, random_factor
from torch import nn

from edgecomp.exporters import export

# Peaks are high-water marks of a whole process, so that of an empty session is taken first, in the same process.
_MEASURE = """
import json, sys
import numpy as np, onnxruntime as ort

def peak_bytes():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))

empty, model, columns, rows = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
ort.InferenceSession(empty)
before = peak_bytes()
session = ort.InferenceSession(model)
loaded = peak_bytes()
session.run(None, {"x": np.ones((rows, columns), np.float32)})
print(json.dumps({"load": loaded - before, "run": peak_bytes() - before}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_peak_memory_of_the_functions_is_bounded(tmp_path: Path) -> None:
    """Six layers of 4096 x 1024, 13.5 MB, 100 MB as float32. Measured with ONNX Runtime 1.20 and 1.32: 1.4 times the file."""
    empty, path = tmp_path / "empty.onnx", tmp_path / "model.onnx"
    export(compressed(Chain({"relu": nn.ReLU()}), {}, {}, [features(4)]), "onnx", empty)
    shapes = [(4096, 1024), (1024, 4096)] * 3
    model = chain_model(
        {f"fc{i}": plan([linear(str(i))]) for i in range(len(shapes))},
        {str(i): random_factor(n, k, seed=i) for i, (n, k) in enumerate(shapes)},
        features(1024),
    )
    size = export(model, "onnx", path).total_bytes
    command = [sys.executable, "-c", _MEASURE, str(empty), str(path), "1024", "1"]
    peaks = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert peaks["load"] < size
    assert peaks["run"] < 3 * size
