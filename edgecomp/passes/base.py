"""What a compression method works on: a draft of plans and factors, and what it may ask about the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol

from torch import Tensor

from edgecomp.config import PassConfig
from edgecomp.errors import CalibrationError
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
    adds terms, and moves factors from `matrices` (float32 `[N, K]`) to `factors` (packed).
    """

    layers: Mapping[str, Layer]
    plans: dict[str, LayerPlan]
    matrices: dict[str, Tensor]
    factors: dict[str, Factor] = field(default_factory=dict)
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


class Progress(Protocol):
    """Wraps an iterable with a progress bar, or returns it as it is."""

    def __call__(self, items: Iterable[str], *, total: int, label: str) -> Iterator[str]:
        """Yield the items, reporting each."""


@dataclass(frozen=True)
class PassContext:
    """What a pass may ask about the model.

    Args:
        energy: for each layer with real-valued input the mean square of each input column over the calibration samples,
            float32 `[K]` in the order of the layer's matrix; None when there is no calibration.
        progress: reports long work.

    """

    energy: Mapping[str, Tensor] | None
    progress: Progress

    def input_energy(self, draft: Draft, factor: str) -> Tensor | None:
        """Diagonal of XᵀX/M at the input of a layer's own weight, summed over the layers that share it, float32 `[K]`.

        None for a factor that only embeddings use: every row of an embedding is an output by itself.

        Raises:
            CalibrationError: there was no calibration, or it never reached a layer.

        """
        total: Tensor | None = None
        for use in draft.uses(factor):
            if draft.stage(use).op == "gather":
                continue
            if self.energy is None:
                raise CalibrationError(
                    "this recipe weights errors by activations and needs calibration inputs: pass --calibration FILE "
                    '(calibration=... in Python), or set weighting="none" in the pass'
                )
            if use.layer not in self.energy:
                raise CalibrationError(
                    f"every layer that is compressed must see calibration inputs, but {use.layer} was never called: "
                    f'give inputs that reach it, or leave it out with skip = ["{use.layer}"]'
                )
            energy = self.energy[use.layer]
            total = energy if total is None else total + energy
        return total


class Pass(Protocol):
    """A compression method: a class constructed with its settings."""

    Config: ClassVar[type[PassConfig]]
    needs_calibration: bool

    def __init__(self, config: Any) -> None: ...

    def run(self, draft: Draft, context: PassContext) -> None:
        """Change the draft's plans and factors."""
