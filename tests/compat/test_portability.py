"""Exported models on the ONNX Runtime at hand: the suite runs this file on the current one, `make test-compat` on an old one."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import edgecomp
from edgecomp.exported.library import AUTO, NONE
from edgecomp.exported.session import OnnxModel
from edgecomp.ops import DOMAIN

RELATIVE_BOUNDS = {"float": 1e-4, "int8": 0.03}


@pytest.fixture(scope="module", params=["bert", "llama"])
def architecture(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module", params=RELATIVE_BOUNDS)
def compute(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, text_file: str, architecture: str, compute: str
) -> Path:
    """An encoder or a causal language model of 4 bits."""
    folder = request.getfixturevalue(f"{architecture}_folder")
    overrides = ["passes.0.refits=1", f"passes.0.compute={compute}"]
    model = edgecomp.compress(folder, "lut-4bit", text_file, overrides=overrides, samples=4, sequence_length=16)
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    edgecomp.export(model, "onnx", path)
    return path


def test_the_runtime_is_the_one_that_was_asked_for() -> None:
    """`make test-compat` puts another one first on the path and names it; without a name any will do."""
    assert onnxruntime.__version__ == os.environ.get("EDGECOMP_TEST_ONNXRUNTIME", onnxruntime.__version__)


def test_library_and_stock_runtime_agree(exported: Path, compute: str) -> None:
    """The stock runtime computes in float whatever the mode, so int8 mode differs by what rounding activations costs."""
    with_library, stock = OnnxModel(exported, AUTO), OnnxModel(exported, NONE)
    assert with_library.library is not None and stock.library is None
    for rows, length in ((1, 1), (2, 9)):
        ids = np.random.default_rng(length).integers(2, 60, (rows, length))
        mask = np.ones((rows, length), np.int64)
        mask[-1, 7:] = 0
        inputs = {"input_ids": ids, "attention_mask": mask}
        ours, theirs = with_library.run(inputs), stock.run(inputs)
        assert ours.keys() == theirs.keys()
        for name, expected in theirs.items():
            assert ours[name].shape == expected.shape
            assert np.linalg.norm(ours[name] - expected) <= RELATIVE_BOUNDS[compute] * np.linalg.norm(expected)


def test_the_model_is_valid_and_leaves_no_input_out(exported: Path) -> None:
    """Runtimes before 1.24 die of an input that is left out between others: absent ones are empty tensors."""
    onnx.checker.check_model(exported, full_check=True)
    nodes = [node for node in onnx.load(exported, load_external_data=False).graph.node if node.domain == DOMAIN]
    assert nodes
    assert [node.name for node in nodes if "" in node.input] == []
