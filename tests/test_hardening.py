"""What is shipped: protections of compiler and linker, no folder of the machine that built it, no names but our interface's."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

import edgecomp

LIB = Path(edgecomp.__file__).parent / "lib"
FILES = sorted(path for path in LIB.iterdir() if path.suffix == ".so" or path.name.startswith("edgecomp-run-"))
PUBLIC = re.compile(r"ecf?_\w+|RegisterCustomOps|qemu_plugin_(install|version)")


def readelf(option: str, path: Path) -> str:
    return subprocess.run(["readelf", option, "-W", str(path)], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_tables_of_addresses_are_read_only_and_stacks_hold_no_code(path: Path) -> None:
    segments = readelf("-l", path)
    assert "GNU_RELRO" in segments
    stack = next(line for line in segments.splitlines() if "GNU_STACK" in line)
    assert " RWE " not in stack
    assert re.search(r"BIND_NOW|Flags:.*\bNOW\b", readelf("-d", path))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_folder_of_another_machine_is_searched(path: Path) -> None:
    for folders in re.findall(r"\((?:RUNPATH|RPATH)\).*\[(.*)\]", readelf("-d", path)):
        assert all(folder.startswith("$ORIGIN") for folder in folders.split(":")), folders


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix == ".so"], ids=lambda path: path.name)
def test_no_names_but_the_interfaces_are_exported(path: Path) -> None:
    lines = [line.split() for line in readelf("--dyn-syms", path).splitlines()]
    names = [words[7] for words in lines if len(words) > 7 and words[4] in ("GLOBAL", "WEAK") and words[6] != "UND"]
    assert names
    assert [name for name in names if not PUBLIC.fullmatch(name)] == []


def test_stacks_have_canaries_and_the_c_library_checks() -> None:
    """Of all files together: not every one has an array on its stack, or a call that could be checked."""
    needed = "".join(readelf("--dyn-syms", path) for path in FILES)
    assert "__stack_chk_fail" in needed
    assert re.search(r"__(mem|str|f?read|v?s?n?printf|fprintf)\w*_chk", needed)
