"""Work that outlives an interruption: results of a long computation, kept in a folder until the whole is saved.

    WORK/KEY/<digest of the name>.safetensors      one result: arrays, and facts as JSON in the file's metadata

KEY is a digest of everything that decides the results, so that what is found under it is what would be computed again. A result
carries a digest of itself: one that power loss or a full disk damaged counts as absent, and nothing has to be flushed to the disk.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edgecomp import formats
from edgecomp.array_file import bytes_of, map_arrays, write_arrays
from edgecomp.errors import FormatError, OutputError
from edgecomp.files import replace_file
from edgecomp.tensor import Factor

_KEY = re.compile("[0-9a-f]{64}")
# A result, or one that was being written when the process was killed.
_RESULT = re.compile(r"\.?[0-9a-f]{32}\.safetensors(\.\w+)?")


class Kept(NamedTuple):
    """A result: arrays by name, and facts as JSON values."""

    arrays: Mapping[str, np.ndarray]
    facts: Mapping[str, Any]


class FinishedFactor(NamedTuple):
    """A packed factor, and what its pass measured of it."""

    factor: Factor
    record: dict[str, float]


class Work:
    """The results kept under one key; without a folder nothing is kept and nothing found.

    Args:
        folder: the folder of one key (`open_work`), or None.
        part: goes before every name, so that each pass has names of its own.

    """

    def __init__(self, folder: Path | None = None, part: str = "") -> None:
        self._folder = folder
        self._part = part

    @property
    def outlives(self) -> bool:
        """Whether anything is kept at all: what is costly to hand over need not be, otherwise."""
        return self._folder is not None

    def of(self, part: str) -> Work:
        """The same folder for one part of the computation; its names are its own."""
        return Work(self._folder, part)

    def find(self, name: str) -> Kept | None:
        """The result of that name, or None where it is absent or damaged."""
        if self._folder is None:
            return None
        try:
            found = map_arrays(self._folder / self._file(name))
        except (OSError, TypeError):
            return None
        if found.metadata.get("digest") != _digest(found.arrays, found.metadata.get("facts", "")):
            return None
        return Kept(found.arrays, json.loads(found.metadata["facts"]))

    def keep(self, name: str, kept: Kept) -> Kept:
        """Keep a result; it appears whole or not at all. The first one removes what was kept under other keys.

        Returns:
            The result with its arrays mapped from the file, so that those given can go; without a folder the one given.

        Raises:
            OutputError: the disk refuses.

        """
        if self._folder is None:
            return kept
        if not self._folder.is_dir():
            _start(self._folder)
        facts = json.dumps(kept.facts)
        path = self._folder / self._file(name)
        with replace_file(path, overwrite=True) as temporary:
            write_arrays(temporary, kept.arrays, {"facts": facts, "digest": _digest(kept.arrays, facts)})
        return Kept(map_arrays(path).arrays, kept.facts)

    def find_factor(self, name: str) -> FinishedFactor | None:
        """The factor kept under that name, or None where it is absent or damaged."""
        kept = self.find(name)
        if kept is None:
            return None
        n, k = kept.facts["shape"]
        factor = Factor(kept.facts["format"], (n, k), kept.facts["attributes"], kept.arrays)
        try:
            formats.validate(factor)
        except FormatError:
            return None
        return FinishedFactor(factor, kept.facts["record"])

    def keep_factor(self, name: str, finished: FinishedFactor) -> FinishedFactor:
        """Keep a factor; returns it as `keep` does, mapped from the file.

        Raises:
            OutputError: the disk refuses.

        """
        factor = finished.factor
        facts = {
            "format": factor.format,
            "shape": list(factor.shape),
            "attributes": dict(factor.attributes),
            "record": finished.record,
        }
        kept = self.keep(name, Kept(factor.arrays, facts))
        return FinishedFactor(replace(factor, arrays=kept.arrays), finished.record)

    def _file(self, name: str) -> str:
        # Names hold slashes and may be longer than a file's may.
        return hashlib.sha256(f"{self._part}/{name}".encode()).hexdigest()[:32] + ".safetensors"


class Opened(NamedTuple):
    """Work to go on with, and what to tell the person who waits for it: None where there is nothing to tell."""

    work: Work
    message: str | None


def open_work(folder: Path, key: str) -> Opened:
    """The work of `key` in `folder`. Nothing is made or removed before the first result: the run may yet turn out to be a mistake.

    Raises:
        OutputError: the folder cannot be read, or is a link.

    """
    here = folder / key
    for path in (folder, here):
        _require_no_link(path)
    try:
        finished = len(list(here.glob("[!.]*")))
        others = not finished and folder.is_dir() and any(_KEY.fullmatch(path.name) for path in folder.iterdir())
    except OSError as error:
        raise OutputError(f"{folder} holds what an interrupted run finished, and must be readable: {error}") from error
    if finished:
        return Opened(Work(here), f"continuing an interrupted run: {folder} holds {finished} finished results")
    if others:
        return Opened(Work(here), f"starting afresh: {folder} holds results of another model, recipe, calibration, or version")
    return Opened(Work(here), None)


def _require_no_link(folder: Path) -> None:
    """Refuse a link where a folder of ours is to be: what lies behind it is somebody else's."""
    if folder.is_symlink():
        raise OutputError(
            f"{folder} must be a folder to keep finished work in, and is a link to {folder.readlink()}: remove the link"
        )


def _start(folder: Path) -> None:
    for path in (folder.parent, folder):
        _require_no_link(path)
    try:
        folder.parent.mkdir(exist_ok=True)
        _remove_keys(folder.parent)
        folder.mkdir()
    except OSError as error:
        raise OutputError(f"{folder.parent} must be a folder that can be written, to keep finished work in: {error}") from error


def discard(folder: Path) -> None:
    """Remove kept work, once what it was for is saved; other files in the folder stay, and so does the folder then.

    Raises:
        OutputError: the disk refuses, or the folder is a link.

    """
    _require_no_link(folder)
    try:
        if not folder.is_dir():
            return
        _remove_keys(folder)
        if not any(folder.iterdir()):
            folder.rmdir()
    except OSError as error:
        raise OutputError(f"{folder} is not needed any more, but cannot be removed: {error}") from error


def _remove_keys(folder: Path) -> None:
    """Remove what was kept under any key, and nothing that others named like one."""
    for path in folder.iterdir():
        if not _KEY.fullmatch(path.name) or path.is_symlink() or not path.is_dir():
            continue
        results = list(path.iterdir())
        if all(_RESULT.fullmatch(result.name) and not result.is_dir() for result in results):
            shutil.rmtree(path)


def _digest(arrays: Mapping[str, np.ndarray], facts: str) -> str:
    digest = hashlib.sha256(facts.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(bytes_of(array))
    return digest.hexdigest()
