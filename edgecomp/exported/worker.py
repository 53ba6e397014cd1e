"""A process of ours that runs a model: what ends a runtime ends that process, and is told as what it is."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgecomp.errors import RuntimeUnavailableError
from edgecomp.exported.messages import ending, read_message, write_message


class Worker:
    """A module of ours that answers requests on stdin; close it.

    Args:
        module: its name.
        task: what it runs, for messages.

    """

    def __init__(self, module: str, task: str) -> None:
        self._task = task
        self._log, self._log_start = tempfile.TemporaryFile(), 0  # noqa: SIM115  (closed by close)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log
        )

    def ask(self, message: Mapping[str, Any], *arrays: np.ndarray) -> tuple[dict[str, Any], list[np.ndarray]]:
        """The answer to a request.

        Raises:
            RuntimeUnavailableError: the process ended.

        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None  # both are pipes
        self._log_start = self._log.seek(0, os.SEEK_END)
        with contextlib.suppress(BrokenPipeError):  # of a process that has ended, which the missing answer tells as well
            write_message(stdin, message, arrays)
        answer = read_message(stdout)
        if answer is not None:
            return answer
        code = self._process.wait()
        how = ending(-code) if code < 0 else f"ended with code {code}"
        raise RuntimeUnavailableError(f"the process that runs {self._task} {how}: {(self.said() or ['it said nothing'])[-1]}")

    def said(self) -> list[str]:
        """The lines that it wrote to stderr since the last request."""
        self._log.seek(self._log_start)
        return [line.strip() for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()  # closes the pipes, and waits
        self._log.close()
