"""Sessions of ONNX Runtime on an artifact, with and without our library, and its failures as errors that say what to do."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecomp.errors import CheckpointError, ModelError, RuntimeUnavailableError, first_line
from edgecomp.exported.inputs import InputSpec
from edgecomp.exported.library import AUTO, resolve_library
from edgecomp.exported.onnx_file import LIMITS, read_onnx
from edgecomp.exported.ort_file import read_ort

if TYPE_CHECKING:
    import onnxruntime


_UNREGISTERED = "is not a registered function/op"


def import_onnxruntime() -> Any:
    """The onnxruntime module, its telemetry off: it would add a thread, memory and files to what is measured.

    Raises:
        RuntimeUnavailableError: onnxruntime is not installed.

    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when the module is first imported
    try:
        import onnxruntime
    except ImportError as error:
        raise RuntimeUnavailableError(f"ONNX Runtime is needed and does not import ({error}): pip install onnxruntime") from error
    return onnxruntime


def open_session(path: Path, library: Path | None, threads: int) -> onnxruntime.InferenceSession:
    """A CPU session on the model at `path`, with `threads` intra-op threads and one inter-op thread.

    Raises:
        RuntimeUnavailableError: onnxruntime or the library does not load.
        CheckpointError: ONNX Runtime refuses the model.

    """
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only: warnings about a model are noise in a measurement
    if library is not None:
        try:
            options.register_custom_ops_library(str(library))
        except runtime_errors() as error:
            raise RuntimeUnavailableError(f"the custom-op library {library} does not load: {first_line(error)}") from error
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except runtime_errors() as error:
        reason = first_line(error)
        hint = "; give the library of its operators by --library PATH" if _UNREGISTERED in reason else ""
        raise CheckpointError(f"ONNX Runtime {ort.__version__} refuses {path}: {reason}{hint}") from error


def run_session(session: onnxruntime.InferenceSession, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs in the model's order.

    Raises:
        ModelError: ONNX Runtime refuses the inputs or a node fails.

    """
    try:
        outputs: list[np.ndarray] = session.run(None, dict(inputs))
    except runtime_errors() as error:
        shapes = {name: f"{value.dtype.name} {list(value.shape)}" for name, value in inputs.items()}
        raise ModelError(f"the model does not run on inputs {shapes}: {first_line(error)}") from error
    return outputs


def input_specs(session: onnxruntime.InferenceSession) -> list[InputSpec]:
    """The session's inputs by numpy's names of types; a type that numpy has none for keeps ONNX Runtime's."""
    names = {"tensor(float)": "float32", "tensor(double)": "float64"}
    return [
        InputSpec(spec.name, names.get(spec.type, spec.type.removeprefix("tensor(").removesuffix(")")), tuple(spec.shape))
        for spec in session.get_inputs()
    ]


class OnnxModel:
    """An ONNX model that runs on named arrays.

    Args:
        path: the `.onnx` or `.ort` file, its external data beside it.
        library: `auto`, `none` or a path, see `resolve_library`.
        threads: intra-op threads.

    """

    def __init__(self, path: Path, library: str = AUTO, threads: int = 1) -> None:
        self.file = read_ort(path) if path.suffix == ".ort" else read_onnx(path)
        self.library = resolve_library(library, self.file)
        self.session = open_session(path, self.library, threads)
        self.inputs = input_specs(self.session)
        self.output_names = [output.name for output in self.session.get_outputs()]
        self._limits = _limits(self.session)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs by name; inputs that the model does not have are left out.

        Raises:
            ModelError: a size is beyond what the model says of itself, ONNX Runtime refuses the inputs, or a node fails.

        """
        for spec in self.inputs:
            for dim, size in zip(spec.shape, np.shape(inputs.get(spec.name, ())), strict=False):
                if size > self._limits.get(str(dim), size):
                    raise ModelError(
                        f"the size {dim} of {spec.name} is {size}, and this model takes {self._limits[str(dim)]} at most"
                    )
        known = {spec.name for spec in self.inputs}
        outputs = run_session(self.session, {name: np.asarray(value) for name, value in inputs.items() if name in known})
        return dict(zip(self.output_names, outputs, strict=True))


def _limits(session: onnxruntime.InferenceSession) -> dict[str, int]:
    """The largest value of dynamic sizes by name, of models that say so: those that edgecomp exported."""
    try:
        found = json.loads(session.get_modelmeta().custom_metadata_map.get(LIMITS, "{}"))
        return {str(name): int(size) for name, size in found.items()}
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise CheckpointError(f"the model's metadata {LIMITS} must be a JSON object of numbers: {first_line(error)}") from error


def runtime_errors() -> tuple[type[Exception], ...]:
    """The exceptions that ONNX Runtime raises: unrelated classes, with no base of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (
        state.Fail,
        state.EPFail,
        state.InvalidArgument,
        state.InvalidGraph,
        state.InvalidProtobuf,
        state.NoModel,
        state.NoSuchFile,
        state.NotImplemented,
        state.RuntimeException,
        ValueError,  # an input is missing
    )
