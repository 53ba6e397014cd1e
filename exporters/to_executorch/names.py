"""Names of operators, of PyTorch's and of ExecuTorch's edge dialect."""

from __future__ import annotations

from typing import Any

from edgecomp.ops import NAMESPACE


def operator_name(target: Any) -> str:
    """`lut_matmul` of the edge dialect's `edgecomp.lut_matmul.default`; empty for what is not ours."""
    namespace, _, name = qualified(target).partition("::")
    return name.partition(".")[0] if namespace == NAMESPACE else ""


def qualified(target: Any) -> str:
    """`aten::add.Tensor` of an operator of PyTorch or of the edge dialect."""
    name = getattr(target, "name", None)
    return str(name()) if callable(name) else str(target)
