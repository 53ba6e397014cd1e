"""The decoder that every target captures: a language model's own layers, packed or not, around attention with a cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgecomp.language.attention import BufferedStep, Heads, Rotary, Step, parts_of, row_of
from edgecomp.modules import PackedLayer, with_epilogue


class RmsNorm(nn.Module):
    """`x / sqrt(mean(x²) + epsilon) weight` over the last axis, written as ONNX Runtime recognises it."""

    def __init__(self, weight: Tensor, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """The normalised `x`."""
        return x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + self.epsilon) * self.weight


class Product(nn.Module):
    """Layers of one input: one product, or as many as could not be made one.

    Args:
        layers: packed layers, or the model's own.

    """

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def parts(self, x: Tensor) -> list[Tensor]:
        """The output of each."""
        return [run_layer(layer, x) for layer in self.layers]

    def forward(self, x: Tensor, addend: Tensor | None = None, activation: str = "none", gated: bool = False) -> Tensor:
        """The output of the first with what follows it; where several are gated, of the first and the second."""
        if gated and len(self.layers) == 2:
            return run_layer(self.layers[0], x, None, activation) * run_layer(self.layers[1], x)
        return run_layer(self.layers[0], x, addend, activation, gated)


def run_layer(layer: nn.Module, x: Tensor, addend: Tensor | None = None, activation: str = "none", gated: bool = False) -> Tensor:
    """A layer with what follows its product, inside of it where it is packed."""
    if isinstance(layer, PackedLayer):
        output: Tensor = layer(x, addend, activation, gated)
        return output
    return with_epilogue(layer(x), addend, activation, gated)


@dataclass(frozen=True)
class Norms:
    """The norms of a layer, in order; those that are absent are None."""

    inputs: nn.Module | None = None
    query: nn.Module | None = None
    key: nn.Module | None = None
    after_attention: nn.Module | None = None
    mlp: nn.Module | None = None
    after_mlp: nn.Module | None = None


class Block(nn.Module):
    """A layer of a family (`edgecomp.language.families.Family` says what it computes)."""

    def __init__(
        self,
        heads: Heads,
        norms: Norms,
        qkv: Product,
        output: Product,
        up: Product,
        down: Product,
        rotary: Rotary | None,
        activation: str,
        gated: bool,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.input_norm, self.query_norm, self.key_norm = norms.inputs, norms.query, norms.key
        self.after_attention, self.mlp_norm, self.after_mlp = norms.after_attention, norms.mlp, norms.after_mlp
        self.qkv, self.output, self.up, self.down = qkv, output, up, down
        self.rotary = rotary
        self.activation, self.gated = activation, gated

    def forward(self, x: Tensor, step: Step, past: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The layer's output, keys and values for `x [batch, sequence, hidden]`."""
        qkv = self.qkv.parts(_normed(self.input_norm, x))
        if self.query_norm is not None and self.key_norm is not None:
            query, key, value = parts_of(qkv, self.heads)
            qkv = [self._head_norm(self.query_norm, query), self._head_norm(self.key_norm, key), value]
        mixed, keys, values = step.attend(qkv, past, self.heads, self.rotary)
        x = self._added(self.output, mixed, x, self.after_attention)
        inner = self.up(_normed(self.mlp_norm, x), None, self.activation, self.gated)
        return self._added(self.down, inner, x, self.after_mlp), keys, values

    def _head_norm(self, norm: nn.Module, x: Tensor) -> Tensor:
        return _normed(norm, x.unflatten(-1, (-1, self.heads.size))).flatten(2)

    @staticmethod
    def _added(product: Product, x: Tensor, residual: Tensor, norm: nn.Module | None) -> Tensor:
        """A residual connection: inside the product where no norm stands between."""
        if norm is None:
            return product(x, residual)  # type: ignore[no-any-return]
        return residual + _normed(norm, product(x))


def _normed(norm: nn.Module | None, x: Tensor) -> Tensor:
    return x if norm is None else norm(x)


class Decoder(nn.Module):
    """Logits, and keys and values of all layers, of new tokens behind a cache.

    Args:
        embedding: the table of tokens.
        positions: the table of learned positions, or None.
        blocks: the layers.
        final_norm: in front of the head.
        head: gives the logits.
        step: makes what the layers of a run share.
        last: logits of each row's last token alone.
        cap: logits z become `cap tanh(z / cap)`; 0 for none.

    """

    def __init__(
        self,
        embedding: nn.Module,
        positions: nn.Module | None,
        blocks: Sequence[Block],
        final_norm: nn.Module,
        head: nn.Module,
        step: Callable[[Tensor, Tensor], Step],
        *,
        last: bool = False,
        cap: float = 0.0,
    ) -> None:
        super().__init__()
        self.embedding, self.positions = embedding, positions
        self.blocks = nn.ModuleList(blocks)
        self.final_norm, self.head = final_norm, head
        self.step, self.last, self.cap = step, last, cap

    def forward(self, input_ids: Tensor, attention_mask: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        """Logits, then keys and values of each layer.

        Args:
            input_ids: int64 `[batch, sequence]`.
            attention_mask: int64 `[batch, past + sequence]`.
            *past: keys and values of each layer in turn, float32 `[batch, kv_heads, past, head_size]`.

        """
        return self.run(self.step(input_ids, attention_mask), past)

    def run(self, step: Step, past: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """A step; `forward` says what it gives."""
        x = self.embedding(step.ids)
        if self.positions is not None:
            x = x + self.positions(step.positions)
        present: list[Tensor] = []
        for index, block in enumerate(self.blocks):
            x, keys, values = block(x, step, (past[2 * index], past[2 * index + 1]))
            present += [keys, values]
        logits = run_layer(self.head, step.settle(self.final_norm(x), self.last))
        if self.cap:
            logits = self.cap * torch.tanh(logits / self.cap)
        return (logits, *present)


class BufferedDecoder(nn.Module):
    """A decoder of one row that keeps keys and values in buffers.

    Args:
        decoder: the decoder.
        cache: the type of keys and values, of `edgecomp.ops.CACHES`.
        context: tokens that the buffers have room for.

    """

    def __init__(self, decoder: Decoder, cache: str, context: int) -> None:
        super().__init__()
        self.decoder, self.cache = decoder, cache
        for index, block in enumerate(decoder.blocks):
            heads: Heads = block.heads  # type: ignore[assignment]
            dtype, row = row_of(cache, heads.size)
            for kind in ("keys", "values"):
                empty = torch.zeros(1, heads.kv_count, context, row, dtype=getattr(torch, dtype))
                self.register_buffer(f"{kind}_{index}", empty)

    def forward(self, tokens: Tensor, start: Tensor) -> Tensor:
        """Logits `[1, sequence, vocabulary]`, or of the last token alone.

        Args:
            tokens: int64 `[1, sequence]`.
            start: int64 `[1]`: how many tokens came before.

        """
        names = [f"{kind}_{index}" for index in range(len(self.decoder.blocks)) for kind in ("keys", "values")]
        buffers = [self.get_buffer(name) for name in names]
        logits, *present = self.decoder.run(BufferedStep(tokens, start, self.cache), buffers)
        for buffer, new in zip(buffers, present, strict=True):
            buffer.copy_(new)
        return logits
