"""What every kind of artifact has in common: its files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class ArtifactFile(Protocol):
    """An exported model on disk, whose structure was read and found complete."""

    @property
    def path(self) -> Path:
        """The file to open."""

    @property
    def files(self) -> tuple[Path, ...]:
        """That file and those beside it that it needs."""

    @property
    def checked(self) -> tuple[Path, ...]:
        """The same files, links followed when they were checked: what is sent or hashed is these, wherever a link leads by then."""

    @property
    def uses_edgecomp(self) -> bool:
        """Whether it calls operators of ours."""


@dataclass(frozen=True)
class FileInfo:
    """A file of an artifact: name relative to the artifact's folder, size, SHA-256 in hexadecimal."""

    name: str
    bytes: int
    sha256: str


def hash_files(artifact: ArtifactFile) -> tuple[FileInfo, ...]:
    """Sizes and digests of the artifact's files."""
    infos = []
    for path, real in zip(artifact.files, artifact.checked, strict=True):
        infos.append(FileInfo(path.relative_to(artifact.path.parent).as_posix(), real.stat().st_size, digest_of(real)))
    return tuple(infos)


def digest_of(path: Path) -> str:
    """SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def data_missing(artifact: Path, location: str) -> str:
    """What to say where the data file of an artifact is not beside it, but perhaps beside what the artifact is a link to."""
    message = f"{artifact} needs its data file {location} beside it, and there is none; copy both files together"
    real = artifact.resolve()
    return (
        f"{message}, or give {real}, where there is one"
        if artifact.is_symlink() and (real.parent / location).is_file()
        else message
    )
