"""Compressed models in memory and on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from edgecomp.tensor import Factor, LayerPlan, TensorSpec


@dataclass
class CompressedModel:
    """A model whose compressed layers run from packed factors.

    Args:
        module: the packed model, in eval mode; `forward` takes the `inputs` in order and returns a tuple of tensors, one per output.
        inputs: its inputs.
        outputs: names of its outputs.
        plans: the plan of each compressed layer, by module name below `module`.
        factors: each packed factor once.
        recipe: the resolved recipe, as JSON values.
        provenance: where the model came from and what made it.
    """

    module: nn.Module
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]
    plans: Mapping[str, LayerPlan]
    factors: Mapping[str, Factor]
    recipe: Mapping[str, Any]
    provenance: Mapping[str, Any] = field(default_factory=dict)
