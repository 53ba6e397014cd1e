"""Inspects an exported model."""

from __future__ import annotations

from pathlib import Path

from edgecomp.exported.executorch_file import read_executorch
from edgecomp.exported.files import hash_files
from edgecomp.exported.library import NONE
from edgecomp.exported.session import OnnxModel
from edgecomp.inspect.result import ExecutorchInspection, OnnxInspection


def inspect_onnx(path: Path) -> OnnxInspection:
    """Inspect an exported model by its files and by what the stock ONNX Runtime says of it.

    Raises:
        ModelError: no such file.
        CheckpointError: the model is incomplete, or ONNX Runtime refuses it.

    """
    artifact = OnnxModel(path, NONE)
    file, session = artifact.file, artifact.session
    meta = session.get_modelmeta()
    return OnnxInspection(
        name=path.name,
        files=hash_files(file),
        domains=tuple(sorted(file.domains)),
        inputs={spec.name: f"{spec.type} {spec.shape}" for spec in session.get_inputs()},
        outputs={spec.name: f"{spec.type} {spec.shape}" for spec in session.get_outputs()},
        producer=meta.producer_name,
        metadata=dict(meta.custom_metadata_map),
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
