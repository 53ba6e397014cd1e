"""Compress, export, run on ONNX Runtime: with our library and stock, against the packed model in PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import edgecomp
from edgecomp.models import load_model

ort = pytest.importorskip("onnxruntime")


def run_onnx(path: Path, inputs: dict[str, np.ndarray], *, library: bool) -> np.ndarray:
    """The first output; inputs that the graph does not need are left out."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    if library:
        options.register_custom_ops_library(str(edgecomp.get_library_path()))
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    wanted = {given.name for given in session.get_inputs()}
    output: np.ndarray = session.run(None, {name: value for name, value in inputs.items() if name in wanted})[0]
    return output


def batch(vocabulary: int, rows: int, length: int) -> dict[str, np.ndarray]:
    """Random tokens, the last row padded at its end."""
    mask = np.ones((rows, length), np.int64)
    mask[-1, length - 2 :] = 0
    return {"input_ids": np.random.default_rng(0).integers(2, vocabulary, (rows, length)), "attention_mask": mask}


def relative_difference(got: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("architecture", ["bert", "llama"])
@pytest.mark.parametrize("compute", ["float", "int8"])
def test_the_exported_model_computes_what_the_packed_one_does(
    request: pytest.FixtureRequest, tmp_path: Path, text_file: str, architecture: str, compute: str
) -> None:
    folder = request.getfixturevalue(f"{architecture}_folder")
    overrides = ["passes.0.refits=1", f"passes.0.compute={compute}"]
    options = {"samples": 4, "sequence_length": 16}
    packed = edgecomp.compress(folder, "lut-8bit", text_file, overrides=overrides, **options)  # type: ignore[arg-type]
    packed.save(tmp_path / "m.ec")
    path = tmp_path / "m.onnx"
    edgecomp.export(edgecomp.load(tmp_path / "m.ec"), "onnx", path)
    original = load_model(folder)
    for rows, length in ((1, 5), (3, 11)):
        inputs = batch(60, rows, length)
        expected = packed(inputs)[0].numpy()
        assert relative_difference(expected, original(inputs)[0].numpy()) < 0.05
        for library in (False, True):
            got = run_onnx(path, inputs, library=library)
            assert got.shape == expected.shape
            # A stock runtime computes in float whatever the mode: the function of a node knows no quantised activations.
            if compute == "float":
                assert np.abs(got - expected).max() < 1e-4
            else:
                assert relative_difference(got, expected) < 0.02
