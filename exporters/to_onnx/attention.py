"""Scaled dot-product attention as matrix products around a softmax.

PyTorch's translation of `aten.scaled_dot_product_attention` to ONNX is written for keys of any rank and turns them by eight nodes a
layer; decomposed here, they are turned by one, which ONNX Runtime fuses into the product.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.export import ExportedProgram

_ATTENTION = torch.ops.aten.scaled_dot_product_attention.default


def decompose_attention(program: ExportedProgram) -> ExportedProgram:
    """The program with its attention in matrix products; all other operators stay."""
    if all(node.target is not _ATTENTION for node in program.graph.nodes):
        return program
    decomposed: ExportedProgram = program.run_decompositions({_ATTENTION: _attention})
    return decomposed


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(query keyᵀ scale + mask) value, with zeros where the mask leaves a query no key, as PyTorch has it.

    Args:
        query: `[..., L, E]`.
        key: `[..., S, E]`; with `enable_gqa` fewer heads (third last axis) than the query, each for several of its heads.
        value: `[..., S, V]`, heads as of `key`.
        attn_mask: bool, true where a key takes part, or floats to add; broadcast to `[..., L, S]`.
        dropout_p: no part in an evaluated model.
        is_causal: query i sees keys 0 to i.
        scale: 1 / sqrt(E) if None.
        enable_gqa: see `key`.

    """
    if enable_gqa:
        groups = query.size(-3) // key.size(-3)
        key, value = key.repeat_interleave(groups, -3), value.repeat_interleave(groups, -3)
    scores = query @ key.transpose(-2, -1) * (query.size(-1) ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(query.size(-2), key.size(-2), dtype=torch.bool, device=query.device).tril()
    if attn_mask is None:
        return scores.softmax(-1) @ value
    if attn_mask.dtype == torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=scores.dtype).masked_fill(~attn_mask, -torch.inf)
    weights = (scores + attn_mask).softmax(-1)
    # A row of minus infinities is NaN. As in PyTorch's own translation, any other NaN under a mask is taken for one.
    return weights.masked_fill(weights.isnan(), 0.0) @ value
