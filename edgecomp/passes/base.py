"""What a compression method is: a pass over a draft, and what it may ask about the model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from torch import Tensor, nn

from edgecomp.calibration import input_energy, input_hessian
from edgecomp.config import PassConfig
from edgecomp.draft import Draft
from edgecomp.errors import CalibrationError, ConfigError
from edgecomp.layers import matrix_of
from edgecomp.resume import FinishedFactor, Kept, Work

Item = TypeVar("Item")
Statistic = Callable[[nn.Module, Mapping[str, nn.Module], Iterable[Sequence[Tensor]]], dict[str, Tensor]]
_HESSIAN_BYTES = 1 << 30


class Progress(Protocol):
    """Wraps an iterable with a progress bar, or returns it as it is."""

    def __call__(
        self, items: Iterable[Item], *, total: int, label: str, unit: str, size: Callable[[Item], int] | None = None
    ) -> Iterator[Item]:
        """Yield the items, reporting each; `total` adds up their sizes where there are any."""


@dataclass(frozen=True)
class PassContext:
    """What a pass may ask about the model, and where it keeps what it has finished; statistics are gathered when first asked for.

    Args:
        module: the original model.
        modules: its compressible layers by name.
        batches: the calibration inputs, each the module's arguments; empty when there is no calibration.
        progress: reports long work.
        kind: what the module is, `encoder`, `causal-lm` or `generic`: its outputs are compared accordingly.
        device: where long computations run; the module itself stays where it is.
        work: what an interrupted run had finished, and where this one keeps the same.
        statistics: what was gathered so far, by name; the contexts of all passes share it.

    """

    module: nn.Module
    modules: Mapping[str, nn.Module]
    batches: Sequence[Sequence[Tensor]]
    progress: Progress
    kind: str = "generic"
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    work: Work = field(default_factory=Work)
    statistics: dict[str, Mapping[str, Tensor]] = field(default_factory=dict)

    @cached_property
    def placed_module(self) -> nn.Module:
        """The original model on the device: itself where it is there already, else a copy."""
        return self.module if self.device.type == "cpu" else copy.deepcopy(self.module).to(self.device)

    def of_pass(self, number: int) -> PassContext:
        """The same for one pass of the recipe, whose finished work has names of its own."""
        return replace(self, work=self.work.of(f"pass {number}"))

    def finished(self, factor: str) -> FinishedFactor | None:
        """The factor that an interrupted run of this pass had finished, or None."""
        return self.work.find_factor(factor)

    def keep(self, factor: str, finished: FinishedFactor) -> FinishedFactor:
        """Keep a finished factor for the case of an interruption; returns it, mapped from where it is kept."""
        return self.work.keep_factor(factor, finished)

    @property
    def energy(self) -> Mapping[str, Tensor]:
        """Mean square of each input column of the layers that calibration reaches (`edgecomp.calibration.input_energy`).

        Raises:
            CalibrationError: there is no calibration.

        """
        self._require_batches()
        if "energy" not in self.statistics:
            self.statistics["energy"] = self._gather_energy()
        return self.statistics["energy"]

    def _gather_energy(self) -> Mapping[str, Tensor]:
        work = self.work.of("all passes")
        kept = work.find("input energy")
        if kept is not None:
            return {name: torch.from_numpy(array) for name, array in kept.arrays.items()}
        energy = {name: tensor.cpu() for name, tensor in self._gather(input_energy, list(self.modules), "calibration").items()}
        work.keep("input energy", Kept({name: tensor.numpy() for name, tensor in energy.items()}, {}))
        return energy

    def _gather(self, statistic: Statistic, layers: Sequence[str], label: str) -> dict[str, Tensor]:
        batches = self.progress(self.batches, total=len(self.batches), label=label, unit="sample")
        names = {id(module): name for name, module in self.module.named_modules()}
        placed = {name: self.placed_module.get_submodule(names[id(self.modules[name])]) for name in layers}
        return statistic(self.placed_module, placed, ([part.to(self.device) for part in batch] for batch in batches))

    def input_energy(self, draft: Draft, factor: str) -> Tensor | None:
        """Diagonal of XᵀX/M at the input of a layer's own weight, summed over the layers that share it, float32 `[K]`.

        None for a factor that only embeddings use: every row of an embedding is an output by itself.

        Raises:
            CalibrationError: there was no calibration, or it never reached a layer.
            ConfigError: the factor is not at the input of a layer.

        """
        found = [self._of_layer(layer, self.energy) for layer in _layers_at_input(draft, factor)]
        return torch.stack(found).sum(dim=0) if found else None

    def hessian(self, draft: Draft, factor: str) -> Tensor | None:
        """XᵀX/M at the input of a layer's own weight, summed over the layers that share it, float32 `[K, K]`; None as above.

        Memory is bounded: they are gathered for as many layers at a time as take a gigabyte together, in the order of the draft.

        Raises:
            CalibrationError: there was no calibration, or it never reached a layer.
            ConfigError: the factor is not at the input of a layer.

        """
        self._require_batches()
        found = []
        for layer in _layers_at_input(draft, factor):
            if layer not in self.statistics.get("hessian", {}):
                # What was gathered before goes first: both together would not be bounded.
                self.statistics["hessian"] = {}
                self.statistics["hessian"] = self._gather(input_hessian, self._from(draft, layer), "calibration, Hessians")
            found.append(self._of_layer(layer, self.statistics["hessian"]))
        return torch.stack(found).sum(dim=0) if found else None

    def _from(self, draft: Draft, first: str) -> list[str]:
        """That layer and those behind it, as many as the Hessians of fit into the memory meant for them."""
        names = list(self.modules)
        total = 0
        chosen: list[str] = []
        for name in names[names.index(first) :]:
            columns = matrix_of(self.modules[name], self.modules[name].get_parameter("weight").detach()).shape[1]
            total += 4 * columns * columns
            if chosen and total > _HESSIAN_BYTES:
                break
            if draft.layers[name].op != "gather":
                chosen.append(name)
        return chosen

    def _of_layer(self, layer: str, gathered: Mapping[str, Tensor]) -> Tensor:
        if layer not in gathered:
            raise CalibrationError(
                f"every layer that is compressed must see calibration inputs, but {layer} was never called: "
                f'give inputs that reach it, or leave it out with skip = ["{layer}"]'
            )
        return gathered[layer]

    def require_calibration(self, draft: Draft, factors: Iterable[str]) -> None:
        """Check that statistics of the factors' inputs can be had: a long run must not end at its first linear layer.

        Raises:
            CalibrationError: there is no calibration, and a layer among them takes real inputs.
            ConfigError: a factor is not at the input of a layer.

        """
        layers = [layer for factor in factors for layer in _layers_at_input(draft, factor)]
        if layers:
            self._require_batches()

    def _require_batches(self) -> None:
        if not self.batches:
            raise CalibrationError(
                "this recipe weights errors by activations and needs calibration inputs: pass --calibration FILE "
                '(calibration=... in Python), or set weighting="none" in the pass'
            )


def _layers_at_input(draft: Draft, factor: str) -> list[str]:
    """The layers, embeddings aside, that multiply their input by the factor."""
    layers = []
    for use in draft.uses(factor):
        if draft.stage(use).op == "gather":
            continue
        if use.stage > 0:
            raise ConfigError(
                f"activations are known at the input of a layer only, and {factor} is a later stage of {use.layer}: "
                'set weighting="none" in the pass'
            )
        layers.append(use.layer)
    return layers


class Pass(Protocol):
    """A compression method: a class constructed with its settings."""

    Config: ClassVar[type[PassConfig]]

    def __init__(self, config: Any) -> None: ...

    def run(self, draft: Draft, context: PassContext) -> None:
        """Change the draft's plans and factors."""
