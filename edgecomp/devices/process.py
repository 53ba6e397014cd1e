"""Programs of this machine whose output is a stranger's: bounded while it is read, and shown without its control characters."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from edgecomp.devices.base import Completed
from edgecomp.errors import DeviceError, visible

# An answer of an hour of samples of a microsecond is smaller.
LARGEST_ANSWER = 256 * 1024 * 1024
# Of what a program says beside its answer, the end is kept.
_KEPT_OF_STDERR = 64 * 1024
_CHUNK = 64 * 1024


def run_bounded(
    command: Sequence[str],
    timeout_s: float,
    *,
    stdin: Path | str | None = None,
    stdout: Path | None = None,
    folder: Path | None = None,
    largest: int = LARGEST_ANSWER,
    new_session: bool = False,
) -> Completed:
    """Run a program until it ends, or has written more than it may.

    Args:
        command: the program and its arguments.
        timeout_s: after which it is ended.
        stdin: a file, or a text; None for nothing.
        stdout: a file that takes its output in place of the result.
        folder: where it runs; None for here.
        largest: bytes of output.
        new_session: whether Ctrl-C does not reach it.

    Returns:
        Its exit code, 128 + signal where a signal ended it, and what it wrote: of stderr the end.

    Raises:
        DeviceError: it wrote more than `largest` bytes, or more than this machine's disk has room for.
        OSError: it cannot be started.
        subprocess.TimeoutExpired: it did not end in time.

    """
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(stdin.open("rb")) if isinstance(stdin, Path) else None
        sink = stack.enter_context(stdout.open("wb")) if stdout is not None else None
        process = subprocess.Popen(
            command,
            stdin=source or (subprocess.DEVNULL if stdin is None else subprocess.PIPE),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            start_new_session=new_session,
        )
        answer = _Reader(process, process.stdout, sink, largest)
        said = TailReader(process, process.stderr)
        threads = [threading.Thread(target=reader.read, daemon=True) for reader in (answer, said)]
        try:
            for thread in threads:
                thread.start()
            if isinstance(stdin, str):
                _write(process.stdin, stdin)
            process.wait(timeout_s)
        finally:
            process.kill()  # of a process that has ended, nothing
            process.wait()
            for thread in threads:
                thread.join(timeout=10)  # what the program left in the background may hold its pipes open
    if answer.exceeded:
        raise DeviceError(f"{Path(command[0]).name} wrote more than {largest:,} bytes, which no answer has: it was ended")
    if answer.failure is not None:
        raise DeviceError(f"what {Path(command[0]).name} brings must be kept in {stdout}: {answer.failure}") from answer.failure
    return ended(process.returncode, bytes(answer.data).decode(errors="replace"), said)


def ended(code: int, stdout: str, said: TailReader) -> Completed:
    """How a program ended, whose exit code is negative where a signal ended it."""
    return Completed(code if code >= 0 else 128 - code, stdout, visible(bytes(said.data).decode(errors="replace")))


class _Reader:
    """Reads a pipe to its end: all of it, up to a bound at which the program is ended, or else its last part."""

    def __init__(
        self, process: subprocess.Popen[bytes], pipe: IO[bytes] | None, sink: IO[bytes] | None, largest: int | None
    ) -> None:
        self.data = bytearray()
        self.exceeded = False
        self.failure: OSError | None = None
        self._process, self._pipe, self._sink, self._largest = process, pipe, sink, largest

    def read(self) -> None:
        assert self._pipe is not None  # it was asked for
        total = 0
        with self._pipe:
            while chunk := os.read(self._pipe.fileno(), _CHUNK):
                total += len(chunk)
                if self._largest is None:
                    self.data = (self.data + chunk)[-_KEPT_OF_STDERR:]
                elif total > self._largest:
                    self.exceeded = True
                    self._process.kill()
                    return
                elif self._sink is not None:
                    try:
                        self._sink.write(chunk)
                    except OSError as error:
                        self.failure = error
                        self._process.kill()
                        return
                else:
                    self.data += chunk


class TailReader(_Reader):
    """Reads to its end what a program says beside its answer, and keeps the last of it."""

    def __init__(self, process: subprocess.Popen[bytes], pipe: IO[bytes] | None) -> None:
        super().__init__(process, pipe, None, None)


def _write(pipe: IO[bytes] | None, text: str) -> None:
    assert pipe is not None  # it was asked for
    with contextlib.suppress(BrokenPipeError), pipe:  # of a program that has ended, whose exit code tells it as well
        pipe.write(text.encode())
