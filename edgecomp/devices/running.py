"""A program that is spoken with by lines while it runs, on this machine or behind a client that leads to a device."""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from edgecomp.devices.base import Completed
from edgecomp.devices.process import TailReader, ended
from edgecomp.errors import DeviceError

# Of a line that it writes: a token, or an answer at its end.
_LARGEST_LINE = 1024 * 1024
_CHUNK = 64 * 1024


class Running:
    """A program that was started, in a session of its own so that Ctrl-C does not reach it.

    Args:
        command: the program and its arguments.
        folder: where it runs; None for here.
        check: looks at how it ended, and raises where that is the client's own failure.

    Raises:
        DeviceError: it cannot be started.

    """

    def __init__(
        self, command: Sequence[str], folder: Path | None = None, check: Callable[[Completed], None] | None = None
    ) -> None:
        pipe = subprocess.PIPE
        try:
            self._process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=pipe, cwd=folder, start_new_session=True, bufsize=0
            )
        except OSError as error:
            raise DeviceError(f"{command[0]} cannot be started: {error}") from error
        self._name, self._check = Path(command[0]).name, check
        self._arrived, self._at_end = b"", False
        self._said = TailReader(self._process, self._process.stderr)
        self._thread = threading.Thread(target=self._said.read, daemon=True)
        self._thread.start()
        self._selector = selectors.DefaultSelector()
        assert self._process.stdout is not None  # it was asked for
        self._selector.register(self._process.stdout, selectors.EVENT_READ)

    def send(self, text: str) -> None:
        """Write to it; of a program that has ended, what it wrote tells that as well."""
        assert self._process.stdin is not None  # it was asked for
        data = memoryview(text.encode())
        with contextlib.suppress(BrokenPipeError):
            while data:
                data = data[self._process.stdin.write(data) :]

    def line(self, timeout_s: float) -> str | None:
        """The next line that it writes, the last one also where it has no end; None where no more come.

        Raises:
            DeviceError: none came in time, or one without end.

        """
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._arrived and not self._at_end:
            if len(self._arrived) > _LARGEST_LINE:
                raise DeviceError(f"{self._name} wrote a line of more than {_LARGEST_LINE:,} bytes, which no answer has")
            if not self._selector.select(max(deadline - time.monotonic(), 0)):
                raise DeviceError(f"the device did not answer within {timeout_s:g} s: is it still there? --timeout gives more time")
            assert self._process.stdout is not None  # it was asked for
            data = os.read(self._process.stdout.fileno(), _CHUNK)
            self._at_end = not data
            self._arrived += data
        line, end, rest = self._arrived.partition(b"\n")
        self._arrived = rest
        return line.decode(errors="replace") if line or end else None

    def finish(self, timeout_s: float) -> Completed:
        """Tell it that no more is asked, and wait for its end; of what it wrote, what was not read.

        Raises:
            DeviceError: it does not end in time, or its client failed.

        """
        assert self._process.stdin is not None  # it was asked for
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        lines = []
        while (line := self.line(timeout_s)) is not None:
            lines.append(line)
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise DeviceError(f"{self._name} did not end within {timeout_s:g} s") from error
        self._thread.join(timeout=10)  # what the program left in the background may hold its pipe open
        done = ended(self._process.returncode, "\n".join(lines), self._said)
        if self._check is not None:
            self._check(done)
        return done

    def end(self) -> None:
        """End it, however far it is. May be called twice."""
        self._process.kill()
        self._process.wait()
        self._selector.close()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self._thread.join(timeout=10)
