from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import pytest

from edgecomp.errors import CheckpointError, EdgecompError, ModelError, RuntimeUnavailableError
from edgecomp.exported.executorch_file import read_executorch
from edgecomp.exported.files import hash_files
from edgecomp.exported.library import resolve_library
from edgecomp.ops import DOMAIN_VERSION


def copied(program: Path, folder: Path) -> Path:
    for path in program.parent.iterdir():
        shutil.copy(path, folder)
    return folder / program.name


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no ExecuTorch program at .*\.pte"):
        read_executorch(tmp_path / "none.pte")


def test_instructions_are_named_by_what_they_call(tied_program: Path) -> None:
    program = read_executorch(tied_program)
    assert program.instructions.count("edgecomp::lut_matmul.out") >= 1
    assert set(program.instructions) - {""} <= program.operators | program.backends
    assert set(program.own_operators) <= set(program.instructions)


@pytest.mark.parametrize("content", [b"", b"no program", b"\x10\0\0\0ET12" + bytes(60)])
def test_what_is_no_program(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.pte").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"m\.pte is not a complete ExecuTorch program"):
        read_executorch(tmp_path / "m.pte")


def test_every_truncation_is_refused(tied_program: Path, tmp_path: Path) -> None:
    path, content = copied(tied_program, tmp_path), tied_program.read_bytes()
    for size in [*range(0, 2000, 97), len(content) // 2, len(content) - 1]:
        path.write_bytes(content[:size])
        with pytest.raises(CheckpointError, match=f"{size} bytes.; copy or export it again"):
            read_executorch(path)


def test_damaged_bytes_end_in_an_error_of_ours_or_none(tied_program: Path, tmp_path: Path) -> None:
    path, content = copied(tied_program, tmp_path), tied_program.read_bytes()
    for position in range(0, 4000, 7):
        damaged = bytearray(content)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        with contextlib.suppress(EdgecompError):
            read_executorch(path)


def test_program_for_other_operators(tied_program: Path, tmp_path: Path) -> None:
    path = copied(tied_program, tmp_path)
    ours, theirs = (f'"operators":{version}'.encode() for version in (DOMAIN_VERSION, DOMAIN_VERSION + 1))
    content = path.read_bytes()
    assert content.count(ours) == 1
    path.write_bytes(content.replace(ours, theirs))
    with pytest.raises(
        CheckpointError, match=f"for operators of version {DOMAIN_VERSION + 1}.*has those of version {DOMAIN_VERSION}"
    ):
        read_executorch(path)


def test_manifest_that_is_no_json(tied_program: Path, tmp_path: Path) -> None:
    path = copied(tied_program, tmp_path)
    manifest = json.dumps(read_executorch(path).manifest, sort_keys=True, separators=(",", ":")).encode()
    path.write_bytes(path.read_bytes().replace(manifest, b"x" + manifest[1:]))
    with pytest.raises(CheckpointError, match="not a complete ExecuTorch program"):
        read_executorch(path)


def test_external_data_is_needed_whole(external_program: Path, tmp_path: Path) -> None:
    path = copied(external_program, tmp_path)
    data = path.with_suffix(".ptd")
    assert [info.name for info in hash_files(read_executorch(path))] == ["tied.pte", "tied.ptd"]
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"tied\.ptd must be complete: its header tells"):
        read_executorch(path)
    data.unlink()
    with pytest.raises(CheckpointError, match=r"needs its data file tied\.ptd beside it"):
        read_executorch(path)


def test_the_library_is_needed(tied_program: Path) -> None:
    program = read_executorch(tied_program)
    library = resolve_library("auto", program)
    assert library is not None and library.name == "libedgecomp_executorch.so"
    with pytest.raises(RuntimeUnavailableError, match=r"edgecomp::lut_gather\.out.*torch\.ops\.load_library"):
        resolve_library("none", program)
    with pytest.raises(RuntimeUnavailableError, match="no library of operators at"):
        resolve_library("/no/such/library.so", program)
