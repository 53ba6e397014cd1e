"""Programs with another word: refused, or run; where the runtime dies all the same, that is said, and the rest is kept."""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from packed_models import compressed
from torch import Tensor, nn

from edgecomp.bench.options import BenchOptions
from edgecomp.bench.runner import run_benches
from edgecomp.devices import open_device
from edgecomp.devices.session import Session
from edgecomp.errors import CheckpointError, DeviceError, EdgecompError
from edgecomp.exported.executorch_file import read_executorch
from edgecomp.exported.executorch_session import ExecutorchModel
from edgecomp.exported.flatbuffer import Room, Table
from edgecomp.exporters import ExportOptions, export
from edgecomp.exporters.to_executorch.signatures import signatures as installed_signatures
from edgecomp.native import get_library_path
from edgecomp.tensor import TensorSpec

QUICK = BenchOptions(batch=1, sequence=8, rounds=1, warmup=0, min_iterations=1, min_duration_s=0, max_spread=1e9)
WORDS = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x1234)


def mutants(program: bytes, count: int) -> list[tuple[int, int]]:
    """Places of words before the weights, and what to write there."""
    rng = np.random.default_rng(0)
    size = struct.unpack_from("<Q", program, 16)[0]
    return [(4 * int(rng.integers(12, size // 4)), WORDS[rng.integers(len(WORDS))]) for _ in range(count)]


def test_few_mutants_end_the_measuring_program(tied_program: Path, tmp_path: Path) -> None:
    """A fifth did, before every offset was held to its bounds, and one of a hundred, before arguments were held to signatures."""
    source = tied_program.read_bytes()
    path = tmp_path / "m.pte"
    np.save(tmp_path / "ids.npy", np.ones((1, 8), np.int64))
    lines = [("artifact", path), ("file", path), ("library", get_library_path("executorch")), ("threads", 1)]
    lines += [("input", f"ids={tmp_path / 'ids.npy'}"), ("warmup", 0), ("min_iterations", 1)]
    died = 0
    with open_device("local") as device:
        session = Session(device)
        session.ask(tied_program, [("artifact", tied_program), ("file", tied_program), *lines[2:]], 30)  # which must run as it is
        for at, word in mutants(source, 150):
            path.write_bytes(source[:at] + struct.pack("<I", word) + source[at + 4 :])
            try:
                read_executorch(path)
                session.ask(path, lines, 30)
            except DeviceError as error:
                died += " died of " in str(error)
            except EdgecompError:
                pass  # refused
    assert died <= 1


def with_word(folder: Path, program: bytes, at: int, word: int) -> Path:
    path = folder / "m.pte"
    path.write_bytes(program[:at] + struct.pack("<i", word) + program[at + 4 :])
    return path


def test_operators_of_negative_numbers_are_refused(tied_program: Path, tmp_path: Path) -> None:
    assert any(reason.startswith("an instruction calls number -5 of") for reason in reasons(tied_program, tmp_path, -5))


def reasons(program: Path, folder: Path, word: int) -> set[str]:
    """Why the program is refused with the word anywhere in it."""
    data, refused = program.read_bytes(), set()
    for at in range(48, struct.unpack_from("<Q", data, 16)[0] - 4, 4):
        try:
            read_executorch(with_word(folder, data, at, word))
        except CheckpointError as error:
            refused.add(str(error).partition("(")[2].partition(";")[0])
    return refused


class Stock(nn.Module):
    """Nothing of ours: a layer of XNNPACK's and an operator of ExecuTorch's, on lists of sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (torch.cumsum(self.linear(x).reshape(x.shape[0] * 2, 4), 0),)


@pytest.fixture(scope="module")
def stock_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stock") / "m.pte"
    model = compressed(Stock(), {}, {}, [TensorSpec("x", "float32", ("batch", 8))])
    export(model, "executorch", path, options=ExportOptions(max_sizes={"batch": 4}))
    return path


def test_calls_bring_what_the_operator_reads(stock_program: Path, tmp_path: Path) -> None:
    refused = reasons(stock_program, tmp_path, 0) | reasons(stock_program, tmp_path, 1) | reasons(stock_program, tmp_path, 999)
    for reason in (
        r"aten::\S+ is called with 0 values, and reads [3-9]",
        r"aten::\S+ is called with a tensor as argument \d",
        r"aten::\S+ is called with value 999 of \d+",
        r"XnnpackBackend is called with [01] values, and reads \d",
        r"a list of integers holds value \d+, which is none",
        r"value 999 of \d+ is an input or output",
        r"an operator has no name",
    ):
        assert any(re.match(reason, found) for found in refused), (reason, refused)


def test_signatures_are_those_of_the_installed_executorch() -> None:
    """`python -m edgecomp.exporters.to_executorch.signatures` writes the table; a newer ExecuTorch may have more."""
    table = (resources.files("edgecomp.exported") / "executorch_signatures.txt").read_text("utf-8").splitlines()
    assert installed_signatures() == dict(line.split() for line in table)


def test_parts_that_lie_over_each_other_do_not_take_long() -> None:
    room = Room(10)
    room.take(10)
    with pytest.raises(ValueError, match="its parts lie over each other"):
        room.take(1)


def test_of_two_methods_of_one_name_none_is_taken_for_the_other(stock_program: Path, tmp_path: Path) -> None:
    program = stock_program.read_bytes()
    root = Table.root(memoryview(program))
    start = root._follow(1)
    assert start is not None
    first, second = start + 4, start + 8  # of the vector's offsets, each from where it stands
    (offset,) = struct.unpack_from("<I", program, first)
    with pytest.raises(CheckpointError, match="two of its methods have one name"):
        read_executorch(with_word(tmp_path, program, second, offset - 4))


def test_names_that_end_early_for_the_runtime_are_refused(stock_program: Path, tmp_path: Path) -> None:
    """ExecuTorch would call `aten::cumsum`, and signatures have no operator of the longer name."""
    program = stock_program.read_bytes()
    at = program.index(b"aten::cumsum") - 4
    (path := tmp_path / "m.pte").write_bytes(program[:at] + struct.pack("<I", 13) + program[at + 4 :])
    with pytest.raises(CheckpointError, match="a text holds a zero byte"):
        read_executorch(path)


def test_parts_of_xnnpack_are_looked_at_wherever_they_lie(stock_program: Path, tmp_path: Path) -> None:
    program = stock_program.read_bytes()
    plans = Table.root(memoryview(program)).tables(1)
    (delegate,) = next(plan for plan in plans if plan.text(0) == "forward").tables(7)
    place = delegate.table(1)
    assert place is not None
    at = place._find(0)
    assert at is not None
    (path := tmp_path / "m.pte").write_bytes(program[:at] + b"\0" + program[at + 1 :])  # in the FlatBuffer, which holds none
    with pytest.raises(CheckpointError, match=r"a delegate's part is number \d of 0"):
        read_executorch(path)


def test_a_runtime_that_dies_is_said_to_have_died(tied_program: Path, crashing_library: Path) -> None:
    with pytest.raises(EdgecompError, match=r"tied\.pte died of SIGABRT: the model is damaged, or made to end the runtime"):
        ExecutorchModel(tied_program, str(crashing_library))
    (record,) = run_benches([tied_program], replace(QUICK, library=str(crashing_library)))
    assert "died of SIGABRT" in str(record.failure)
