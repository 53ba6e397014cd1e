"""What every device can do, whatever leads to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from edgecomp.devices.running import Running

Emulation = Literal["no", "machine", "process"]
# That is brought from a device: outputs of 256 MiB with their headers, a trace.
LARGEST_FILE = 257 * 1024 * 1024


@dataclass(frozen=True)
class Probe:
    """What is known of a device before anything is brought to it.

    Args:
        architecture: as `uname -m` says it.
        system: operating system and release.
        folder: ours on the device; nothing outside it is touched.
        free_bytes: of the file system that holds the folder; None where nothing is copied, or the device does not tell.
        emulation: `machine` where the processor is emulated (its times say nothing), `process` where only the program's
            processor is (and the host's kernel tells of its memory).

    """

    architecture: str
    system: str
    folder: str
    free_bytes: int | None
    emulation: Emulation = "no"


@dataclass(frozen=True)
class Completed:
    """A program that has ended: its exit code, 128 + signal where a signal ended it, and what it wrote."""

    exit_code: int
    stdout: str
    stderr: str


class Device(Protocol):
    """A machine that programs can be brought to and run on.

    Every function raises `DeviceError` where the device does not do what it must, with the way out.
    """

    url: str

    def probe(self) -> Probe:
        """Look at the device; the first call connects."""
        ...

    def push(self, files: Mapping[str, Path]) -> dict[str, str]:
        """Bring files to the device, side by side under their names, unless they are there already.

        Returns:
            each name's path on the device.

        """
        ...

    def run(self, command: Sequence[str], stdin: str, timeout_s: float) -> Completed:
        """Run a program in this session's own folder."""
        ...

    def start(self, command: Sequence[str]) -> Running:
        """Start a program in this session's own folder, to be spoken with."""
        ...

    def pull(self, name: str, target: Path) -> None:
        """Copy a file of `LARGEST_FILE` bytes at most from the session's folder."""
        ...

    def clean_up(self) -> None:
        """End what still runs and remove the session's folder; what `push` brought stays for the next time. May be called twice."""
        ...
