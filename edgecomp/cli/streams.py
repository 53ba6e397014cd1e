"""Standard streams that fail: a full disk behind `>`, a closed stdout, a reader that has gone, an encoding without a character."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO, cast

from edgecomp.errors import OutputError


class Stream:
    """A text stream, written to as it is, but with failures as errors of ours.

    Args:
        stream: where to write.
        name: what to call it.
        droppable: whether what cannot be written is left out, which `failure` tells afterwards: messages, for which no long work
            ends.

    """

    def __init__(self, stream: TextIO, name: str, *, droppable: bool = False) -> None:
        self._stream, self._name, self._droppable = stream, name, droppable
        self.failure: OutputError | None = None

    def write(self, text: str) -> int:
        """Write; characters that the stream's encoding does not have are written as escapes.

        Raises:
            OutputError: the stream cannot be written.
            BrokenPipeError: its reader has gone.

        """
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        self._do(lambda: self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding)))
        return len(text)

    def flush(self) -> None:
        """Write what is kept back; raises as `write` does."""
        self._do(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _do(self, action: Any) -> None:
        if self.failure is not None:
            return
        try:
            action()
        except BrokenPipeError:
            if not self._droppable:
                raise
            self._fail("its reader has gone")
        except (OSError, ValueError) as error:  # the latter of a stream that was closed
            self._fail(getattr(error, "strerror", None) or str(error))

    def _fail(self, reason: str) -> None:
        self.failure = OutputError(f"{self._name} cannot be written: {reason}; what was to be written there is not complete")
        drop(self._stream)
        if not self._droppable:
            raise self.failure


def drop(stream: Any) -> None:
    """Send what a stream still holds nowhere, so that Python does not fail once more when it flushes it at its end."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # a stream without a file, as of tests
        number = stream.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)


@contextlib.contextmanager
def standard_streams() -> Iterator[Stream]:
    """Stdout and stderr as `Stream`s; yields that of stderr.

    Raises:
        OutputError: stdout is closed.

    """
    stdout, stderr = sys.stdout, sys.stderr
    # Python has None for a descriptor that is closed. The next file would get its number, and libraries would print into that file.
    for stream in (sys.stdin, stdout, stderr):
        if stream is None:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    with open(os.devnull, "w", encoding="utf-8") as nowhere:  # noqa: PTH123
        messages = Stream(nowhere if stderr is None else stderr, "stderr", droppable=True)
        sys.stdout, sys.stderr = cast(TextIO, Stream(nowhere if stdout is None else stdout, "stdout")), cast(TextIO, messages)
        try:
            if stdout is None:
                raise OutputError("stdout must be open, for results are written there: send what is not wanted to /dev/null")
            yield messages
        finally:
            sys.stdout, sys.stderr = stdout, stderr
