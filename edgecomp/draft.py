"""The model while passes work on it: its layers, and the plans and factors that take shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from edgecomp.tensor import ConvParams, Factor, LayerPlan, Stage, StageOp


@dataclass(frozen=True)
class Layer:
    """A layer of the original model that can be compressed.

    Args:
        name: module name.
        op: how it uses its weight.
        factor: name of its weight; layers with a tied weight name the same one.
        parameters: parameters of the weight, without the padding of a convolution's channels.
        conv: geometry of a convolution.
        bias: name of its bias among the model's tensors, or None.

    """

    name: str
    op: StageOp
    factor: str
    parameters: int
    conv: ConvParams | None = None
    bias: str | None = None


class Use(NamedTuple):
    """Where a plan uses a factor: layer, position of the term, position of the stage."""

    layer: str
    term: int
    stage: int


@dataclass
class Draft:
    """Plans and factors while passes work on them.

    It starts with one term of one stage per layer, each over the layer's own weight in `matrices`. A pass replaces stages,
    adds terms, and moves factors from `matrices` (float32 `[N, K]`) to `factors` (packed). The matrices are the model's own
    weights: a pass puts another in their place and never changes one in place. `tensors` takes what a pass changes among the
    tensors that stay dense (biases, norms), by name.
    """

    layers: Mapping[str, Layer]
    plans: dict[str, LayerPlan]
    matrices: dict[str, Tensor]
    factors: dict[str, Factor] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    records: dict[str, dict[str, float]] = field(default_factory=dict)  # per factor, what the pass measured

    def uses(self, factor: str) -> list[Use]:
        """Every place where a plan uses the factor."""
        return [
            Use(name, t, s)
            for name, plan in self.plans.items()
            for t, term in enumerate(plan.terms)
            for s, stage in enumerate(term)
            if stage.factor == factor
        ]

    def stage(self, use: Use) -> Stage:
        """The stage at a place."""
        return self.plans[use.layer].terms[use.term][use.stage]
