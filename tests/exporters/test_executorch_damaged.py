"""A program whose numbers were changed after the export: what the kernels are asked for is not what memory was planned for."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from packed_models import chain_model, conv, conv_factor, plan

from edgecomp.errors import EdgecompError
from edgecomp.exported.executorch_session import ExecutorchModel
from edgecomp.exporters import export
from edgecomp.tensor import ConvParams, TensorSpec


def test_an_output_beyond_32_bits_is_refused(tmp_path: Path) -> None:
    """Its height, 2**32 + 8, was taken for the 8 that memory was planned for."""
    params = ConvParams(in_channels=32, kernel_size=(3, 1), padding=(1003, 0, 1009, 0), dilation=(1008, 1))
    spec = TensorSpec("x", "float32", (1, 32, 12, 1))
    path = tmp_path / "m.pte"
    export(chain_model({"c": plan([conv(params)])}, {"w": conv_factor(16, params)}, spec), "executorch", path)
    content = path.read_bytes()
    for old, new in ((1003, 2**31 - 1), (1009, 2**31 - 1), (1008, 1)):
        assert content.count(struct.pack("<q", old)) == 1
        content = content.replace(struct.pack("<q", old), struct.pack("<q", new))
    x = {"x": np.ones((1, 32, 12, 1), np.float32)}
    with ExecutorchModel(path) as model:
        assert next(iter(model.run(x).values())).shape == (1, 16, 8, 1)
    path.write_bytes(content)
    message = r"the output needs shape \[1, 16, 4294967304, 1\], and memory is planned for \[1, 16, 8, 1\]"
    with ExecutorchModel(path) as model, pytest.raises(EdgecompError, match=message):
        model.run(x)
