"""A device that a POSIX shell is reached on, by whatever client: the common part of ssh and adb.

Everything lies in one folder of ours:

    objects/KEY/     files that were pushed together, KEY from their names and contents; kept until unused for a month
    incoming/ID/     files on their way; renamed to objects/KEY when their digests are right
    runs/ID/         one session's working folder
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shlex
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath

from edgecomp.devices.base import Completed, Probe
from edgecomp.devices.process import LARGEST_ANSWER, run_bounded
from edgecomp.devices.running import Running
from edgecomp.errors import DeviceError, first_line, visible

# What a board's shell answers may take, over a slow line.
_ANSWER_S = 60
_LEAST_BYTES_PER_S = 50_000
_LEAST_HASHED_PER_S = 2_000_000
_KEPT_DAYS = 30  # what no session used for so long is removed by the next one
_NOT_OWN = "edgecomp-folder-of-another"  # said by our own script
_NO_SPACE = "No space left on device"  # ENOSPC, as every C library says it
# QEMU's board "virt" with its kernel loaded directly; whether its processor is emulated cannot be told, so no time is believed.
_EMULATED_BOARD = "linux,dummy-virt"


class ShellDevice(ABC):
    """A device behind a shell. Subclasses bring commands and files to it.

    Args:
        url: as the user gave it.
        folder: shell words for the folder that ours is made in.

    """

    def __init__(self, url: str, folder: str) -> None:
        self.url = url
        self._parent = folder
        self._id = secrets.token_hex(8)
        self._connected = False

    @abstractmethod
    def shell(self, script: str, timeout_s: float) -> Completed:
        """Run a script by the device's shell; `DeviceError` where the device is not reached."""

    @abstractmethod
    def client(self, script: str) -> list[str]:
        """The command of this machine that runs a script by the device's shell."""

    @abstractmethod
    def check(self, done: Completed) -> None:
        """Look at how the client ended: `DeviceError` where it did not reach the device, or lost it."""

    @abstractmethod
    def upload(self, source: Path, target: str) -> Completed:
        """Copy one file to the device."""

    @abstractmethod
    def download(self, source: str, target: Path) -> Completed:
        """Copy one file from the device."""

    def probe(self) -> Probe:
        """Look at the device, and make our folder."""
        return self._probe

    @cached_property
    def _probe(self) -> Probe:
        # What a session left that lost its device is a day old when it goes: younger folders may be another session's. Our own is
        # made after, since a clock that jumps would make it look old.
        # What lies in the folder is run: it must be ours, no link, and nobody else's to write to.
        own = f"test ! -L edgecomp && test -O edgecomp || {{ echo {_NOT_OWN}; ls -ldn edgecomp; exit 1; }}"
        script = (
            f"umask 077 && cd {self._parent} && {{ test -d edgecomp || mkdir edgecomp; }} && {{ {own}; }} && chmod 700 edgecomp && "
            "cd edgecomp && mkdir -p objects incoming runs && "
            "find incoming runs -mindepth 1 -maxdepth 1 -mtime +0 -exec rm -rf {} + && "
            f"find objects -mindepth 1 -maxdepth 1 -mtime +{_KEPT_DAYS - 1} -exec rm -rf {{}} + && mkdir -p runs/{self._id} && "
            "pwd -P && uname -m && uname -sr && "
            "df -Pk . | tail -n 1 && { cat /proc/device-tree/compatible 2>/dev/null; true; }"
        )
        done = self.shell(script, _ANSWER_S)
        lines = [visible(line) for line in done.stdout.splitlines()]
        if lines[:1] == [_NOT_OWN]:
            raise DeviceError(
                f"{self.url}: programs in the folder edgecomp there are run, so that it must be a folder of the user who logs in, "
                f"and it is {' '.join(lines[1:])}: remove it there, or give another folder in the device's URL"
            )
        self._connected = len(lines) > 0
        if len(lines) < 4:
            raise DeviceError(
                f"{self.url}: the device must have a folder that can be written at {self._parent}: "
                f"{_reason(done)}; give another as {self.url.rstrip('/')}/FOLDER"
            )
        folder, architecture, system, space = lines[:4]
        if not folder.startswith("/") or visible(folder) != folder or "\\" in folder:
            raise DeviceError(f"{self.url}: the device's folder must be a whole path of ordinary characters, got {folder}")
        emulated = len(lines) > 4 and _EMULATED_BOARD in lines[4]
        numbers = space.split()[1:4]  # blocks, used, available
        # More digits than any disk's bytes have are no number of blocks.
        told = len(numbers) == 3 and all(number.isascii() and number.isdecimal() and len(number) < 19 for number in numbers)
        free = int(numbers[2]) * 1024 if told else None
        return Probe(architecture, system, folder, free, "machine" if emulated else "no")

    @property
    def _run_folder(self) -> str:
        return f"{self.probe().folder}/runs/{self._id}"

    def push(self, files: Mapping[str, Path]) -> dict[str, str]:
        """Bring the files to `objects/KEY`; what is there from before is hashed again, since it may have been changed."""
        for name in files:
            _check_name(name)
        digests = {name: _sha256(path) for name, path in files.items()}
        key = hashlib.sha256("".join(f"{name}\0{digest}\n" for name, digest in sorted(digests.items())).encode()).hexdigest()
        root = self.probe().folder
        target = f"{root}/objects/{key}"
        there = shlex.quote(target)
        if self.shell(f"test -d {there} && touch {there}", _ANSWER_S).exit_code == 0:
            if self._hashed(files, target) == digests:
                return {name: f"{target}/{name}" for name in files}
            self._require(f"rm -rf {there}", "its place for files that have changed there")
        self._bring(files, digests, f"{root}/incoming/{self._id}", target)
        return {name: f"{target}/{name}" for name in files}

    def _bring(self, files: Mapping[str, Path], digests: Mapping[str, str], incoming: str, target: str) -> None:
        needed = sum(path.stat().st_size for path in files.values())
        free = self.probe().free_bytes
        if free is not None and needed > free:
            raise self._no_room(f"must have room for {needed} bytes, and {free} are free")
        folders = sorted({str(PurePosixPath(incoming, name).parent) for name in files})
        self._require(f"mkdir -p {shlex.join(folders)}", "a folder for the files")
        for name, path in files.items():
            done = self.upload(path, f"{incoming}/{name}")
            if done.exit_code != 0 and _NO_SPACE in done.stderr + done.stdout:
                raise self._no_room(f"must have room for {name} ({path.stat().st_size} bytes), and was full before it was copied")
            if done.exit_code != 0:
                raise DeviceError(f"{self.url}: {name} ({path.stat().st_size} bytes) could not be copied: {_reason(done)}")
        arrived = self._hashed(files, incoming)
        for name, digest in digests.items():
            if arrived.get(name) != digest:
                raise DeviceError(
                    f"{self.url}: {name} arrived with other bytes than were sent; is the device's storage full or failing?"
                )
        move = f"mv {shlex.quote(incoming)} {shlex.quote(target)} 2>/dev/null || test -d {shlex.quote(target)}"
        programs = shlex.join(name for name, path in files.items() if os.access(path, os.X_OK))
        allow = f"chmod 755 -- {programs} && " if programs else ""
        self._require(f"cd {shlex.quote(incoming)} && {allow}cd / && {{ {move}; }}", "its place for the files")

    def _hashed(self, files: Mapping[str, Path], folder: str) -> dict[str, str]:
        """Digests of files in a folder of the device, by their names; nothing of a file that it does not tell of."""
        seconds = _ANSWER_S + sum(path.stat().st_size for path in files.values()) / _LEAST_HASHED_PER_S
        done = self.shell(f"cd {shlex.quote(folder)} && sha256sum -- {shlex.join(files)}", seconds)
        lines = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
        return {words[1]: words[0] for words in lines if len(words) == 2}

    def run(self, command: Sequence[str], stdin: str, timeout_s: float) -> Completed:
        """Run a program in the session's folder; its process number lies there too, so that `clean_up` finds it."""
        self._require(f"printf %s {shlex.quote(stdin)} > {shlex.quote(self._run_folder)}/request", "room for the request")
        return self.shell(self._script(f"{shlex.join(command)} < request"), timeout_s)

    def start(self, command: Sequence[str]) -> Running:
        """Start a program, whose lines go through the client."""
        return Running(self.client(self._script(shlex.join(command))), check=self.check)

    def _script(self, command: str) -> str:
        script = f"cd {shlex.quote(self._run_folder)} && echo $$ > pid && exec {command}"
        # Not the last command: a shell would become it, and a signal that ends the program would end ssh's with no code.
        return f"sh -c {shlex.quote(script)}; exit $?"

    def pull(self, name: str, target: Path) -> None:
        """Copy a file from the session's folder."""
        done = self.download(f"{self._run_folder}/{name}", target)
        if done.exit_code != 0:
            raise DeviceError(f"{self.url}: {name} could not be copied from the device: {_reason(done)}")

    def clean_up(self) -> None:
        """End the program and remove what only this session needed; a device that has gone is left as it is."""
        if not self._connected:
            return
        root, self._connected = shlex.quote(self.probe().folder), False
        script = (
            f"cd {root} && {{ test ! -f runs/{self._id}/pid || kill -9 $(cat runs/{self._id}/pid) 2>/dev/null; "
            f"rm -rf runs/{self._id} incoming/{self._id}; }}"
        )
        with contextlib.suppress(DeviceError):  # what broke the connection was already said
            self.shell(script, _ANSWER_S)

    def _no_room(self, what: str) -> DeviceError:
        root = self.probe().folder
        return DeviceError(
            f"{self.url}: {root} {what}; make room there (what earlier sessions brought may go: rm -r {root}/objects), or give "
            "another folder in the device's URL"
        )

    def _require(self, script: str, what: str) -> Completed:
        done = self.shell(script, _ANSWER_S)
        if done.exit_code != 0:
            raise DeviceError(f"{self.url}: the device must give {what}: {_reason(done)}")
        return done


def run_client(
    command: Sequence[str], timeout_s: float, *, stdin: Path | None = None, stdout: Path | None = None, largest: int | None = None
) -> Completed:
    """Run a client program on this machine, in a session of its own so that Ctrl-C does not reach what it left in the background.

    Raises:
        DeviceError: the client is not installed, did not end in time, or brought more than `largest` bytes, or than an answer has.

    """
    try:
        return run_bounded(
            command, timeout_s, stdin=stdin, stdout=stdout, largest=LARGEST_ANSWER if largest is None else largest, new_session=True
        )
    except FileNotFoundError as error:
        raise DeviceError(f"the program {command[0]} is needed to reach the device and is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise DeviceError(
            f"the device did not answer within {timeout_s:g} s: is it still there? --timeout gives more time"
        ) from error


def _check_name(name: str) -> None:
    """Refuse names that a device's tools would take for something else than a file below the session's folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or visible(name) != name or any(sign in name for sign in "\n\t\\"):
        raise DeviceError(f"a file must have an ordinary name to be brought to a device, got {name!r}: rename it")


def upload_seconds(path: Path) -> float:
    """How long a copy may take before the device counts as gone."""
    return _ANSWER_S + path.stat().st_size / _LEAST_BYTES_PER_S


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reason(done: Completed) -> str:
    text = done.stderr.strip() or visible(done.stdout.strip())
    return first_line(DeviceError(text)) if text else f"exit code {done.exit_code}"
