"""A made-up tree of the kernel's files below /sys, for what a machine does not have, and a device that reads it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from edgecomp.devices import TRANSPORTS
from edgecomp.devices.base import Completed
from edgecomp.devices.local import LocalDevice


class KernelFiles:
    """Files below a folder of one's own.

    Args:
        root: the folder.

    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, name: str, text: str) -> None:
        """A file, whole at every moment."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".aside")
        aside.write_text(f"{text}\n", encoding="utf-8")
        aside.replace(path)

    def add_device(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """The device `name`, whose measuring program reads these files; everything else is this machine's."""
        root = self.root

        class Device(LocalDevice):
            def run(self, command: Sequence[str], stdin: str, timeout_s: float) -> Completed:
                return super().run(command, f"sys={root}\n{stdin}", timeout_s)

        monkeypatch.setitem(TRANSPORTS, name, Device)  # type: ignore[misc]
