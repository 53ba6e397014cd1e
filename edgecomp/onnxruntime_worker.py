"""The process in which verification runs an ONNX model: `python -m edgecomp.onnxruntime_worker`.

ONNX Runtime may end the process on a file that was made for it. Speaks with `edgecomp.exported.onnx_process` over stdin and stdout.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgecomp.errors import EdgecompError, ModelError
from edgecomp.exported.messages import is_plain, read_message, write_message
from edgecomp.exported.session import OnnxModel


def load(request: Mapping[str, Any]) -> OnnxModel:
    """Load the model that a request names."""
    return OnnxModel(Path(request["model"]), request["library"], request["threads"])


def run(model: OnnxModel, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs in order.

    Raises:
        ModelError: one cannot be compared.

    """
    outputs = model.run(inputs)
    for name, output in outputs.items():
        if not isinstance(output, np.ndarray) or not is_plain(output):
            raise ModelError(f"output {name} must be a tensor of numbers or truth values to be compared; it is of another type")
    return list(outputs.values())


def main() -> int:
    """Load what the first request names, and describe it, then run whatever comes; an error is answered in place of outputs."""
    requests = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not end up among the answers
    model: OnnxModel | None = None
    while (message := read_message(requests)) is not None:
        request, arrays = message
        answer: dict[str, Any] = {}
        outputs: list[np.ndarray] = []
        try:
            if model is None:
                model = load(request)
                answer = {"inputs": [[spec.name, spec.dtype, spec.shape] for spec in model.inputs], "outputs": model.output_names}
            else:
                outputs = run(model, dict(zip(request["names"], arrays, strict=True)))
        except EdgecompError as error:
            answer = {"error": type(error).__name__, "message": str(error)}
        write_message(answers, answer, outputs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
