"""A device behind a shell, for tests: no client leads to it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from edgecomp.devices.base import Completed
from edgecomp.devices.shell import ShellDevice


class Board(ShellDevice):
    """A board behind a shell: this machine, in a folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__("board://", str(folder))
        self.edit: Callable[[str, str], str] = lambda _script, stdout: stdout
        self.uploads: list[str] = []
        self.before = ""  # of a script whose program is spoken with

    def shell(self, script: str, timeout_s: float) -> Completed:
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=timeout_s, check=False)
        return Completed(done.returncode, self.edit(script, done.stdout), done.stderr)

    def client(self, script: str) -> list[str]:
        return ["sh", "-c", self.before + script]

    def check(self, done: Completed) -> None:
        """It is always reached."""

    def upload(self, source: Path, target: str) -> Completed:
        self.uploads.append(target)
        Path(target).write_bytes(source.read_bytes())
        return Completed(0, "", "")

    def download(self, source: str, target: Path) -> Completed:
        raise NotImplementedError
