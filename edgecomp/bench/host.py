"""The edgecomp that measures: its version and, in a checkout, its commit."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import edgecomp


def git_commit() -> str | None:
    """The commit of the checkout that runs, with -dirty where files differ from it; None where the package is installed."""
    folder = Path(edgecomp.__file__).parent
    if not (folder.parent / ".git").exists():
        return None  # installed: the folder may lie in somebody else's repository
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # git is not installed, or does not trust the folder
        return None


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
