"""The machine itself: nothing is copied, and programs run in a temporary folder."""

from __future__ import annotations

import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from urllib.parse import SplitResult

from edgecomp.devices.base import LARGEST_FILE, Completed, Probe
from edgecomp.devices.process import run_bounded
from edgecomp.devices.running import Running
from edgecomp.errors import ConfigError, DeviceError


class LocalDevice:
    """`local`."""

    def __init__(self, url: SplitResult) -> None:
        if url.netloc or url.path:
            raise ConfigError(f"the device `local` takes no address, got {url.geturl()!r}")
        self.url = "local"

    @cached_property
    def folder(self) -> Path:
        """Where programs run."""
        return Path(tempfile.mkdtemp(prefix="edgecomp-"))

    def probe(self) -> Probe:
        """What Python says of it."""
        return Probe(platform.machine(), f"{platform.system()} {platform.release()}", str(self.folder), None)

    def push(self, files: Mapping[str, Path]) -> dict[str, str]:
        """The files' own paths, links as they are: runtimes look for a model's data beside the name that they are given."""
        return {name: str(path.absolute()) for name, path in files.items()}

    def run(self, command: Sequence[str], stdin: str, timeout_s: float) -> Completed:
        """Run a program."""
        return run_here(command, self.folder, stdin, timeout_s)

    def start(self, command: Sequence[str]) -> Running:
        """Start a program."""
        return Running(command, self.folder)

    def pull(self, name: str, target: Path) -> None:
        """Copy a file that a program wrote."""
        source = self.folder / name
        try:
            if source.is_symlink() or not source.is_file() or source.stat().st_size > LARGEST_FILE:
                raise OSError(f"{source} is no file of {LARGEST_FILE:,} bytes at most")
            shutil.copyfile(source, target)
        except OSError as error:
            raise DeviceError(f"{name} must be written by the measuring program, but {error}") from error

    def clean_up(self) -> None:
        """Remove the temporary folder."""
        if "folder" in self.__dict__:
            shutil.rmtree(self.folder, ignore_errors=True)
            del self.__dict__["folder"]


def run_here(command: Sequence[str], folder: Path, stdin: str, timeout_s: float) -> Completed:
    """Run a program of this machine; it ends when the wait for it ends, Ctrl-C included.

    Raises:
        DeviceError: it cannot be started, does not end in time, or writes more than an answer has.

    """
    try:
        return run_bounded(command, timeout_s, stdin=stdin, folder=folder)
    except subprocess.TimeoutExpired as error:
        raise DeviceError(f"{Path(command[0]).name} did not end within {timeout_s:g} s: give more time by --timeout") from error
    except OSError as error:
        raise DeviceError(f"{command[0]} cannot be started: {error}") from error
