"""Compress, export, run on ExecuTorch: in Python and by the C++ runner, against the packed model in PyTorch."""

from __future__ import annotations

from pathlib import Path

import executorch_programs
import numpy as np
import pytest
from executorch_programs import Example

from edgecomp.exported.executorch_session import ExecutorchModel


def check_everywhere(example: Example) -> None:
    with ExecutorchModel(example.program) as program:
        in_python = program.run(example.inputs)
    example.check(in_python)
    for name, output in executorch_programs.run_by_runner(example).items():
        np.testing.assert_array_equal(output, in_python[name], name)


@pytest.mark.parametrize("compute", ["float", "int8"])
def test_convolutional_network(tmp_path: Path, compute: str) -> None:
    check_everywhere(executorch_programs.save_network(tmp_path, compute))


@pytest.mark.parametrize("compute", ["float", "int8"])
def test_language_model_without_a_cache(tmp_path: Path, llama_folder: str, text_file: str, compute: str) -> None:
    check_everywhere(executorch_programs.save_language_model(llama_folder, text_file, tmp_path, compute))
