"""What tests/test_toy_format.py runs on a copy of the package that has the toy format: it is exported, and runs everywhere.

python run_toy.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from packed_models import chain_model, features, linear, plan

from edgecomp import native
from edgecomp.errors import FormatError
from edgecomp.exported.executorch_session import ExecutorchModel
from edgecomp.exported.library import AUTO, NONE
from edgecomp.exported.session import OnnxModel
from edgecomp.exporters import ExportOptions, export
from edgecomp.formats import FORMATS
from edgecomp.ops import OPERATORS
from edgecomp.tensor import Factor

N, K = 5, 7


def refusal(weights: np.ndarray) -> str:
    """Why the kernel's binder refuses these weights for an `N x K` factor."""
    try:
        native.run(OPERATORS["toy_matmul"], np.zeros((1, K), np.float32), Factor("toy", (N, K), {}, {"weights": weights}))
    except FormatError as error:
        return str(error)
    raise AssertionError("not refused")


def main(folder: Path) -> None:
    """Check every way to run it."""
    weights = np.random.default_rng(0).integers(-127, 128, (N, K)).astype(np.int8)
    factor = FORMATS["toy"].pack(weights)  # type: ignore[attr-defined]
    model = chain_model({"fc": plan([linear()])}, {"w": factor}, features(K))
    export(model, "onnx", folder / "m.onnx")
    export(model, "executorch", folder / "m.pte", options=ExportOptions(max_sizes={"batch": 4}))
    assert native.selected_variants()["toy_matmul"] == "ref"
    for rows in (0, 1, 4):
        x = np.random.default_rng(rows).standard_normal((rows, K)).astype(np.float32)
        ways = {
            "PyTorch": lambda given: model.module(torch.from_numpy(given))[0].numpy(),
            "C": lambda given: native.run(OPERATORS["toy_matmul"], given, factor),
            "ONNX Runtime": lambda given: OnnxModel(folder / "m.onnx", AUTO).run({"x": given})["y"],
            "stock ONNX Runtime": lambda given: OnnxModel(folder / "m.onnx", NONE).run({"x": given})["y"],
        }
        for way, run in ways.items():
            np.testing.assert_allclose(run(x), x @ weights.T.astype(np.float32), rtol=1e-5, atol=1e-3, err_msg=way)
        with ExecutorchModel(folder / "m.pte") as program:
            np.testing.assert_allclose(program.run({"x": x})["y"], x @ weights.T.astype(np.float32), rtol=1e-5, atol=1e-3)
    assert "weights must be int8 [N, K], got [5, 6]" in refusal(weights[:, :6].copy())
    assert "weights must be int8 [N, K], got float32" in refusal(weights.astype(np.float32))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
