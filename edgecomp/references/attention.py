"""Attention with a cache of keys and values, in PyTorch (`edgecomp/operators.md`)."""

from __future__ import annotations

import torch
from torch import Tensor

from edgecomp.errors import FormatError
from edgecomp.ops import CACHES, KV_APPEND, KV_ATTENTION
from edgecomp.references.common import Reference


def encode_int8(x: Tensor) -> Tensor:
    """Rows of float32 `[..., size]` as int8 `[..., size + 2]`: values, and behind them e and m of the scale `(1 + m / 128) 2^e`.

    The scale is the smallest of that form by which no value is above 127. A row that is not finite becomes infinite.
    """
    wanted = x.abs().amax(-1, keepdim=True) / 127
    fraction, exponent = torch.frexp(wanted)
    mantissa = ((fraction * 2 - 1) * 128).ceil()
    exponent = torch.where(mantissa == 128, exponent, exponent - 1)
    mantissa = torch.where(mantissa == 128, 0.0, mantissa)
    small = (exponent < -126) | (wanted == 0)
    exponent, mantissa = torch.where(small, -126, exponent), torch.where(small, 0.0, mantissa)
    values = (x * (1 / _scale(exponent, mantissa))).round().clamp(-127, 127)
    row = torch.cat([values, exponent.to(x.dtype), mantissa], -1)
    infinite = torch.full_like(row, 127)
    infinite[..., -1] = 0
    return torch.where(wanted.isfinite(), row, infinite).to(torch.int8)


def decode_int8(row: Tensor) -> Tensor:
    """Undoes `encode_int8`."""
    parts = row.float()
    return parts[..., :-2] * _scale(parts[..., -2:-1], parts[..., -1:])


def _scale(exponent: Tensor, mantissa: Tensor) -> Tensor:
    return torch.ldexp(1 + mantissa / 128, exponent)


def turned(x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor) -> Tensor:
    """`x [batch, sequence, heads, size]`, pairs `(i, i + rotated / 2)` turned by the angles of `positions [batch, sequence]`.

    Args:
        x: float32.
        cos: float32 `[context, rotated / 2]`.
        sin: as `cos`.
        positions: int64.

    """
    half = cos.shape[1]
    if half == 0:
        return x
    cosines, sines = cos[positions][:, :, None], sin[positions][:, :, None]
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    parts = [first * cosines - second * sines, second * cosines + first * sines]
    return torch.cat([*parts, rest] if rest.shape[-1] else parts, -1)


def _encoded(cache: str, x: Tensor) -> Tensor:
    return encode_int8(x) if cache == "int8" else x.to(getattr(torch, cache))


def _decoded(cache: str, row: Tensor) -> Tensor:
    return decode_int8(row) if cache == "int8" else row.float()


def _positions(before: Tensor, length: int) -> Tensor:
    """Of each row's tokens, int64 `[batch, length]`."""
    return before.long()[:, None] + torch.arange(length)[None]


def _append(cache: str) -> Reference:
    extra = CACHES[cache][1]

    def run(past: Tensor, x: Tensor, before: Tensor, total: Tensor, cos: Tensor, sin: Tensor, *, first: int) -> Tensor:
        batch, heads, places, row = past.shape
        length, size = x.shape[1], row - extra
        positions = _positions(before, length)
        room = max(places, int(total))
        if positions.numel() and not 0 <= int(positions.min()) <= int(positions.max()) < room:
            raise FormatError(f"before must be places from 0 to {room - length}, got {before.tolist()}")
        new = turned(x[..., first : first + heads * size].unflatten(-1, (heads, size)), cos, sin, positions)
        present = torch.cat([past, past.new_zeros(batch, heads, room - places, row)], 2)
        encoded = _encoded(cache, new).transpose(1, 2)
        for index in range(batch):
            present[index].index_copy_(1, positions[index], encoded[index])
        return present

    def fake(past: Tensor, x: Tensor, *_: Tensor, **__: int) -> Tensor:
        """A past whose size is known has room for all that comes; another one grows."""
        batch, heads, places, row = past.shape
        return past.new_empty([batch, heads, places if isinstance(places, int) else places + x.shape[1], row])

    return Reference(run, fake)


def _attention(cache: str) -> Reference:
    def run(
        x: Tensor,
        keys: Tensor,
        values: Tensor,
        before: Tensor,
        cos: Tensor,
        sin: Tensor,
        *,
        heads: int,
        head_size: int,
        window: int,
        scale: float,
        cap: float,
    ) -> Tensor:
        length = x.shape[1]
        positions = _positions(before, length)
        query = turned(x[..., : heads * head_size].unflatten(-1, (heads, head_size)), cos, sin, positions)
        places = int(positions.max()) + 1 if positions.numel() else 0
        grouped = [_decoded(cache, part[:, :, :places]).repeat_interleave(heads // keys.shape[1], 1) for part in (keys, values)]
        scores = query.transpose(1, 2) @ grouped[0].transpose(2, 3) * scale
        if cap > 0:
            scores = cap * torch.tanh(scores / cap)
        at = torch.arange(places)
        seen = at <= positions[:, :, None]
        if window > 0:
            seen &= at > positions[:, :, None] - window
        weights = scores.masked_fill(~seen[:, None], -torch.inf).softmax(-1)
        return (weights @ grouped[1]).transpose(1, 2).flatten(2).contiguous()

    def fake(x: Tensor, *_: Tensor, heads: int, head_size: int, **__: float) -> Tensor:
        return x.new_empty([*x.shape[:2], heads * head_size])

    return Reference(run, fake)


REFERENCES = {
    **{operator.name: _append(cache) for cache, operator in KV_APPEND.items()},
    **{operator.name: _attention(cache) for cache, operator in KV_ATTENTION.items()},
}
