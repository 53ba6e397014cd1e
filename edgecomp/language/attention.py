"""Attention with a key-value cache, in three forms: an operator that ONNX Runtime has, our operators, and standard ones.

All take new tokens `[batch, sequence]`, a mask `[batch, total]` of ones where a token counts, of the past and then the new ones,
and the past keys and values `[batch, kv_heads, past, head_size]`; they give those of past and new ones.

`GroupedStep` is for `com.microsoft::GroupQueryAttention`, and `KeptStep` for ours, whose cache may be of a smaller type;
`BufferedStep` is that for one row and a cache that the program keeps itself. In all of these a row's tokens lie without gaps: row b
has its first `sum(mask[b])` places filled. New tokens of a row must stand together, so that padding in front of a prompt is moved
behind it, and the result back; it counts in the first run alone. `PlainStep` keeps every token where it came, padding included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

import edgecomp.language.operators
import edgecomp.torch_ops  # noqa: F401  (both register operators)
from edgecomp.ops import CACHES, KV_APPEND, KV_ATTENTION
from edgecomp.references.attention import turned


@dataclass(frozen=True)
class Heads:
    """How a layer attends.

    Args:
        count: heads of queries.
        kv_count: heads of keys and values, each for `count / kv_count` heads of queries.
        size: of a head.
        scale: of the scores.
        window: tokens that a token sees, itself included; None for all before it.
        cap: scores s become `cap tanh(s / cap)`; 0 for none.

    """

    count: int
    kv_count: int
    size: int
    scale: float
    window: int | None = None
    cap: float = 0.0

    @property
    def widths(self) -> list[int]:
        """Of queries, keys and values."""
        return [self.count * self.size, self.kv_count * self.size, self.kv_count * self.size]


class Rotary(nn.Module):
    """Cosines and sines of rotary positions, float32 `[context, rotated / 2]`."""

    cos: Tensor
    sin: Tensor

    def __init__(self, frequencies: Tensor, scaling: float, context: int) -> None:
        super().__init__()
        angles = torch.arange(context, dtype=torch.float32)[:, None] * frequencies.float()[None]
        self.register_buffer("cos", angles.cos() * scaling)
        self.register_buffer("sin", angles.sin() * scaling)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """`x` as `turned` says."""
        return turned(x, self.cos, self.sin, positions)


class Step(Protocol):
    """One run of a decoder: what its layers share.

    Attributes:
        ids: the tokens in the order in which the layers take them.
        positions: of these, `[batch, sequence]`.

    """

    ids: Tensor
    positions: Tensor

    def attend(
        self, qkv: Sequence[Tensor], past: tuple[Tensor, Tensor], heads: Heads, rotary: Rotary | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Output `[batch, sequence, heads size]`, keys and values of past and new tokens.

        Args:
            qkv: queries, keys and values of the new tokens, `[batch, sequence, widths]`, side by side in one tensor or in three.
            past: keys and values.
            heads: of the layer.
            rotary: turns queries and keys.

        """

    def settle(self, hidden: Tensor, last: bool) -> Tensor:
        """What the layers gave, in the order of the tokens given; or that of each row's last token alone."""


def parts_of(qkv: Sequence[Tensor], heads: Heads) -> Sequence[Tensor]:
    """Queries, keys and values, where they are one tensor or three."""
    return qkv[0].split(heads.widths, -1) if len(qkv) == 1 else qkv


class _GaplessStep:
    """A run in which a row's tokens lie without gaps."""

    def __init__(self, input_ids: Tensor, attention_mask: Tensor) -> None:
        length = input_ids.shape[1]
        given = attention_mask[:, attention_mask.shape[1] - length :]
        self._given = given
        self._places = torch.arange(length)[None]
        self._padding = (given.cumsum(1) == 0).to(torch.int64).sum(1, keepdim=True)  # in front of each row
        self._length = length
        moved = self._places + self._padding
        self.ids = input_ids.gather(1, torch.where(moved < length, moved, moved - length))
        seen = attention_mask.sum(1)
        before = seen - given.sum(1)
        self.positions = before[:, None] + self._places
        self._before, self._seen = before.to(torch.int32), seen.to(torch.int32)
        self._total = torch.full((), attention_mask.shape[1], dtype=torch.int32)

    def settle(self, hidden: Tensor, last: bool) -> Tensor:
        """As `Step` says."""
        if last:
            places = self._given.sum(1, keepdim=True) - 1
        else:
            moved = self._places - self._padding
            places = torch.where(moved < 0, moved + self._length, moved)
        return hidden.gather(1, places[:, :, None].expand(-1, -1, hidden.shape[-1]))


class GroupedStep(_GaplessStep):
    """For `GroupQueryAttention`; a `Step`."""

    def attend(
        self, qkv: Sequence[Tensor], past: tuple[Tensor, Tensor], heads: Heads, rotary: Rotary | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `Step` says."""
        if rotary is not None and not _operator_turns(rotary, heads):
            query, key, value = parts_of(qkv, heads)
            query = rotary(query.unflatten(-1, (heads.count, heads.size)), self.positions).flatten(2)
            key = rotary(key.unflatten(-1, (heads.kv_count, heads.size)), self.positions).flatten(2)
            qkv, rotary = (query, key, value), None
        tables = (None, None) if rotary is None else (rotary.cos, rotary.sin)
        query, *rest = qkv
        key_value: Sequence[Tensor | None] = rest or (None, None)
        output: tuple[Tensor, Tensor, Tensor] = torch.ops.edgecomp_language.grouped_attention(
            query,
            *key_value,
            *past,
            self._seen - 1,
            self._total,
            *tables,
            heads=heads.count,
            kv_heads=heads.kv_count,
            scale=heads.scale,
            window=-1 if heads.window is None else heads.window,
            cap=heads.cap,
        )
        return output


class _KeptAttention:
    """Attention by `kv_append` and `kv_attention` of `edgecomp.ops`.

    Args:
        cache: the type of keys and values that are kept, of `edgecomp.ops.CACHES`.
        before: int32 `[batch]`: the place of each row's first token.
        total: int32 scalar: places that the cache must have.

    """

    def __init__(self, cache: str, before: Tensor, total: Tensor) -> None:
        self._append, self._attention = (
            getattr(torch.ops.edgecomp, operators[cache].name) for operators in (KV_APPEND, KV_ATTENTION)
        )
        self._before, self._total = before, total
        self._none = torch.zeros(1, 0)  # a table by which nothing is turned

    def __call__(
        self, qkv: Sequence[Tensor], past: tuple[Tensor, Tensor], heads: Heads, rotary: Rotary | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `Step.attend` says."""
        queries = heads.count * heads.size
        firsts = [queries, queries + heads.kv_count * heads.size] if len(qkv) == 1 else [0, 0]
        none = self._none
        cos, sin = (none, none) if rotary is None else (rotary.cos, rotary.sin)
        keys = self._append(past[0], qkv[-2 % len(qkv)], self._before, self._total, cos, sin, first=firsts[0])
        values = self._append(past[1], qkv[-1], self._before, self._total, none, none, first=firsts[1])
        output = self._attention(
            qkv[0],
            keys,
            values,
            self._before,
            cos,
            sin,
            heads=heads.count,
            head_size=heads.size,
            window=heads.window or 0,
            scale=heads.scale,
            cap=heads.cap,
        )
        return output, keys, values


class KeptStep(_GaplessStep):
    """For a cache of a type of `edgecomp.ops.CACHES`; a `Step`."""

    def __init__(self, input_ids: Tensor, attention_mask: Tensor, cache: str) -> None:
        super().__init__(input_ids, attention_mask)
        self._kept = _KeptAttention(cache, self._before, self._total)

    def attend(
        self, qkv: Sequence[Tensor], past: tuple[Tensor, Tensor], heads: Heads, rotary: Rotary | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `Step` says."""
        return self._kept(qkv, past, heads, rotary)


class BufferedStep:
    """One row behind so many tokens, whose cache has room for all that come; a `Step`.

    Args:
        tokens: int64 `[1, sequence]`.
        start: int64 `[1]`: tokens before.
        cache: of `edgecomp.ops.CACHES`.

    """

    def __init__(self, tokens: Tensor, start: Tensor, cache: str) -> None:
        self.ids = tokens
        self.positions = start[:, None] + torch.arange(tokens.shape[1])[None]
        self._kept = _KeptAttention(cache, start.to(torch.int32), torch.zeros((), dtype=torch.int32))

    def attend(
        self, qkv: Sequence[Tensor], past: tuple[Tensor, Tensor], heads: Heads, rotary: Rotary | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `Step` says."""
        return self._kept(qkv, past, heads, rotary)

    def settle(self, hidden: Tensor, last: bool) -> Tensor:
        """As `Step` says."""
        return hidden[:, -1:] if last else hidden


def row_of(cache: str, size: int) -> tuple[str, int]:
    """The dtype of a row of a cache, and how many values it has for a head of that size."""
    dtype, extra = CACHES[cache]
    return dtype, size + extra


def _operator_turns(rotary: Rotary, heads: Heads) -> bool:
    """Whether `GroupQueryAttention` can turn queries and keys itself."""
    return rotary.cos.shape[1] % 8 == 0 and heads.size % 16 == 0


class PlainStep:
    """In standard operators; a `Step`."""

    def __init__(self, input_ids: Tensor, attention_mask: Tensor) -> None:
        self.ids = input_ids
        length, total = input_ids.shape[1], attention_mask.shape[1]
        self._mask = attention_mask[:, None, :] != 0
        self._new, self._all = torch.arange(length)[:, None] + (total - length), torch.arange(total)[None]
        self._given = attention_mask[:, total - length :]
        self.positions = (attention_mask.cumsum(1) - 1).clamp(min=0)[:, total - length :]
        self._biases: dict[tuple[int | None, int], Tensor] = {}
        self._angles: dict[int, tuple[Tensor, Tensor]] = {}

    def _bias(self, window: int | None, groups: int) -> Tensor:
        """`[batch, 1, groups sequence, total]`: 0 where a token sees another, else so little that its weight is 0."""
        key = window, groups
        if key not in self._biases:
            seen = self._mask & (self._all <= self._new)
            if window is not None:
                seen = seen & (self._new - self._all < window)
            bias = torch.where(seen, 0.0, torch.finfo(torch.float32).min)[:, None]
            self._biases[key] = torch.cat([bias] * groups, 2) if groups > 1 else bias
        return self._biases[key]

    def _turns(self, rotary: Rotary | None) -> tuple[Tensor | None, Tensor | None]:
        """Factors `[batch, sequence, 1, rotated]` of a head's values and of their halves exchanged; the sum is the turned head."""
        if rotary is None:
            return None, None
        if id(rotary) not in self._angles:
            cos, sin = rotary.cos[self.positions][:, :, None], rotary.sin[self.positions][:, :, None]
            self._angles[id(rotary)] = torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)
        return self._angles[id(rotary)]

    def attend(
        self, qkv: Sequence[Tensor], past: tuple[Tensor, Tensor], heads: Heads, rotary: Rotary | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `Step` says."""
        query, *rest = qkv
        key_value: Sequence[Tensor | None] = rest or (None, None)
        output: tuple[Tensor, Tensor, Tensor] = torch.ops.edgecomp_language.plain_attention(
            query,
            *key_value,
            *past,
            self._bias(heads.window, heads.count // heads.kv_count),
            *self._turns(rotary),
            heads=heads.count,
            kv_heads=heads.kv_count,
            size=heads.size,
            scale=heads.scale,
            cap=heads.cap,
        )
        return output

    def settle(self, hidden: Tensor, last: bool) -> Tensor:
        """As `Step` says."""
        if not last:
            return hidden
        places = (self._given * torch.arange(1, self._given.shape[1] + 1)[None]).argmax(1, keepdim=True)
        return hidden.gather(1, places[:, :, None].expand(-1, -1, hidden.shape[-1]))
