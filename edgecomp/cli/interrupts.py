"""Ctrl-C that arrives, whatever a library makes of it on its way, and other signals that end the command in order."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def orderly() -> Iterator[None]:
    """SIGTERM and SIGHUP inside the block end the program by way of its `finally`s, which remove sockets and temporary folders."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    numbers = [signal.SIGTERM, signal.SIGHUP] if threading.current_thread() is threading.main_thread() else []
    before = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        if handler is signal.SIG_DFL:  # else ignored, as under nohup, or not ours to handle
            signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is signal.SIG_DFL:
                signal.signal(number, handler)


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C inside the block leaves it as a KeyboardInterrupt.

    Python raises it in whatever runs, and a C extension that called back into Python may answer with an error of its own instead
    (safetensors: "could not determine the shape of object type"). So an error that follows a Ctrl-C is taken for its outcome.
    """
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield  # ignored, as in a shell's background jobs, or not ours to handle
        return
    came = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = True
        handler(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield
    except Exception as error:
        if came:
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, handler)
