"""Reads an artifact of either kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from edgecomp.errors import ModelError
from edgecomp.exported.executorch_file import ExecutorchFile, read_executorch
from edgecomp.exported.onnx_file import OnnxFile, read_onnx
from edgecomp.exported.ort_file import read_ort

_READERS: Mapping[str, Callable[[Path], OnnxFile | ExecutorchFile]] = {
    ".onnx": read_onnx,
    ".ort": read_ort,
    ".pte": read_executorch,
}


def read_exported(path: Path) -> OnnxFile | ExecutorchFile:
    """Read an artifact's structure, and check that it is complete.

    Raises:
        ModelError: no such file, or one of another kind.
        CheckpointError: the artifact is incomplete, or made for another edgecomp.

    """
    if path.suffix not in _READERS:
        raise ModelError(
            f"an exported model must be a file *{' or *'.join(_READERS)}, got {path}: `edgecomp export MODEL.ec --target onnx` "
            "makes one"
        )
    return _READERS[path.suffix](path)
