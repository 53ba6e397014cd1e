"""Small programs of ExecuTorch, exported once a session."""

from __future__ import annotations

from pathlib import Path

from packed_models import chain_model, features, gather, linear, plan, random_factor

from edgecomp.checkpoint import CompressedModel
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
