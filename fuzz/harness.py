"""Runs one fuzz target with atheris: any exception but EdgecompError is a crash."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

from edgecomp.errors import EdgecompError


def scratch_folder() -> Path:
    """A folder for the files that a target writes; removed by the operating system's own rules, since a crash removes nothing."""
    return Path(tempfile.mkdtemp(prefix="edgecomp-fuzz-"))


def fuzz(target: Callable[[bytes], None]) -> None:
    """Fuzz `target` with the options of libFuzzer on the command line."""

    def run(data: bytes) -> None:
        try:
            target(data)
        except EdgecompError:
            return

    atheris.Setup(sys.argv, run)
    atheris.Fuzz()
