"""Language models with a cache on the ONNX Runtime at hand, as tests/compat/test_portability.py."""

from __future__ import annotations

from pathlib import Path

import language_models
import numpy as np
import onnxruntime
import pytest

from edgecomp.checkpoint import CompressedModel
from edgecomp.exporters import ExportOptions, export
from edgecomp.native import get_library_path

PROMPT = [5, 17, 40, 3]
TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int8)": np.int8}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> CompressedModel:
    return language_models.compressed(tmp_path_factory.mktemp("model"), "phi3")


@pytest.fixture(scope="module", params=["float32", "int8"])
def folder(request: pytest.FixtureRequest, model: CompressedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "model"
    export(model, "onnx", folder, options=ExportOptions(cache=request.param))
    return folder


@pytest.mark.parametrize("library", [True, False], ids=["library", "stock"])
def test_greedy_tokens_are_those_of_pytorch(model: CompressedModel, folder: Path, library: bool) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if library:
        options.register_custom_ops_library(get_library_path())
    session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    cache = {
        spec.name: np.zeros((1, spec.shape[1], 0, spec.shape[3]), TYPES[spec.type])
        for spec in session.get_inputs()
        if spec.name.startswith("past")
    }
    tokens, new = list(PROMPT), PROMPT
    for _ in range(4):
        mask = np.ones((1, len(tokens)), np.int64)
        logits, *rows = session.run(None, {"input_ids": np.array([new]), "attention_mask": mask, **cache})
        cache = dict(zip(cache, rows, strict=True))
        new = [int(logits[0, -1].argmax())]
        tokens += new
    assert tokens[len(PROMPT) :] == language_models.greedy(model, PROMPT, 4)
