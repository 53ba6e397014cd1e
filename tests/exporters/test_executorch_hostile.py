"""Calls of our operators that no exporter writes, in ExecuTorch: each is refused by a message, and none ends the process.

The programs are seeds of the fuzzer, with a call of every operator. One of their fields is another each time: an argument is
another value, an integer, a size, a type or a text is another, a call has fewer arguments. `make test-sanitized` runs a part of
them with sanitizers in the adapter and the kernels, and `make test-long` all.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgecomp.devices import open_device
from edgecomp.devices.session import Session
from edgecomp.errors import DeviceError, EdgecompError
from edgecomp.exported.executorch_file import METHOD, read_executorch
from edgecomp.exported.flatbuffer import Table
from edgecomp.native import get_library_path
from edgecomp.ops import OPERATORS

PROGRAMS = Path(__file__).parents[2] / "fuzz" / "corpus" / "executorch_file"
COUNT = int(os.environ.get("EDGECOMP_TEST_HOSTILE", "120"))  # 0 is all
INPUTS = {
    "operators": {"ids": np.zeros(3, np.int64), "x": np.ones((2, 32), np.float32), "image": np.ones((1, 4, 5, 5), np.float32)},
    "attention": {"x": np.ones((1, 2, 32), np.float32), "before": np.ones(1, np.int32), "total": np.zeros((), np.int32)},
}
INTEGERS = (0, -1, 1, 3, 2**31 - 1, -(2**31), 2**62, -(2**63))

Change = tuple[int, bytes]  # where, what


def vector(table: Table, field: int) -> tuple[int, int]:
    """Position of a vector's first item, and how many they are."""
    start = table._follow(field)
    if start is None:
        return 0, 0
    return start + 4, struct.unpack_from("<I", table._data, start)[0]


def changes(data: bytes) -> Iterator[Change]:
    (plan,) = [plan for plan in Table.root(memoryview(data)).tables(1) if plan.text(0) == METHOD]
    values = list(plan.tables(2))
    kinds = [value.number(0, "B") for value in values]
    examples = {kind: kinds.index(kind) for kind in sorted(set(kinds))}
    for chain in plan.tables(5):
        for instruction in chain.tables(2):
            call = instruction.table(1)
            assert call is not None
            first, count = vector(call, 1)
            for i in range(count):
                yield from ((first + 4 * i, struct.pack("<i", other)) for other in examples.values())
            yield from ((first - 4, struct.pack("<I", fewer)) for fewer in (0, 1, count // 2, count - 2, count - 1))
    for value, kind in zip(values, kinds, strict=True):
        inner = value.table(1)
        if inner is None:
            continue
        if kind == 2 and (at := inner._find(0)) is not None:
            yield from ((at, struct.pack("<q", number)) for number in INTEGERS)
        if kind == 5:
            yield from tensor_changes(inner)
        if kind in (6, 7):
            first, count = vector(inner, 0)
            yield from ((first - 4, struct.pack("<I", fewer)) for fewer in (0, max(count - 1, 0)))
            yield first, b"x"


def tensor_changes(tensor: Table) -> Iterator[Change]:
    first, count = vector(tensor, 2)
    for i in range(count):
        yield from ((first + 4 * i, struct.pack("<i", size)) for size in (0, 1, -1, 2**31 - 1))
    if (at := tensor._find(0)) is not None:
        yield from ((at, struct.pack("<b", scalar)) for scalar in (0, 1, 3, 4, 6, 100))
    if (at := tensor._find(5)) is not None:
        yield from ((at, struct.pack("<I", buffer)) for buffer in (0, 1, 2, 2**31))
    order, count = vector(tensor, 3)
    if count > 1:
        yield order, bytes(reversed(range(count)))


@pytest.mark.parametrize("name", INPUTS)
def test_hostile_calls_end_in_messages(name: str, tmp_path: Path) -> None:
    data = (PROGRAMS / name).read_bytes()
    found = [change for change in changes(data) if data[change[0] : change[0] + len(change[1])] != change[1]]
    chosen = [found[i] for i in np.random.default_rng(0).permutation(len(found))[: COUNT or len(found)]]
    path = tmp_path / "m.pte"
    lines = [("artifact", path), ("file", path), ("library", get_library_path("executorch")), ("threads", 1)]
    for input_name, array in INPUTS[name].items():
        np.save(tmp_path / f"{input_name}.npy", array)
        lines.append(("input", f"{input_name}={tmp_path / input_name}.npy"))
    died, ended = [], {"ran": 0, "refused": 0}
    with open_device("local") as device:
        session = Session(device)
        for at, what in [(0, b""), *chosen]:
            path.write_bytes(data[:at] + what + data[at + len(what) :])
            try:
                session.ask(path, [*lines, ("warmup", 0), ("min_iterations", 1)], 60)
            except DeviceError as error:
                died.append((at, what.hex(), str(error)))
            except EdgecompError:
                ended["refused"] += 1
            else:
                ended["ran"] += 1
    assert died == []
    assert ended["ran"] > 0
    assert ended["refused"] > len(chosen) // 3


def test_the_programs_call_every_operator(tmp_path: Path) -> None:
    called = set()
    for name in INPUTS:
        (tmp_path / "m.pte").write_bytes((PROGRAMS / name).read_bytes())
        called |= read_executorch(tmp_path / "m.pte").operators
    assert {name for name in called if name.startswith("edgecomp::")} == {
        name for operator in OPERATORS.values() for name in operator.executorch_names
    }
