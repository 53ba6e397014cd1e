"""`ToyMatMul` in standard operators."""

from __future__ import annotations

import onnx

from edgecomp.exporters.to_onnx.functions.decode import function
from edgecomp.ops import OPERATORS

_BODY = """
    floats = Cast <to = 1> (weights)
    transposed = Transpose <perm = [1, 0]> (floats)
    y = MatMul (x, transposed)
"""


def toy_matmul(opset: int) -> onnx.FunctionProto:
    """The function of `ToyMatMul`: float32 `x [rows, K]` to `y [rows, N]`."""
    return function(OPERATORS["toy_matmul"], opset, _BODY, {})
