"""The process in which verification runs an ONNX model: `python -m edgecomp.onnxruntime_worker`.

ONNX Runtime may end the process on a file that was made for it. Speaks with `edgecomp.exported.onnx_process` over stdin and stdout.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from edgecomp.errors import EdgecompError, ModelError
from edgecomp.exported.messages import is_plain, read_message, write_message
from edgecomp.exported.session import OnnxModel


class _Models:
    """The model, once a request has named it."""

    def __init__(self) -> None:
        self._model: OnnxModel | None = None

    def answer(self, message: dict[str, Any], arrays: list[np.ndarray]) -> tuple[dict[str, Any], list[np.ndarray]]:
        """Load, describe or run."""
        if self._model is None:
            self._model = OnnxModel(Path(message["model"]), message["library"], message["threads"])
            return {}, []
        if "describe" in message:
            inputs = [[spec.name, spec.dtype, spec.shape] for spec in self._model.inputs]
            return {"inputs": inputs, "outputs": self._model.output_names}, []
        outputs = self._model.run(dict(zip(message["names"], arrays, strict=True)))
        for name, output in outputs.items():
            if not isinstance(output, np.ndarray) or not is_plain(output):
                raise ModelError(f"output {name} must be a tensor of numbers or truth values to be compared; it is of another type")
        return {}, list(outputs.values())


def main() -> int:
    """Answer requests until there are no more."""
    requests = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not end up among the answers
    models = _Models()
    while (message := read_message(requests)) is not None:
        try:
            answer, outputs = models.answer(*message)
        except EdgecompError as error:
            answer, outputs = {"error": type(error).__name__, "message": str(error)}, []
        write_message(answers, answer, outputs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
