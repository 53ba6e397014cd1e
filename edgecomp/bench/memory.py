"""Memory of this process, from Linux's /proc: what only it holds, and what the system can drop and read again."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from edgecomp.errors import RuntimeUnavailableError


class MemoryReading(TypedDict):
    """Bytes at one moment.

    `anonymous_bytes` (heap, stacks, copies of mapped pages) can leave memory only by swapping; `file_backed_bytes` are resident
    pages of mapped files; `artifact_file_backed_bytes` the part of them that belongs to the artifact. `pss_bytes` counts shared
    pages in proportion. `peak_resident_bytes` is the high-water mark since the last reset.
    """

    anonymous_bytes: int
    file_backed_bytes: int
    artifact_file_backed_bytes: int
    resident_bytes: int
    pss_bytes: int
    peak_resident_bytes: int


def read_memory(artifact_files: Sequence[Path]) -> MemoryReading:
    """The process's memory now.

    Raises:
        RuntimeUnavailableError: the system has no /proc/self/smaps_rollup (Linux 4.14 or later has).

    """
    try:
        rollup = _sizes(Path("/proc/self/smaps_rollup").read_text(encoding="utf-8"))
        status = _sizes(Path("/proc/self/status").read_text(encoding="utf-8"))
        maps = Path("/proc/self/smaps").read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError as error:
        raise RuntimeUnavailableError(f"memory is read from Linux's /proc, which this system lacks: {error}") from error
    return {
        "anonymous_bytes": rollup["Anonymous"],
        "file_backed_bytes": rollup["Rss"] - rollup["Anonymous"],
        "artifact_file_backed_bytes": file_backed_bytes(maps, {str(path) for path in artifact_files}),
        "resident_bytes": rollup["Rss"],
        "pss_bytes": rollup["Pss"],
        "peak_resident_bytes": status["VmHWM"],
    }


def file_backed_bytes(smaps: str, paths: set[str]) -> int:
    """Resident bytes, without copied pages, of the mappings in `smaps` whose file is one of `paths`."""
    total = 0
    counted = False
    for line in smaps.splitlines():
        name, _, value = line.partition(":")
        if name == "Rss" and counted:
            total += _kilobytes(value)
        elif name == "Anonymous" and counted:
            total -= _kilobytes(value)
        elif "-" in line.split(" ", 1)[0]:  # a mapping's head: 7f..-7f.. r--p offset device inode   path
            parts = line.split(maxsplit=5)
            counted = len(parts) == 6 and parts[5] in paths
    return total


def reset_peak() -> bool:
    """Start the high-water mark again from now; false where the system does not allow it."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def drop_page_cache(paths: Sequence[Path]) -> bool:
    """Ask the system to forget the files' cached pages; false where it offers no way. What is left: `cached_bytes`."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # pages that are not yet written cannot be dropped
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
    return True


def cached_bytes(paths: Sequence[Path]) -> int:
    """Bytes of the files that are in the page cache, by mincore(2), in whole pages."""
    libc = ctypes.CDLL(None, use_errno=True)
    total = 0
    for path in paths:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as view,
        ):
            pages = (ctypes.c_ubyte * -(-len(view) // mmap.PAGESIZE))()
            anchor = ctypes.c_char.from_buffer(view)  # the mapping is writable only because ctypes demands it
            failed = libc.mincore(ctypes.c_void_p(ctypes.addressof(anchor)), ctypes.c_size_t(len(view)), pages)
            del anchor  # or the mapping could not be closed
            if failed:
                raise OSError(ctypes.get_errno(), f"mincore of {path}")
            total += sum(page & 1 for page in pages) * mmap.PAGESIZE
    return total


def _sizes(text: str) -> dict[str, int]:
    lines = (line.partition(":") for line in text.splitlines())
    return {name: _kilobytes(value) for name, _, value in lines if value.endswith(" kB")}


def _kilobytes(value: str) -> int:
    return int(value.split()[0]) * 1024
