"""A conversation of many turns with the measuring program on a device: lines to it, lines of JSON from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgecomp.devices.base import Completed
from edgecomp.devices.running import Running

# Beyond the program's own deadline, after which the device counts as gone.
_GRACE_S = 30


class Conversation:
    """A program that was asked something and answers line by line.

    Args:
        running: the program.
        timeout_s: after so many seconds without a line the device counts as gone.
        parse: an answer of a program that has ended, or the error that it names, or why there is none.

    """

    def __init__(self, running: Running, timeout_s: float, parse: Callable[[Completed], dict[str, Any]]) -> None:
        self._running, self._timeout_s, self._parse = running, timeout_s + _GRACE_S, parse

    def say(self, text: str) -> None:
        """Send lines."""
        self._running.send(text)

    def hear(self) -> dict[str, Any]:
        """The next line.

        Raises:
            EdgecompError: of the class that the program names.
            DeviceError: the program ended, or the device is gone.

        """
        line = self._running.line(self._timeout_s)
        if line is None:
            return self._parse(self._running.finish(self._timeout_s))
        return self._parse(Completed(0, line, ""))

    def finish(self) -> dict[str, Any]:
        """Say that no more comes; the program's last answer.

        Raises:
            EdgecompError: as `hear`.

        """
        return self._parse(self._running.finish(self._timeout_s))

    def end(self) -> None:
        """End it, however far it is. May be called twice."""
        self._running.end()
