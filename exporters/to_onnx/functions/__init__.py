"""Model-local functions of our operators, in standard ONNX operators: what a runtime without our library runs.

A function computes `float` whatever the node's `compute` says: the int8 quantisation of activations is the kernels' way to be fast,
and these functions are the way to run at all. One body serves every bit width, and optional inputs both present and absent (an
empty tensor), so a model holds each function once.

Rows are decoded inside a `Scan`, some at a time. No constant folding reaches into a Scan, so a runtime cannot expand the packed
weights to float32 when it loads the model, and only the rows of one step stand decoded in memory. Six 4-bit layers of 4096 x 1024
(13.5 MB in the file, 100 MB as float32) take 19 MB more than an empty session at their peak, the mapped file included.
"""

from __future__ import annotations

from collections.abc import Collection
from importlib import import_module

import onnx

from edgecomp.ops import ATTENTION, OPERATORS, Operator


def function_protos(op_types: Collection[str], opset: int) -> list[onnx.FunctionProto]:
    """The functions of the operators that a model uses, by ONNX name, in the table's order.

    Args:
        op_types: ONNX names of operators of the table.
        opset: the model's version of the default domain; the checker demands that functions import the same.

    """
    return [_built(operator, opset) for operator in OPERATORS.values() if operator.onnx_name in op_types]


def _built(operator: Operator, opset: int) -> onnx.FunctionProto:
    """By the function of the operator's name in the module of that name; those of a cache's types are one, and told the type."""
    name, cache = operator.name, []
    if operator.factor is ATTENTION:
        name, _, last = name.rpartition("_")
        cache = [last]
    function: onnx.FunctionProto = getattr(import_module(f"{__name__}.{name}"), name)(opset, *cache)
    return function
