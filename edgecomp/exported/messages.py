"""Messages between two processes over a pipe: a line of JSON, then the bytes of the arrays that it describes; how one ended."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping, Sequence
from typing import IO, Any

import numpy as np

_ARRAYS = "arrays"
# Of programs that do what they must not, rather than of those that somebody ended.
_CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE)


def ending(number: int) -> str:
    """How a process ended that ran a model and that a signal ended."""
    name = signal.Signals(number).name
    if number in _CRASHES:
        return (
            f"died of {name}: the model is damaged, or made to end the runtime, or the runtime has a fault; export the model again"
        )
    return f"was ended by {name}"


def is_plain(array: np.ndarray) -> bool:
    """Whether the array's bytes are its values: numbers and truth values."""
    return array.dtype.kind in "biuf" and array.dtype.isnative


def write_message(file: IO[bytes], message: Mapping[str, Any], arrays: Sequence[np.ndarray] = ()) -> None:
    """Write a message, whole."""
    described = [{"dtype": array.dtype.name, "shape": array.shape} for array in arrays]
    file.write(json.dumps({**message, _ARRAYS: described}).encode() + b"\n")
    for array in arrays:
        file.write(np.ascontiguousarray(array).data)
    file.flush()


def read_message(file: IO[bytes]) -> tuple[dict[str, Any], list[np.ndarray]] | None:
    """The next message, or None where the other side has ended."""
    line = file.readline()
    if not line:
        return None
    message = json.loads(line)
    arrays = []
    for entry in message.pop(_ARRAYS):
        array = np.empty(entry["shape"], entry["dtype"])
        if array.size and file.readinto(array.reshape(-1).view(np.uint8).data) != array.nbytes:  # type: ignore[attr-defined]
            return None
        arrays.append(array)
    return message, arrays
