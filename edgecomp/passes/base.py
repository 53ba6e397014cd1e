"""What a compression method is: a pass over a draft, and what it may ask about the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol, TypeVar

from torch import Tensor, nn

from edgecomp.calibration import input_energy
from edgecomp.config import PassConfig
from edgecomp.draft import Draft
from edgecomp.errors import CalibrationError, ConfigError

Item = TypeVar("Item")


class Progress(Protocol):
    """Wraps an iterable with a progress bar, or returns it as it is."""

    def __call__(self, items: Iterable[Item], *, total: int, label: str, unit: str) -> Iterator[Item]:
        """Yield the items, reporting each."""


@dataclass(frozen=True)
class PassContext:
    """What a pass may ask about the model; statistics are gathered when first asked for.

    Args:
        module: the original model.
        modules: its compressible layers by name.
        batches: the calibration inputs, each the module's arguments; empty when there is no calibration.
        progress: reports long work.

    """

    module: nn.Module
    modules: Mapping[str, nn.Module]
    batches: Sequence[Sequence[Tensor]]
    progress: Progress

    @cached_property
    def energy(self) -> Mapping[str, Tensor]:
        """Mean square of each input column of the layers that calibration reaches (`edgecomp.calibration.input_energy`).

        Raises:
            CalibrationError: there is no calibration.

        """
        if not self.batches:
            raise CalibrationError(
                "this recipe weights errors by activations and needs calibration inputs: pass --calibration FILE "
                '(calibration=... in Python), or set weighting="none" in the pass'
            )
        batches = self.progress(self.batches, total=len(self.batches), label="calibration", unit="sample")
        return input_energy(self.module, self.modules, batches)

    def input_energy(self, draft: Draft, factor: str) -> Tensor | None:
        """Diagonal of XᵀX/M at the input of a layer's own weight, summed over the layers that share it, float32 `[K]`.

        None for a factor that only embeddings use: every row of an embedding is an output by itself.

        Raises:
            CalibrationError: there was no calibration, or it never reached a layer.
            ConfigError: the factor is not at the input of a layer.

        """
        total: Tensor | None = None
        for use in draft.uses(factor):
            if draft.stage(use).op == "gather":
                continue
            if use.stage > 0:
                raise ConfigError(
                    f"activations are known at the input of a layer only, and {factor} is a later stage of {use.layer}: "
                    'set weighting="none" in the pass'
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

    def __init__(self, config: Any) -> None: ...

    def run(self, draft: Draft, context: PassContext) -> None:
        """Change the draft's plans and factors."""
