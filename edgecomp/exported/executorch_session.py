"""A program of ExecuTorch that runs on named arrays, in a process of its own (`edgecomp.executorch_worker`)."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from edgecomp.errors import CheckpointError, ModelError, RuntimeUnavailableError
from edgecomp.exported.executorch_file import ProgramTensor, read_executorch
from edgecomp.exported.library import AUTO, resolve_library
from edgecomp.exported.worker import Worker

# ExecuTorch's errors are numbers; what happened is in its log, a line a level of the call, the cause first.
_LOG_LINE = re.compile(r"\[\w+\.cpp:\d+\] (.*)")
_LOG_NOISE = ("Reading file", "Failed to open midr", "CPU info", "Resetting threadpool", "arg ")


class ExecutorchModel:
    """A program that runs on named arrays; close it, or use it as a context, to end its process.

    Args:
        path: the `.pte` file, its external constants beside it.
        library: `auto`, `none` or a path, see `resolve_library`.
        threads: of ExecuTorch's thread pool.

    Raises:
        ModelError: no such file.
        CheckpointError: the program is incomplete, made for another edgecomp, or refused by ExecuTorch.
        RuntimeUnavailableError: ExecuTorch or the library is missing or does not load.

    """

    def __init__(self, path: Path, library: str = AUTO, threads: int = 1) -> None:
        self.file = read_executorch(path)
        self.library = resolve_library(library, self.file)
        self.inputs = self.file.inputs
        if importlib.util.find_spec("executorch") is None:
            raise RuntimeUnavailableError("ExecuTorch is needed and not installed: pip install 'edgecomp[executorch]'")
        self._worker = Worker("edgecomp.executorch_worker", str(path))
        request = {
            "program": str(path.absolute()),
            "data": None if self.file.data is None else str(self.file.data.absolute()),
            "library": None if self.library is None else str(self.library),
            "threads": threads,
        }
        try:
            answer, _ = self._worker.ask(request)
        except BaseException:
            self.close()
            raise
        if "error" in answer:
            reason = self._reason(answer["error"])
            self.close()
            raise CheckpointError(f"ExecuTorch refuses {path}: {reason}")

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs by name; inputs that the program does not have are left out.

        Raises:
            ModelError: an input is missing or does not fit, or an operator fails.
            RuntimeUnavailableError: the process ended.

        """
        arrays = [_checked(spec, inputs) for spec in self.inputs]
        answer, outputs = self._worker.ask({}, *arrays)
        if "error" in answer:
            shapes = {spec.name: f"{array.dtype.name} {list(array.shape)}" for spec, array in zip(self.inputs, arrays, strict=True)}
            raise ModelError(f"the program does not run on inputs {shapes}: {self._reason(answer['error'])}")
        return dict(zip((spec.name for spec in self.file.outputs), outputs, strict=True))

    def close(self) -> None:
        """End the process."""
        self._worker.close()

    def __enter__(self) -> Self:
        """The artifact itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End the process."""
        self.close()

    def _reason(self, otherwise: str) -> str:
        """What the process said of the last request: ExecuTorch's first message, else `otherwise`."""
        messages = [match[1] for line in self._worker.said() if (match := _LOG_LINE.match(line))]
        return next((message for message in messages if not message.startswith(_LOG_NOISE)), otherwise)


def _checked(spec: ProgramTensor, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """An input's array, in row-major order."""
    if spec.name not in inputs:
        raise ModelError(f"the program needs an input {spec.name}, {spec.describe()}, and got {', '.join(inputs) or 'none'}")
    array = np.asarray(inputs[spec.name], order="C")  # ascontiguousarray would give a scalar an axis
    fits = len(array.shape) == len(spec.shape) and all(
        got == size if isinstance(size, int) else got <= largest
        for got, size, largest in zip(array.shape, spec.shape, spec.max_shape, strict=True)
    )
    if array.dtype.name != spec.dtype or not fits:
        raise ModelError(
            f"input {spec.name} must be {spec.describe()}, got {array.dtype.name} {list(array.shape)}; "
            "a program takes sizes up to those that it was exported for (`edgecomp export --max-size NAME=VALUE`)"
        )
    return array
