"""An ONNX model that runs on named arrays, in a process of its own (`edgecomp.onnxruntime_worker`)."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgecomp import errors
from edgecomp.errors import ModelError
from edgecomp.exported.inputs import InputSpec
from edgecomp.exported.library import AUTO, resolve_library
from edgecomp.exported.messages import is_plain
from edgecomp.exported.onnx_file import read_onnx
from edgecomp.exported.ort_file import read_ort
from edgecomp.exported.worker import Worker


class OnnxProcess:
    """As `OnnxModel`, for files of strangers: a model that ends ONNX Runtime ends that process. It goes with the object.

    Args:
        path: the `.onnx` or `.ort` file, its external data beside it.
        library: `auto`, `none` or a path, see `resolve_library`.
        threads: intra-op threads.

    Raises:
        ModelError: no such file.
        CheckpointError: the model is incomplete, made for another edgecomp, or refused by ONNX Runtime.
        RuntimeUnavailableError: ONNX Runtime or the library is missing or does not load, or the process died of the model.

    """

    def __init__(self, path: Path, library: str = AUTO, threads: int = 1) -> None:
        self.file = read_ort(path) if path.suffix == ".ort" else read_onnx(path)
        self.library = resolve_library(library, self.file)
        self._worker = Worker("edgecomp.onnxruntime_worker", str(path))
        weakref.finalize(self, self._worker.close)
        answer, _ = self._ask({"model": str(path.absolute()), "library": library, "threads": threads})
        self.inputs = [InputSpec(name, dtype, tuple(shape)) for name, dtype, shape in answer["inputs"]]
        self._outputs = tuple(answer["outputs"])

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs by name; inputs that the model does not have are left out.

        Raises:
            ModelError: a size is beyond what the model says of itself, ONNX Runtime refuses the inputs, or a node fails.
            RuntimeUnavailableError: the process ended.

        """
        given = {spec.name: np.asarray(inputs[spec.name], order="C") for spec in self.inputs if spec.name in inputs}
        for name, array in given.items():
            if not is_plain(array):
                raise ModelError(f"input {name} must be numbers or truth values, got {array.dtype}")
        _, outputs = self._ask({"names": list(given)}, *given.values())
        return dict(zip(self._outputs, outputs, strict=True))

    def _ask(self, message: Mapping[str, Any], *arrays: np.ndarray) -> tuple[dict[str, Any], list[np.ndarray]]:
        answer, outputs = self._worker.ask(message, *arrays)
        if "error" in answer:
            raise getattr(errors, answer["error"])(answer["message"])
        return answer, outputs
