"""Android devices by Android's own client, adb, as it is on the search path; its environment variables hold."""

from __future__ import annotations

import shlex
from pathlib import Path
from urllib.parse import SplitResult

from edgecomp.devices.base import LARGEST_FILE, Completed
from edgecomp.devices.shell import ShellDevice, run_client, upload_seconds
from edgecomp.errors import DeviceError

# The one folder of a phone that adb's shell may write to and run programs in.
_FOLDER = "/data/local/tmp"
_REMEDIES = {
    "unauthorized": "allow this computer's key on the device's screen",
    "more than one device": "name one of `adb devices` as adb://SERIAL",
    "offline": "unplug the device and plug it in again",
    "no devices": "plug in a device with USB debugging switched on, or `adb connect HOST:PORT`",
    "not found": "`adb devices` lists the devices that there are",
}


class AdbDevice(ShellDevice):
    """`adb://[SERIAL][/FOLDER]`; a serial may hold a colon, as network devices' do."""

    def __init__(self, url: SplitResult) -> None:
        self._command = ["adb", *(["-s", url.netloc] if url.netloc else [])]
        super().__init__(url.geturl(), shlex.quote(url.path.rstrip("/") or _FOLDER))

    def _adb(self, *arguments: str, timeout_s: float, stdout: Path | None = None, largest: int | None = None) -> Completed:
        done = run_client([*self._command, *arguments], timeout_s, stdout=stdout, largest=largest)
        self.check(done)
        return done

    def client(self, script: str) -> list[str]:
        """The client with a script for the device's shell."""
        return [*self._command, "shell", "-T", script]

    def check(self, done: Completed) -> None:
        """Raise where the device was not reached, or lost."""
        lines = [
            line for line in done.stderr.splitlines() if line.startswith(("error:", "adb: error: failed to get", "adb: device"))
        ]
        if done.exit_code != 0 and lines:
            remedy = next((remedy for sign, remedy in _REMEDIES.items() if sign in done.stderr), None)
            said = lines[0].removeprefix("error:").strip()
            error = DeviceError(f"{self.url} is not reached: {said}" + ("" if remedy is None else f"; {remedy}"))
            error.partial_output = done.stdout
            raise error

    def shell(self, script: str, timeout_s: float) -> Completed:
        """Run a script by the device's shell."""
        return self._adb("shell", "-T", script, timeout_s=timeout_s)

    def upload(self, source: Path, target: str) -> Completed:
        """Copy a file to the device."""
        return self._adb("push", str(source.absolute()), target, timeout_s=upload_seconds(source))

    def download(self, source: str, target: Path) -> Completed:
        """Copy a file through the shell: `adb pull` has no bound."""
        return self._adb("shell", "-T", f"cat {shlex.quote(source)}", timeout_s=600, stdout=target, largest=LARGEST_FILE)
