"""The decomposition of scaled dot-product attention against PyTorch's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from edgecomp.exporters.to_onnx.attention import decompose_attention


class Attention(nn.Module):
    """One call of attention, with what else it takes."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options

    def forward(self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """Of [..., L, E], [..., S, E], [..., S, V]."""
        return scaled_dot_product_attention(query, key, value, attn_mask, **self.options)


def tensors(heads: int, key_heads: int, *, queries: int = 5, keys: int = 7) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    shapes = (2, heads, queries, 8), (2, key_heads, keys, 8), (2, key_heads, keys, 6)
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


def bool_mask() -> Tensor:
    mask = torch.rand(2, 1, 5, 7, generator=torch.Generator().manual_seed(1)) < 0.6
    mask[0, 0, 2] = False  # a query that sees no key
    return mask


CASES = {
    "no mask": (Attention(), tensors(4, 4)),
    "bool mask": (Attention(), (*tensors(4, 4), bool_mask())),
    "float mask": (Attention(), (*tensors(4, 4), torch.randn(2, 1, 5, 7))),
    "infinite mask": (Attention(), (*tensors(4, 4), torch.zeros(2, 1, 5, 7).masked_fill(~bool_mask(), -torch.inf))),
    "causal": (Attention(is_causal=True), tensors(4, 4)),
    "scale": (Attention(scale=0.3), tensors(4, 4)),
    "shared heads": (Attention(enable_gqa=True), tensors(4, 2)),
}


@pytest.mark.parametrize("case", list(CASES))
def test_it_computes_what_pytorch_does(case: str) -> None:
    module, inputs = CASES[case]
    program = decompose_attention(torch.export.export(module, inputs))
    targets = [node.target for node in program.graph.nodes]
    assert torch.ops.aten.scaled_dot_product_attention.default not in targets
    expected = module(*inputs)
    assert torch.isfinite(expected).all()
    assert torch.allclose(program.module()(*inputs), expected, atol=1e-6)


def test_a_program_without_attention_stays_as_it_is() -> None:
    program = torch.export.export(nn.Linear(4, 4), (torch.randn(2, 4),))
    assert decompose_attention(program) is program


def test_other_operators_stay() -> None:
    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            y = self.linear(x)
            return nn.functional.gelu(scaled_dot_product_attention(y, y, y))

    program = decompose_attention(torch.export.export(Layer(), (torch.randn(2, 3, 8),)))
    targets = {node.target for node in program.graph.nodes}
    assert {torch.ops.aten.linear.default, torch.ops.aten.gelu.default} <= targets
