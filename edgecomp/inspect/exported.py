"""Inspects an exported model."""

from __future__ import annotations

from pathlib import Path

from edgecomp.exported.executorch_file import read_executorch
from edgecomp.exported.files import hash_files
from edgecomp.exported.onnx_file import read_onnx
from edgecomp.exported.ort_file import read_ort
from edgecomp.inspect.result import ExecutorchInspection, OnnxInspection


def inspect_onnx(path: Path) -> OnnxInspection:
    """Inspect an ONNX model, of ONNX Runtime's own format too, by its files.

    Raises:
        ModelError: no such file.
        CheckpointError: the model is incomplete, or for another edgecomp.

    """
    file = read_ort(path) if path.suffix == ".ort" else read_onnx(path)
    return OnnxInspection(
        name=path.name,
        files=hash_files(file),
        domains=tuple(sorted(file.domains)),
        inputs=file.inputs,
        outputs=file.outputs,
        producer=file.producer,
        metadata=file.metadata,
        own_operators=tuple(file.own_operators),
        unknown_operators=tuple(file.unknown_operators),
        needs_library=file.needs_library,
    )


def inspect_executorch(path: Path) -> ExecutorchInspection:
    """Inspect a program by its files.

    Raises:
        ModelError: no such file.
        CheckpointError: the program is incomplete, or made for other operators than this edgecomp's.

    """
    file = read_executorch(path)
    return ExecutorchInspection(
        name=path.name,
        files=hash_files(file),
        inputs={spec.name: spec.describe() for spec in file.inputs},
        outputs={spec.name: spec.describe() for spec in file.outputs},
        operators=tuple(sorted(file.operators)),
        backends=tuple(sorted(file.backends)),
        activation_bytes=file.activation_bytes,
        manifest=file.manifest,
    )
