"""`nn.MultiheadAttention` as four linear layers and the attention between them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from edgecomp.modules import stand_in
from edgecomp.unfolding.plain import linear, shared


class Attention(nn.Module):
    """The linear layers `q_proj`, `k_proj`, `v_proj` and `out_proj`, as PyTorch's layer has them in `in_proj_weight`.

    Three instead of one, since queries, keys and values may be of three tensors.
    """

    num_heads: int
    batch_first: bool

    def __init__(self, layer: nn.MultiheadAttention) -> None:
        super().__init__()
        stand_in(self, layer)
        # What PyTorch's own transformer layers ask for before they take another path than through this module.
        self.in_proj_bias = None
        self._qkv_same_embed_dim = False
        size = layer.embed_dim
        for number, name in enumerate(("q_proj", "k_proj", "v_proj")):
            part = slice(number * size, (number + 1) * size)
            if layer._qkv_same_embed_dim:
                weight = shared(layer.in_proj_weight[part], layer.in_proj_weight)
            else:
                weight = layer.get_parameter(f"{name}_weight")
            bias = None if layer.in_proj_bias is None else shared(layer.in_proj_bias[part], layer.in_proj_bias)
            self.add_module(name, linear(weight, bias))
        self.out_proj = linear(layer.out_proj.weight, layer.out_proj.bias)  # type: ignore[arg-type]

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """What PyTorch's layer gives; `is_causal` says what `attn_mask` says too, which is what counts."""
        single = query.ndim == 2
        inputs = [part.unsqueeze(0) if single else part for part in (query, key, value)]
        if not single and not self.batch_first:
            inputs = [part.transpose(0, 1) for part in inputs]
        projected = (self.get_submodule(f"{name}_proj")(part) for name, part in zip("qkv", inputs, strict=True))
        q, k, v = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in projected)  # [B, heads, L, head_dim]
        mask = _joined(attn_mask, key_padding_mask, q, self.num_heads)
        weights = None
        if need_weights:
            scores = (q / math.sqrt(q.shape[-1])) @ k.transpose(-1, -2)
            weights = torch.softmax(scores if mask is None else scores + mask, dim=-1)
            seen = weights @ v
            weights = weights.mean(dim=1) if average_attn_weights else weights
            weights = weights.squeeze(0) if single else weights
        else:
            seen = scaled_dot_product_attention(q, k, v, mask)
        y = self.out_proj(seen.transpose(1, 2).flatten(2))
        return y.squeeze(0) if single else y if self.batch_first else y.transpose(0, 1), weights


def _joined(mask: Tensor | None, padding: Tensor | None, q: Tensor, heads: int) -> Tensor | None:
    """Both masks as what is added to the scores `[B, heads, L, S]`; true in a mask of bools leaves out."""
    if mask is not None:
        mask = _added(mask, q)
        mask = mask.unflatten(0, (-1, heads)) if mask.ndim == 3 else mask[None, None]
    if padding is not None:
        padding = _added(padding, q)
        padding = padding[None, None, None] if padding.ndim == 1 else padding[:, None, None]
        mask = padding if mask is None else mask + padding
    return mask


def _added(mask: Tensor, q: Tensor) -> Tensor:
    return torch.zeros_like(mask, dtype=q.dtype).masked_fill(mask, -math.inf) if mask.dtype == torch.bool else mask.to(q.dtype)
