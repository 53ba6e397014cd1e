from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgecomp.errors import OutputError
from edgecomp.files import replace_file, replace_folder, require_writable_target


def contents(folder: Path) -> dict[str, str]:
    """Every file below the folder, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def write_file(target: Path, text: str, *, overwrite: bool = False, fail: Exception | None = None) -> None:
    with replace_file(target, overwrite=overwrite) as temporary:
        temporary.write_text(text)
        if fail:
            raise fail


def write_folder(target: Path, text: str, *, overwrite: bool = False, fail: Exception | None = None) -> None:
    with replace_folder(target, overwrite=overwrite) as temporary:
        (temporary / "file").write_text(text)
        if fail:
            raise fail


WRITERS = [pytest.param(write_file, "out", id="file"), pytest.param(write_folder, "out/file", id="folder")]


@pytest.mark.parametrize(("write", "where"), WRITERS)
def test_the_output_appears_whole_and_alone(tmp_path: Path, write: Callable[..., None], where: str) -> None:
    write(tmp_path / "out", "new")
    assert contents(tmp_path) == {where: "new"}


@pytest.mark.parametrize(("write", "where"), WRITERS)
def test_what_exists_is_kept_unless_it_may_be_replaced(tmp_path: Path, write: Callable[..., None], where: str) -> None:
    write(tmp_path / "out", "old")
    with pytest.raises(OutputError, match=r"exists already.*--force"):
        write(tmp_path / "out", "new")
    assert contents(tmp_path) == {where: "old"}
    write(tmp_path / "out", "new", overwrite=True)
    assert contents(tmp_path) == {where: "new"}


@pytest.mark.parametrize(("write", "where"), WRITERS)
@pytest.mark.parametrize("fail", [OSError("disk full"), ValueError("bug"), KeyboardInterrupt()], ids=repr)
def test_a_failure_leaves_no_trace(tmp_path: Path, write: Callable[..., None], where: str, fail: Exception) -> None:
    expected = OutputError if isinstance(fail, OSError) else type(fail)
    with pytest.raises(expected):
        write(tmp_path / "out", "new", fail=fail)
    assert contents(tmp_path) == {}
    write(tmp_path / "out", "old")
    with pytest.raises(expected):
        write(tmp_path / "out", "new", overwrite=True, fail=fail)
    assert contents(tmp_path) == {where: "old"}


@pytest.mark.parametrize(("write", "where"), WRITERS)
def test_a_failure_of_the_disk_is_named(tmp_path: Path, write: Callable[..., None], where: str) -> None:
    with pytest.raises(OutputError, match=r"disk full; nothing was changed"):
        write(tmp_path / "out", "new", fail=OSError("disk full"))


def test_the_parent_must_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for target in (tmp_path / "file" / "out", tmp_path / "missing" / "out"):
        with pytest.raises(OutputError, match="create it first"):
            require_writable_target(target, overwrite=True)


def test_a_link_that_leads_nowhere_counts_as_existing(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "gone")
    with pytest.raises(OutputError, match="exists already"):
        require_writable_target(tmp_path / "out", overwrite=False)


def test_outputs_can_be_read_by_others(tmp_path: Path) -> None:
    write_file(tmp_path / "file", "")
    write_folder(tmp_path / "folder", "")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o755
