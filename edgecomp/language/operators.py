"""The operators that the capture keeps whole, each for a target's own nodes: attention in standard operators, and ONNX Runtime's.

Importing this registers them in PyTorch, as `edgecomp_language::plain_attention` and `edgecomp_language::grouped_attention`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.library import Library

from edgecomp.references.attention import turned

NAMESPACE = "edgecomp_language"


def plain_attention(
    query: Tensor,
    key: Tensor | None,
    value: Tensor | None,
    past_key: Tensor,
    past_value: Tensor,
    bias: Tensor,
    cos: Tensor | None,
    sin: Tensor | None,
    *,
    heads: int,
    kv_heads: int,
    size: int,
    scale: float,
    cap: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Attention of every row alike, in operators that all runtimes have.

    Args:
        query: `[batch, sequence, heads size]`, or with keys and values behind it where those are None.
        key: `[batch, sequence, kv_heads size]`.
        value: as `key`.
        past_key: `[batch, kv_heads, past, size]`.
        past_value: as `past_key`.
        bias: added to the scores, `[batch, 1, heads / kv_heads sequence, past + sequence]`.
        cos: factors `[batch, sequence, 1, rotated]`; None where nothing is turned.
        sin: of the halves exchanged, as `cos`.
        heads: of queries.
        kv_heads: of keys and values.
        size: of a head.
        scale: of scores.
        cap: of scores; 0 for none.

    Returns:
        Output `[batch, sequence, heads size]`, and keys and values `[batch, kv_heads, past + sequence, size]`.

    """
    query, key, value = _headed(query, key, value, heads, kv_heads, size)
    if cos is not None and sin is not None:
        query, key = (_exchanged(part, cos, sin) for part in (query, key))
    keys = torch.cat([past_key, key.transpose(1, 2)], 2)
    values = torch.cat([past_value, value.transpose(1, 2)], 2)
    # Queries of a head of keys are rows of one product: nothing is repeated.
    rows = query.transpose(1, 2).reshape(len(query), kv_heads, -1, size) * scale
    scores = rows @ keys.transpose(2, 3)
    if cap:
        scores = cap * torch.tanh(scores / cap)
    mixed = (scores + bias).softmax(-1) @ values
    output = mixed.reshape(len(query), heads, -1, size).transpose(1, 2).flatten(2)
    return output.contiguous(), keys, values


def _headed(query: Tensor, key: Tensor | None, value: Tensor | None, heads: int, kv_heads: int, size: int) -> list[Tensor]:
    """Queries, keys and values `[batch, sequence, heads, size]`, where keys and values may stand behind the queries."""
    if key is None or value is None:
        query, key, value = query.split([heads * size, kv_heads * size, kv_heads * size], -1)
    return [part.unflatten(-1, (-1, size)) for part in (query, key, value)]


def _exchanged(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    rotated = cos.shape[-1]
    first, second = x[..., : rotated // 2], x[..., rotated // 2 : rotated]
    turned_part = x[..., :rotated] * cos + torch.cat([second, first], -1) * sin
    return torch.cat([turned_part, x[..., rotated:]], -1)


def grouped_attention(
    query: Tensor,
    key: Tensor | None,
    value: Tensor | None,
    past_key: Tensor,
    past_value: Tensor,
    lengths: Tensor,
    total: Tensor,
    cos: Tensor | None,
    sin: Tensor | None,
    *,
    heads: int,
    kv_heads: int,
    scale: float,
    window: int,
    cap: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """What `com.microsoft::GroupQueryAttention` computes, a row at a time.

    Inputs and outputs of `plain_attention`'s names are its, but of the past a row uses as many places as it has tokens before this
    run, and `cos` and `sin` are tables.

    Args:
        lengths: int32 `[batch]`: tokens of each row, the new ones included, less one.
        total: int32 scalar: the mask's size; in the first run it is `sequence`, and then rows may be shorter.
        cos: `[context, rotated / 2]`; None where nothing is turned.
        sin: as `cos`.
        window: tokens that a token sees, itself included; -1 for all before it.

    """
    size = past_key.shape[-1]
    query, key, value = _headed(query, key, value, heads, kv_heads, size)
    batch, length = query.shape[:2]
    room = past_key.shape[2] + length
    keys, values = (query.new_zeros(batch, kv_heads, room, size) for _ in range(2))
    output = query.new_zeros(batch, length, heads * size)
    first_run = int(total) == length
    for row in range(batch):
        before = 0 if first_run else int(lengths[row]) + 1 - length
        positions = torch.arange(before, before + length)[None]
        q, k, v = (part[row : row + 1] for part in (query, key, value))
        if cos is not None and sin is not None:
            q, k = turned(q, cos, sin, positions), turned(k, cos, sin, positions)
        for filled, past, new in ((keys, past_key, k), (values, past_value, v)):
            filled[row, :, :before] = past[row, :, :before]
            filled[row, :, before : before + length] = new[0].transpose(0, 1)
        seen = torch.arange(before + length)[None] <= positions[0][:, None]
        if window >= 0:
            seen &= positions[0][:, None] - torch.arange(before + length)[None] < window
        groups = heads // kv_heads
        all_keys = keys[row, :, : before + length].repeat_interleave(groups, 0)
        scores = q[0].transpose(0, 1) @ all_keys.transpose(1, 2) * scale
        if cap:
            scores = cap * torch.tanh(scores / cap)
        weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
        mixed = weights @ values[row, :, : before + length].repeat_interleave(groups, 0)
        output[row] = mixed.transpose(0, 1).flatten(1)
    return output, keys, values


def _fake(
    query: Tensor, key: Tensor | None, value: Tensor | None, past_key: Tensor, past_value: Tensor, *_: object, **sizes: object
) -> tuple[Tensor, Tensor, Tensor]:
    batch, length = query.shape[:2]
    kv_heads, past, size = past_key.shape[1:]
    present = [past_key.new_empty([batch, kv_heads, past + length, size]) for _ in range(2)]
    heads = sizes["heads"]
    assert isinstance(heads, int)
    return query.new_empty([batch, length, heads * size]), present[0], present[1]


_library = Library(NAMESPACE, "DEF")
_library.define(
    "grouped_attention(Tensor query, Tensor? key, Tensor? value, Tensor past_key, Tensor past_value, Tensor lengths, Tensor total, "
    "Tensor? cos, Tensor? sin, *, int heads, int kv_heads, float scale, int window, float cap) -> (Tensor, Tensor, Tensor)"
)
_library.define(
    "plain_attention(Tensor query, Tensor? key, Tensor? value, Tensor past_key, Tensor past_value, Tensor bias, Tensor? cos, "
    "Tensor? sin, *, int heads, int kv_heads, int size, float scale, float cap) -> (Tensor, Tensor, Tensor)"
)
for _operator in (grouped_attention, plain_attention):
    _library.impl(_operator.__name__, _operator, "CompositeExplicitAutograd")
    torch.library.register_fake(f"{NAMESPACE}::{_operator.__name__}", _fake, lib=_library)
