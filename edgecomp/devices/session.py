"""A conversation with the measuring program on a device: a request of lines, an answer of JSON (runtimes/runner/request.h)."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgecomp import errors
from edgecomp.bounded import parse_json
from edgecomp.devices.base import Completed, Device, Probe
from edgecomp.devices.bundle import LOADER, Bundle, bundle_for
from edgecomp.devices.conversation import Conversation
from edgecomp.devices.shell import ShellDevice
from edgecomp.errors import ConfigError, DeviceError, EdgecompError, visible
from edgecomp.exported.messages import ending

_CANNOT_EXECUTE, _NOT_FOUND = 126, 127  # exit codes of shells
# Seconds beyond the program's own deadline after which the device counts as gone.
_GRACE_S = 30

Lines = Iterable[tuple[str, object]]


class Session:
    """A device with a bundle on it, ready to answer.

    Args:
        device: opened by `edgecomp.devices.open_device`.
        bundle: a bundle's folder; None for what is installed here, or the default place.

    Raises:
        DeviceError: the device is not reached, or refuses the files.
        RuntimeUnavailableError: there is no bundle for it.

    """

    def __init__(self, device: Device, bundle: Path | None = None) -> None:
        self.device = device
        self.probe: Probe = device.probe()
        self.bundle: Bundle = bundle_for(self.probe.architecture, bundle)
        self._paths = device.push(self.bundle.files)

    @property
    def copies(self) -> bool:
        """Whether files are copied to the device, or run where they are."""
        return isinstance(self.device, ShellDevice)

    def push(self, files: Mapping[str, Path]) -> dict[str, str]:
        """Bring files, side by side under their names; see `Device.push`."""
        return self.device.push(files)

    def own_library(self, artifact: Path) -> str | None:
        """Path of the library of our operators on the device, for the runtime of an artifact."""
        return self._paths.get(self.bundle.library_for(artifact))

    def machine(self) -> dict[str, Any]:
        """What machine the device is, and its state: by any of the measuring programs."""
        name = next(name for name in self.bundle.files if name.startswith("edgecomp-run-"))
        return self._answer(name, [("action", "machine")], 30)

    def ask(self, artifact: Path, lines: Lines, timeout_s: float) -> dict[str, Any]:
        """The answer about an artifact.

        Args:
            artifact: chooses the program, by its suffix.
            lines: keys and values of the request.
            timeout_s: the program ends itself after so many seconds.

        Raises:
            EdgecompError: of the class that the program names.
            DeviceError: the program did not answer.

        """
        return self._answer(self.bundle.runner_for(artifact), [*self._runtime, *lines], timeout_s)

    def ask_in_parts(
        self, artifact: Path, lines: Lines, timeout_s: float
    ) -> tuple[list[dict[str, Any]], dict[str, Any] | DeviceError]:
        """Like `ask`, of a program that tells of its work as it goes on: a line of JSON at a time, the answer last.

        Returns:
            The lines before the answer, and the answer; or what became of the device, and the lines until then.

        Raises:
            EdgecompError: of the class that the program names.

        """
        program = self.bundle.runner_for(artifact)
        try:
            done = self._run(program, [*self._runtime, *lines], timeout_s)
        except DeviceError as error:
            return self._parts(error.partial_output, program), error
        *earlier, last = done.stdout.splitlines() or [""]
        try:
            answer = self._parsed(program, replace(done, stdout=last), timeout_s)
        except DeviceError as error:
            return self._parts(done.stdout, program), error
        return self._parts("".join(f"{line}\n" for line in earlier), program), answer

    def converse(self, artifact: Path, lines: Lines, timeout_s: float) -> Conversation:
        """Ask something that is answered in turns, see `Conversation`.

        Args:
            artifact: chooses the program, by its suffix.
            lines: keys and values of the request.
            timeout_s: the program ends itself where one turn takes so many seconds.

        Raises:
            DeviceError: the program cannot be started.

        """
        program = self.bundle.runner_for(artifact)
        running = self.device.start(self._command(program))
        running.send(_request([*self._runtime, *lines, ("deadline_s", max(round(timeout_s), 1))]) + "\n")
        return Conversation(running, timeout_s, lambda done: self._parsed(program, done, timeout_s))

    @property
    def _runtime(self) -> list[tuple[str, object]]:
        return [("runtime", self._paths[self.bundle.runtime])] if self.bundle.runtime is not None else []

    def _parts(self, text: str, program: str) -> list[dict[str, Any]]:
        """The whole lines of JSON objects; one that was cut short where the program ended is none."""
        parts = []
        for line in text.splitlines(keepends=True):
            if not line.endswith("\n"):
                break
            try:
                part = _shown(parse_json(line, finite=True))
            except ValueError as error:
                raise DeviceError(f"{self.device.url}: {program} must write lines of JSON: {error}") from error
            if not isinstance(part, dict):
                raise DeviceError(f"{self.device.url}: {program} must write JSON objects, got {type(part).__name__}")
            parts.append(part)
        return parts

    def _answer(self, program: str, lines: Lines, timeout_s: float) -> dict[str, Any]:
        return self._parsed(program, self._run(program, lines, timeout_s), timeout_s)

    def _run(self, program: str, lines: Lines, timeout_s: float) -> Completed:
        request = _request([*lines, ("deadline_s", max(round(timeout_s), 1))])
        return self.device.run(self._command(program), request, timeout_s + _GRACE_S)

    def _command(self, program: str) -> list[str]:
        command = [self._paths[program]]
        if self.bundle.brings_libc:
            folder = self._paths[LOADER].removesuffix(f"/{LOADER}")
            command = [self._paths[LOADER], "--library-path", folder, *command]
        return command

    def _parsed(self, program: str, done: Completed, timeout_s: float) -> dict[str, Any]:
        """The answer in what a program wrote, or the error that it names, or why there is none."""
        try:
            answer = _shown(parse_json(done.stdout, finite=True))
        except ValueError as error:
            if done.exit_code == 0:
                raise DeviceError(f"{self.device.url}: {program} must answer with JSON: {error}") from error
            raise self._no_answer(program, done, timeout_s) from error
        if not isinstance(answer, dict):
            raise DeviceError(f"{self.device.url}: {program} must answer with a JSON object, got {type(answer).__name__}")
        if "error" in answer:
            raise self._named_error(answer)
        return answer

    def _named_error(self, answer: Mapping[str, Any]) -> EdgecompError:
        """The error that a program names, by our own class of that name."""
        name, message = answer["error"], answer.get("message")
        kind = vars(errors).get(name) if isinstance(name, str) else None
        if not (isinstance(kind, type) and issubclass(kind, EdgecompError) and isinstance(message, str)):
            return DeviceError(f"{self.device.url}: an error must have a name that there is and a message, got {str(answer)[:500]}")
        error: EdgecompError = kind(message)
        error.told_by_device = True
        return error

    def _no_answer(self, program: str, done: Completed, timeout_s: float) -> DeviceError:
        """Why a program wrote no answer, by how it ended."""
        who = f"{self.device.url}: {program}"
        tail = f" It said: {done.stderr.strip()[-500:]}" if done.stderr.strip() else ""
        if "cannot execute binary file" in done.stderr or "Exec format error" in done.stderr:
            return DeviceError(
                f"{who} is for {self.bundle.architecture}, and the device cannot run it: give a bundle for it.{tail}"
            )
        match done.exit_code - 128:
            case signal.SIGKILL:
                return DeviceError(f"{who} was killed, as systems do that have no memory left: use a smaller model or batch.{tail}")
            case signal.SIGILL:
                return DeviceError(
                    f"{who} came to an instruction that the processor does not have; report it with `edgecomp doctor`.{tail}"
                )
            case signal.SIGALRM:
                return DeviceError(f"{who} did not end within {timeout_s:g} s: give more time by --timeout.{tail}")
            case number if 0 < number < signal.NSIG:
                return DeviceError(f"{who} {ending(number)}.{tail}")
        if done.exit_code == _CANNOT_EXECUTE:
            return DeviceError(
                f"{who} may not be run in {self.probe.folder}: the folder must allow it (no `noexec` mount); "
                f"give another folder in the device's URL.{tail}"
            )
        if done.exit_code == _NOT_FOUND:
            return DeviceError(f"{who} does not find what it needs on the device: give a bundle with its C library.{tail}")
        return DeviceError(f"{who} ended with code {done.exit_code} and no answer.{tail}")


def _request(lines: Lines) -> str:
    texts = [(key, str(value)) for key, value in lines]
    for key, value in texts:
        if "\n" in value:
            raise ConfigError(f"{key} must not hold a line break, got {value!r}")
    return "".join(f"{key}={value}\n" for key, value in texts)


def _shown(value: Any) -> Any:
    """An answer whose texts may be printed."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {visible(key): _shown(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_shown(entry) if isinstance(entry, str | dict | list) else entry for entry in value]
    return value
