"""Turns of engines in one process: the threads of one wait for work by spinning, for a while, on the processors of the next."""

from __future__ import annotations

import time
from collections.abc import Callable

_SPINNING_SECONDS = 0.2  # ONNX Runtime's threads sleep after less


def settle(threads: int, run: Callable[[], object] = lambda: None) -> None:
    """Before a turn of several threads: wait until those of the engine before sleep, then wake this one's by an untimed run."""
    if threads > 1:
        time.sleep(_SPINNING_SECONDS)
        run()
