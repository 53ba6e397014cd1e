"""What an export wrote."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ExportResult:
    """The files of an export, the one to open first, the bytes of all of them, and the uncompressed model's parameters."""

    files: tuple[Path, ...]
    total_bytes: int
    parameters: int
