"""Programs of ExecuTorch, measured and compared by the C++ runner: here and on emulated processors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import executorch_programs
import numpy as np
import pytest
from executorch_programs import Example
from on_device import QUICK

from edgecomp.bench.record import Record
from edgecomp.bench.runner import run_benches
from edgecomp.errors import ModelError

DEVICES = ["local", "qemu://cortex-a72", "qemu://cortex-a76", "qemu://max"]
VARIANTS = {"qemu://cortex-a72": "neon", "qemu://cortex-a76": "neon_dotprod", "qemu://max": "neon_i8mm"}


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory, llama_folder: str, text_file: str) -> list[Example]:
    """A convolutional network and a language model, in both compute modes."""
    made = []
    for compute in ("float", "int8"):
        made.append(executorch_programs.save_network(tmp_path_factory.mktemp("network"), compute))
        made.append(executorch_programs.save_language_model(llama_folder, text_file, tmp_path_factory.mktemp("lm"), compute))
    return made


def assert_alike(records: list[Record]) -> None:
    for record in records[1:]:
        assert record.failure is None
        assert record.rounds[0].measurement.kernels["lut_matmul"] == VARIANTS[record.device]
        assert record.parity is not None
        assert record.parity.relative_difference is not None
        assert record.parity.relative_difference < 1e-5


def test_every_processor_computes_the_same(tmp_path: Path, tied_program: Path, external_program: Path, bundle: Path) -> None:
    artifacts = [executorch_programs.save_linear(tmp_path), tied_program, external_program]
    records = run_benches(artifacts, QUICK, devices=DEVICES, bundle=bundle)
    for first in range(0, len(records), len(DEVICES)):
        assert_alike(records[first : first + len(DEVICES)])


@pytest.mark.parametrize("device", DEVICES[1:])
def test_every_processor_computes_what_the_packed_weights_do(examples: list[Example], device: str, bundle: Path) -> None:
    for example in examples:
        example.check(executorch_programs.run_by_runner(example, device, bundle))


def test_too_large_an_input_is_refused_by_name(tied_program: Path, tmp_path: Path) -> None:
    # ExecuTorch counts elements: 1 x 17 fits where 4 x 16 were planned.
    np.savez(tmp_path / "inputs.npz", ids=np.zeros((4, 17), np.int64))
    with pytest.raises(ModelError, match=r"does not run on inputs ids int64\[4, 17\]"):
        run_benches([tied_program], replace(QUICK, inputs=tmp_path / "inputs.npz"))
