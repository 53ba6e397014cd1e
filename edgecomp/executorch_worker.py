"""The process in which verification runs a program: `python -m edgecomp.executorch_worker`.

ExecuTorch's Python runtime imports PyTorch, which nothing else of verification needs, and ends the process on some errors; so it
runs here. Speaks with `edgecomp.exported.executorch_session` over stdin and stdout.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
from executorch.runtime import Method, Runtime
from torch import Tensor

from edgecomp.exported.messages import read_message, write_message


def load(request: Mapping[str, Any]) -> Method:
    """Load the program's method `forward` with our operators registered."""
    if request["library"] is not None:
        torch.ops.load_library(request["library"])
    _unsafe_reset_threadpool(request["threads"])
    method = Runtime.get().load_program(request["program"], data_path=request["data"]).load_method("forward")
    if method is None:
        raise RuntimeError("the program has no method forward")
    return method


def _tensor(array: np.ndarray) -> Tensor:
    """The array as PyTorch has it, but for strides: numpy's of an empty array are 0, which ExecuTorch takes for another layout."""
    tensor = torch.from_numpy(array)
    return tensor if array.size else torch.empty(array.shape, dtype=tensor.dtype)


def main() -> int:
    """Load what the first request names, then run whatever comes; an error's message is answered in place of outputs."""
    requests = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not end up among the answers
    first = read_message(requests)
    if first is None:
        return 0
    try:
        method = load(first[0])
    except (RuntimeError, OSError) as error:
        write_message(answers, {"error": str(error)})
        return 1
    write_message(answers, {})
    while (message := read_message(requests)) is not None:
        try:
            outputs = [output.numpy() for output in method.execute([_tensor(array) for array in message[1]])]
        except RuntimeError as error:
            write_message(answers, {"error": str(error)})
        else:
            write_message(answers, {}, outputs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
