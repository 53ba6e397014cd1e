"""Model-local functions of our operators, in standard ONNX operators: what a runtime without our library runs.

A function computes `float` whatever the node's `compute` says: the int8 quantisation of activations is the kernels' way to be fast,
and these functions are the way to run at all. One body serves every bit width, and optional inputs both present and absent (an
empty tensor), so a model holds each function once.

Rows are decoded inside a `Scan`, some at a time. No constant folding reaches into a Scan, so a runtime cannot expand the packed
weights to float32 when it loads the model, and only the rows of one step stand decoded in memory. Six 4-bit layers of 4096 x 1024
(13.5 MB in the file, 100 MB as float32) take 19 MB more than an empty session at their peak, the mapped file included.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import onnx

from edgecomp.exporters.to_onnx.functions.lut_conv2d import lut_conv2d
from edgecomp.exporters.to_onnx.functions.lut_gather import lut_gather
from edgecomp.exporters.to_onnx.functions.lut_matmul import lut_matmul
from edgecomp.exporters.to_onnx.functions.lut_narrow_conv2d import lut_narrow_conv2d
from edgecomp.ops import LUT_CONV2D, LUT_GATHER, LUT_MATMUL, LUT_NARROW_CONV2D

_BUILDERS: dict[str, Callable[[int], onnx.FunctionProto]] = {
    LUT_MATMUL.onnx_name: lut_matmul,
    LUT_GATHER.onnx_name: lut_gather,
    LUT_CONV2D.onnx_name: lut_conv2d,
    LUT_NARROW_CONV2D.onnx_name: lut_narrow_conv2d,
}


def function_protos(op_types: Collection[str], opset: int) -> list[onnx.FunctionProto]:
    """The functions of the operators that a model uses, by ONNX name, in the table's order.

    Args:
        op_types: ONNX names of operators of the table.
        opset: the model's version of the default domain; the checker demands that functions import the same.

    """
    return [build(opset) for name, build in _BUILDERS.items() if name in op_types]
