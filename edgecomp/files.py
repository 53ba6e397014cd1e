"""Writing files whole: aside first, then renamed; nothing half written, nothing lost."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

from edgecomp.errors import OutputError


def is_utf8(path: str | Path) -> bool:
    """Whether a name is UTF-8; Python has the bytes of others as lone surrogates, which model files and runtimes cannot hold."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def require_writable_target(path: Path, *, overwrite: bool) -> None:
    """Refuse an output that exists, whose parent is no folder, or whose name is not UTF-8.

    Raises:
        OutputError: with the way out.

    """
    if not is_utf8(path):
        raise OutputError(f"the name of an output must be UTF-8, got {os.fsencode(path)!r}: give another output")
    if not path.parent.is_dir():
        raise OutputError(f"the folder of an output must exist, but {path.parent} does not: create it first")
    if os.path.lexists(path) and not overwrite:
        raise OutputError(f"{path} exists already: give another output, or --force to replace it")


def outside(path: Path, folder: Path) -> bool:
    """Whether a path in a folder leads out of it by a link.

    In a cache of the Hugging Face hub files are links from `snapshots/REVISION` to `blobs`, both of one model: that is inside.
    """
    real, home = path.resolve(), folder.resolve()
    if real.is_relative_to(home):
        return False
    snapshots = next((parent for parent in home.parents if parent.name == "snapshots"), None)
    return snapshots is None or real.parent != snapshots.parent / "blobs"


def require_own(folder: Path, names: Collection[str], what: str) -> None:
    """Refuse to replace a folder that holds more than what we wrote there: the rest would be lost.

    Args:
        folder: that will be replaced.
        names: of our files in it, relative to it.
        what: it is.

    Raises:
        OutputError: naming what would be lost.

    """
    others = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    surplus = sorted(name for name in (path.relative_to(folder).as_posix() for path in others) if name not in names)
    if surplus:
        raise OutputError(
            f"{folder} must hold a {what} and nothing else to be replaced, found {', '.join(surplus[:5])}: move that away, or give "
            "another output"
        )


@contextlib.contextmanager
def replace_folder(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """A temporary folder beside `target` that takes its place when the block ends well, and vanishes when it does not.

    Raises:
        OutputError: the target exists and `overwrite` is not set, or the disk refuses.

    """
    require_writable_target(target, overwrite=overwrite)
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise OutputError(f"{target.parent} must be a folder that can be written: {error}") from error
    try:
        temporary.chmod(0o755)
        try:
            yield temporary
            for path in (*temporary.rglob("*"), temporary):
                _flush(path)
            _swap(temporary, target)
            _flush(target.parent)
        except OSError as error:
            raise OutputError(f"{target} could not be written: {error}; nothing was changed") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _flush(path: Path) -> None:
    """Wait until a file or a folder's list of names is on the disk: after a power cut, a name must not lead to missing contents."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _swap(temporary: Path, target: Path) -> None:
    """Rename `temporary` to `target`; what was there is kept until the new one stands."""
    if not os.path.lexists(target):
        temporary.rename(target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
    target.rename(old / target.name)
    try:
        temporary.rename(target)
    except OSError:
        (old / target.name).rename(target)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def replace_file(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """A temporary path beside `target` that takes its place when the block ends well, and vanishes when it does not.

    Raises:
        OutputError: the target exists and `overwrite` is not set or it is no file, or the disk refuses.

    """
    require_writable_target(target, overwrite=overwrite)
    if target.exists() and not target.is_file():  # a folder, or a device such as /dev/null, which would be gone afterwards
        raise OutputError(f"{target} must be a file to be replaced by one, and is something else: give another output")
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        os.close(handle)
    except OSError as error:
        raise OutputError(f"{target.parent} must be a folder that can be written: {error}") from error
    temporary = Path(name)
    try:
        temporary.chmod(0o644)
        try:
            yield temporary
            temporary.replace(target)
        except OSError as error:
            raise OutputError(f"{target} could not be written: {error}; nothing was changed") from error
    finally:
        temporary.unlink(missing_ok=True)
