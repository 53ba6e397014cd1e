"""Small programs of ExecuTorch, exported once a session, and what the C++ runner computes from them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from packed_models import chain_model, features, gather, linear, plan, random_factor

from edgecomp.bench.job import Job
from edgecomp.bench.options import BenchOptions
from edgecomp.checkpoint import CompressedModel
from edgecomp.compression import compress
from edgecomp.devices import open_device
from edgecomp.devices.session import Session
from edgecomp.exported.executorch_file import read_executorch
from edgecomp.exported.library import resolve_library
from edgecomp.exporters import ExportOptions, export
from edgecomp.tensor import TensorSpec


def tied_model() -> CompressedModel:
    """Token ids to scores of 200 tokens, all of it packed."""
    plans = {"table": plan([gather()]), "hidden": plan([linear("h")], bias=True), "head": plan([linear()])}
    factors = {"w": random_factor(200, 64), "h": random_factor(64, 64, bits=3)}
    return chain_model(plans, factors, TensorSpec("ids", "int64", ("batch", "sequence")))


def save_tied(folder: Path, *, external: bool = False) -> Path:
    path = folder / "tied.pte"
    export(
        tied_model(), "executorch", path, options=ExportOptions(max_sizes={"batch": 4, "sequence": 16}, external_weights=external)
    )
    return path


def save_tied_onnx(folder: Path) -> Path:
    """The same as an ONNX model."""
    path = folder / "tied.onnx"
    export(tied_model(), "onnx", path)
    return path


def save_linear(folder: Path) -> Path:
    """One packed layer of 512 inputs."""
    path = folder / "linear.pte"
    model = chain_model({"fc": plan([linear()], bias=True)}, {"w": random_factor(1024, 512)}, features(512), "int8")
    export(model, "executorch", path)
    return path


@dataclass(frozen=True)
class Example:
    """A program, inputs for it, and what the same packed weights give for them in PyTorch."""

    program: Path
    inputs: Mapping[str, np.ndarray]
    expected: Mapping[str, np.ndarray]
    compute: str

    def check(self, got: Mapping[str, np.ndarray]) -> None:
        """`float` must be exact but for rounding; `int8` may round an activation to the neighbour, as for ONNX."""
        assert got.keys() == self.expected.keys()
        for name, expected in self.expected.items():
            assert got[name].shape == expected.shape
            if self.compute == "float":
                assert np.abs(got[name] - expected).max() <= 1e-4 * np.abs(expected).max(), name
            else:
                assert np.linalg.norm(got[name] - expected) <= 0.02 * np.linalg.norm(expected), name


def save_network(folder: Path, compute: str) -> Example:
    """A compressed convolutional network."""
    model = compress("tiny_models:described", "lut-8bit", "tiny_models:images", overrides=_overrides(compute))
    image = np.random.default_rng(1).standard_normal((2, 3, 16, 16)).astype(np.float32)
    return _save_example(model, {"image": image}, {"batch": 2}, folder, compute)


def save_language_model(source: str, text: str, folder: Path, compute: str) -> Example:
    """A compressed language model without a cache; the second row ends in padding."""
    model = compress(source, "lut-8bit", text, overrides=_overrides(compute), samples=4, sequence_length=16)
    mask = np.ones((2, 9), np.int64)
    mask[1, 7:] = 0
    inputs = {"input_ids": np.random.default_rng(1).integers(2, 60, mask.shape), "attention_mask": mask}
    return _save_example(model, inputs, {"batch": 2, "sequence": 12}, folder, compute)


def _overrides(compute: str) -> list[str]:
    return ["passes.0.refits=1", f"passes.0.compute={compute}"]


def _save_example(
    model: CompressedModel, inputs: Mapping[str, np.ndarray], max_sizes: Mapping[str, int], folder: Path, compute: str
) -> Example:
    export(model, "executorch", folder / "model.pte", options=ExportOptions(max_sizes=max_sizes))
    return Example(folder / "model.pte", inputs, model.run(inputs), compute)


def run_by_runner(example: Example, device: str = "local", bundle: Path | None = None) -> dict[str, np.ndarray]:
    """The outputs by the C++ runner on a device."""
    program = read_executorch(example.program)
    with tempfile.TemporaryDirectory() as folder, open_device(device) as opened:
        inputs = Path(folder, "inputs.npz")
        np.savez(inputs, **example.inputs)
        options = BenchOptions(inputs=inputs, warmup=0, min_iterations=1, min_duration_s=0)
        job = Job(Session(opened, bundle), program, resolve_library(options.library, program), options, Path(folder))
        return job.pull_outputs(job.run_round())
