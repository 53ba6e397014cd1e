"""Runs one fuzz target with atheris: any exception but EdgecompError is a crash.

Without atheris targets can be imported all the same, by tests that give them their seeds: `TARGETS` has what was to be fuzzed.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgecomp.errors import EdgecompError

Target = Callable[[bytes], None]
TARGETS: list[Target] = []  # by tests, which set SEEDS_ONLY
SEEDS_ONLY = False


def scratch_folder() -> Path:
    """A folder for the files that a target writes; removed by the operating system's own rules, since a crash removes nothing."""
    return Path(tempfile.mkdtemp(prefix="edgecomp-fuzz-"))


def instrumented(*packages: str) -> contextlib.AbstractContextManager[Any]:
    """A block whose imports of these packages tell the fuzzer which lines run."""
    if SEEDS_ONLY:
        return contextlib.nullcontext()
    import atheris

    context: contextlib.AbstractContextManager[Any] = atheris.instrument_imports(include=list(packages))
    return context


def fuzz(target: Target) -> None:
    """Fuzz `target` with the options of libFuzzer on the command line."""

    def run(data: bytes) -> None:
        with contextlib.suppress(EdgecompError):
            target(data)

    if SEEDS_ONLY:
        TARGETS.append(run)
        return
    import atheris

    atheris.Setup(sys.argv, run)
    atheris.Fuzz()
