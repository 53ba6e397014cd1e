"""Reads an artifact of either kind."""

from __future__ import annotations

from pathlib import Path

from edgecomp.artifact.executorch_file import ExecutorchFile, read_executorch
from edgecomp.artifact.onnx_file import OnnxFile, read_onnx


def read_artifact(path: Path) -> OnnxFile | ExecutorchFile:
    """Read an artifact's structure, and check that it is complete: a `.pte`, or else an ONNX model.

    Raises:
        ModelError: no such file.
        CheckpointError: the artifact is incomplete, or made for another edgecomp.

    """
    return read_executorch(path) if path.suffix == ".pte" else read_onnx(path)
