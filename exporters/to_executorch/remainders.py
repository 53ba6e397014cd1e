"""Remainders as Python and PyTorch know them: ExecuTorch's kernels give those of integers the sign of the dividend, as C does."""

from __future__ import annotations

import operator
from typing import Any

import torch
from executorch.exir.dialects._ops import ops as exir_ops
from executorch.exir.pass_base import ExportPass, NodeMetadata, ProxyValue

_aten = exir_ops.edge.aten
# The remainder's operator -> those of the quotient, of its product with the divisor, and of the difference.
_FORMS = {
    _aten.remainder.Scalar: (_aten.div.Scalar_mode, _aten.mul.Scalar),
    _aten.remainder.Tensor: (_aten.div.Tensor_mode, _aten.mul.Tensor),
}


class FlooredRemainders(ExportPass):
    """Of integers, `a % b` becomes `a - floor(a / b) b`, and of sizes `((a % b) + b) % b`."""

    def call_operator(self, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any], meta: NodeMetadata) -> ProxyValue:
        """The same value by other operators, where it is a remainder of integers."""
        forms = _FORMS.get(op)
        if forms is None or any(_is_floating(argument) for argument in args[:2]):
            return super().call_operator(op, args, kwargs, meta)
        dividend, divisor = args[:2]
        quotient = super().call_operator(forms[0], (dividend, divisor), {"rounding_mode": "floor"}, meta)
        multiple = super().call_operator(forms[1], (quotient, divisor), {}, meta)
        return super().call_operator(_aten.sub.Tensor, (dividend, multiple), {}, meta)

    def call_sym(self, target: Any, args: tuple[Any, ...], meta: NodeMetadata) -> ProxyValue:
        """As `call_operator`, for sizes; divisors are positive there."""
        first = super().call_sym(target, args, meta)
        if target is not operator.mod:
            return first
        added = super().call_sym(operator.add, (first, args[1]), meta)
        return super().call_sym(target, (added, args[1]), meta)


def _is_floating(argument: Any) -> bool:
    value = argument.data if isinstance(argument, ProxyValue) else argument
    return value.dtype.is_floating_point if isinstance(value, torch.Tensor) else isinstance(value, float)
