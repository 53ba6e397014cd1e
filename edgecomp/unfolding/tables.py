"""`nn.EmbeddingBag` as a table and the sums of its rows."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgecomp.errors import ModelError
from edgecomp.modules import stand_in
from edgecomp.unfolding.plain import table


class Bag(nn.Module):
    """`nn.EmbeddingBag` as the table `table` and the sums or means of its rows, and their largest where bags are rows."""

    mode: str
    padding_idx: int | None
    include_last_offset: bool

    def __init__(self, layer: nn.EmbeddingBag) -> None:
        super().__init__()
        stand_in(self, layer)
        self.table = table(layer.get_parameter("weight"))

    @property
    def weight(self) -> Tensor:
        """As the layer had it."""
        return self.table.weight

    def forward(self, indices: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:
        """What PyTorch's layer gives, float32 `[bags, width]`.

        Raises:
            ModelError: the largest of bags given by offsets.

        """
        rows: Tensor = self.table(indices)
        counted = torch.ones_like(rows[..., 0])
        if self.padding_idx is not None:
            counted = torch.ne(indices, self.padding_idx).to(rows.dtype)
        if self.mode == "max":
            if indices.ndim == 1:
                raise ModelError(
                    "an nn.EmbeddingBag of mode max takes bags as rows [bags, size] here, got offsets: pad the bags (padding_idx)"
                )
            reached = torch.where(counted[..., None] > 0, rows, torch.finfo(rows.dtype).min).amax(dim=1)
            return torch.where(counted.sum(dim=1, keepdim=True) > 0, reached, 0.0)
        weights = counted if per_sample_weights is None else counted * per_sample_weights
        if indices.ndim == 2:
            total, count = (weights[..., None] * rows).sum(dim=1), counted.sum(dim=1)
        else:
            assert offsets is not None  # PyTorch demands them of indices without bags
            within = _within(offsets, indices, self.include_last_offset).to(rows.dtype)  # [bags, indices]
            total, count = (within * weights) @ rows, within @ counted
        return total / count.clamp(min=1.0)[:, None] if self.mode == "mean" else total


def _within(offsets: Tensor, indices: Tensor, include_last: bool) -> Tensor:
    """Which index belongs to which bag."""
    places = torch.arange(indices.shape[0], device=indices.device)
    if include_last:
        begins, ends = offsets[:-1], offsets[1:]
    else:
        begins, ends = offsets, torch.cat([offsets[1:], offsets.new_zeros(1) + indices.shape[0]])
    return (places >= begins[:, None]) & (places < ends[:, None])
