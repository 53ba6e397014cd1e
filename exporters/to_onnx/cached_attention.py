"""Attention with a cache (`edgecomp.language.operators`) as nodes: one of ONNX Runtime's, or standard ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import onnx_ir as ir
import torch
from onnx.defs import OpSchema
from onnxscript import opset21 as op
from onnxscript.values import Op, Opset

from edgecomp.language import operators as _operators  # noqa: F401  (registers them)

DOMAIN, DOMAIN_VERSION = "com.microsoft", 1

_INPUTS = (
    *("query", "key", "value", "past_key", "past_value"),
    *("seqlens_k", "total_sequence_length", "cos_cache", "sin_cache"),
)
_OUTPUTS = ("output", "present_key", "present_value")
_INTEGERS = ("num_heads", "kv_num_heads", "do_rotary", "local_window_size")
_FLOATS = ("scale", "softcap")
_STRINGS = ("k_quant_type",)


def translations() -> dict[Callable, Callable]:
    """For the exporter: each operator's nodes."""
    operators = torch.ops.edgecomp_language
    return {operators.grouped_attention.default: _grouped(), operators.plain_attention.default: _plain}


def _grouped() -> Callable[..., tuple[ir.Value, ...]]:
    node = Op(Opset(DOMAIN, DOMAIN_VERSION), "GroupQueryAttention", _schema())

    def translate(
        *inputs: ir.Value | None, heads: int, kv_heads: int, scale: float, window: int, cap: float
    ) -> tuple[ir.Value, ...]:
        # An attribute is written where it is not the default: older runtimes refuse those that they do not know.
        attributes: dict[str, Any] = {"num_heads": heads, "kv_num_heads": kv_heads, "scale": scale}
        if inputs[_INPUTS.index("cos_cache")] is not None:
            attributes["do_rotary"] = 1
        if window >= 0:
            # Up to 1.23 a window is one token wider. Releases before 1.25 do not know the second attribute, and refuse the model.
            attributes |= {"local_window_size": window, "k_quant_type": "NONE"}
        if cap:
            attributes["softcap"] = cap
        return cast(tuple[ir.Value, ...], node(*inputs, **attributes))

    return translate


def _schema() -> OpSchema:
    integers = ("seqlens_k", "total_sequence_length")
    return OpSchema(
        "GroupQueryAttention",
        DOMAIN,
        DOMAIN_VERSION,
        inputs=[
            OpSchema.FormalParameter(
                name,
                "tensor(int32)" if name in integers else "tensor(float)",
                param_option=OpSchema.FormalParameterOption.Single if name == "query" else OpSchema.FormalParameterOption.Optional,
            )
            for name in _INPUTS
        ],
        outputs=[OpSchema.FormalParameter(name, "tensor(float)") for name in _OUTPUTS],
        attributes=[
            *(OpSchema.Attribute(name, OpSchema.AttrType.INT, required=False) for name in _INTEGERS),
            *(OpSchema.Attribute(name, OpSchema.AttrType.FLOAT, required=False) for name in _FLOATS),
            *(OpSchema.Attribute(name, OpSchema.AttrType.STRING, required=False) for name in _STRINGS),
        ],
    )


def _plain(
    query: Any,
    key: Any,
    value: Any,
    past_key: Any,
    past_value: Any,
    bias: Any,
    cos: Any,
    sin: Any,
    *,
    heads: int,
    kv_heads: int,
    size: int,
    scale: float,
    cap: float,
) -> tuple[Any, Any, Any]:
    """`edgecomp.language.operators.plain_attention`; shapes need no nodes, since 0 in a Reshape is the size that was there."""
    if key is None:
        widths = [heads + kv_heads, kv_heads] if cos is not None else [heads, kv_heads, kv_heads]
        split = _cut(_headed(query, size), widths, 2)
        if cos is not None:  # queries and keys are turned together
            turned, value = split
            query, key = _cut(_turned(turned, cos, sin, size), [heads, kv_heads], 2)
        else:
            query, key, value = split
    else:
        query, key, value = (_headed(part, size) for part in (query, key, value))
        if cos is not None:
            query, key = (_turned(part, cos, sin, size) for part in (query, key))
    keys, values = (
        op.Concat(past, op.Transpose(new, perm=[0, 2, 1, 3]), axis=2) for past, new in ((past_key, key), (past_value, value))
    )
    rows = op.Reshape(op.Transpose(query, perm=[0, 2, 1, 3]), _ints([0, kv_heads, -1, size]))
    scores = op.Mul(op.MatMul(rows, op.Transpose(keys, perm=[0, 1, 3, 2])), _float(scale))
    if cap:
        scores = op.Mul(op.Tanh(op.Div(scores, _float(cap))), _float(cap))
    mixed = op.MatMul(op.Softmax(op.Add(scores, bias), axis=-1), values)
    joined = op.Transpose(op.Reshape(mixed, _ints([0, heads, -1, size])), perm=[0, 2, 1, 3])
    return op.Reshape(joined, _ints([0, 0, heads * size])), keys, values


def _headed(x: Any, size: int) -> Any:
    return op.Reshape(x, _ints([0, 0, -1, size]))


def _turned(x: Any, cos: Any, sin: Any, size: int) -> Any:
    """Heads `[batch, sequence, heads, size]` turned, of which the first values may be all."""
    rotated = cos.shape[-1]
    rest = []
    if rotated < size:
        x, *rest = _cut(x, [rotated, size - rotated], 3)
    first, second = _cut(x, [rotated // 2, rotated // 2], 3)
    turned = op.Add(op.Mul(x, cos), op.Mul(op.Concat(second, first, axis=-1), sin))
    return op.Concat(turned, *rest, axis=-1) if rest else turned


def _cut(x: Any, widths: list[int], axis: int) -> list[Any]:
    """Parts along an axis; the exporter makes no Split into unequal ones."""
    ends = [sum(widths[: index + 1]) for index in range(len(widths))]
    return [op.Slice(x, _ints([end - width]), _ints([end]), _ints([axis])) for end, width in zip(ends, widths, strict=True)]


def _ints(values: list[int]) -> Any:
    return op.Constant(value_ints=values)


def _float(value: float) -> Any:
    return op.Constant(value_float=value)
