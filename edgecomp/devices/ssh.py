"""Boards over ssh, by the user's own OpenSSH client: its configuration, keys, agents and jump hosts hold.

`EDGECOMP_SSH_COMMAND` replaces the command `ssh`, as `GIT_SSH_COMMAND` does for git: "ssh -F other_config".
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import tempfile
from pathlib import Path
from urllib.parse import SplitResult

from edgecomp.devices.base import LARGEST_FILE, Completed
from edgecomp.devices.shell import ShellDevice, run_client, upload_seconds
from edgecomp.errors import ConfigError, DeviceError

_CONNECTION_LOST = 255  # ssh's own exit code
_REMEDIES = {
    "Permission denied": "the device must take a key of yours unasked: ssh-copy-id it there, or name the key in ~/.ssh/config",
    "Host key verification failed": "the device's host key must be known: log in once by ssh, and look at the key's fingerprint",
    "Could not resolve hostname": "the host's name must be known: try its address",
    "Connection refused": "an ssh server must run there: on a Raspberry Pi, switch on SSH in raspi-config",
    "timed out": "the device must be switched on and in reach",
    "No route to host": "the device must be switched on and in reach",
}


class SshDevice(ShellDevice):
    """`ssh://[USER@]HOST[:PORT][/FOLDER]`; without a folder, `~/.cache`."""

    def __init__(self, url: SplitResult) -> None:
        try:
            port = url.port
        except ValueError as error:
            raise ConfigError(f"the port of {url.geturl()} must be a number: {error}") from error
        if not url.hostname:
            raise ConfigError(f"an ssh device must name its host, ssh://[USER@]HOST[:PORT], got {url.geturl()!r}")
        if url.hostname.startswith("-") or (url.username or "").startswith("-"):
            raise ConfigError(f"{url.geturl()}: a host or user must not begin with '-'")
        # Made where the client's limit of about 100 characters for a socket's path leaves room.
        self._sockets = tempfile.mkdtemp(prefix="ec-ssh-")
        self._command = [
            *shlex.split(os.environ.get("EDGECOMP_SSH_COMMAND", "ssh")),
            *("-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"),
            *("-o", "ControlMaster=auto", "-o", f"ControlPath={self._sockets}/%C", "-o", "ControlPersist=60"),
            *(["-p", str(port)] if port is not None else []),
        ]
        self._host = (f"{url.username}@" if url.username else "") + url.hostname
        folder = url.path.rstrip("/")
        super().__init__(url.geturl(), shlex.quote(folder) if folder else '"$HOME" && mkdir -p .cache && cd .cache')

    def _ssh(
        self, script: str, timeout_s: float, *, stdin: Path | None = None, stdout: Path | None = None, largest: int | None = None
    ) -> Completed:
        done = run_client(self.client(script), timeout_s, stdin=stdin, stdout=stdout, largest=largest)
        self.check(done)
        return done

    def client(self, script: str) -> list[str]:
        """The client with a script for the user's login shell there."""
        return [*self._command, "--", self._host, script]

    def check(self, done: Completed) -> None:
        """Raise where the connection was not made, or lost."""
        if done.exit_code == _CONNECTION_LOST:
            lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
            said = lines[-1] if lines else "the connection was lost"
            remedy = next((remedy for sign, remedy in _REMEDIES.items() if sign in done.stderr), None)
            error = DeviceError(f"{self.url} is not reached: {said}" + ("" if remedy is None else f"; {remedy}"))
            error.partial_output = done.stdout
            raise error

    def shell(self, script: str, timeout_s: float) -> Completed:
        """Run a script, by the user's login shell there."""
        return self._ssh(script, timeout_s)

    def upload(self, source: Path, target: str) -> Completed:
        """Copy a file through the shell: neither scp nor sftp need be on the device."""
        return self._ssh(f"cat > {shlex.quote(target)}", upload_seconds(source), stdin=source)

    def download(self, source: str, target: Path) -> Completed:
        """Copy a file through the shell."""
        return self._ssh(f"cat {shlex.quote(source)}", 600, stdout=target, largest=LARGEST_FILE)

    def clean_up(self) -> None:
        """Clean up there, and end the connection that was kept open."""
        try:
            super().clean_up()
            if Path(self._sockets).exists():
                with contextlib.suppress(DeviceError):  # of a client that hangs or is gone: there is nothing left to end
                    run_client([*self._command, "-O", "exit", "--", self._host], 10)
        finally:
            shutil.rmtree(self._sockets, ignore_errors=True)
