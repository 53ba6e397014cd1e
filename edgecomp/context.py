"""What a pass may ask about the model that it compresses: samples, statistics of inputs, and work that was finished before."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from edgecomp import formats
from edgecomp.columns import ConvColumns, stage_output
from edgecomp.draft import Draft, Use
from edgecomp.errors import CalibrationError
from edgecomp.memory import require_memory
from edgecomp.resume import FinishedFactor, Work
from edgecomp.statistics import InputStatistics, Site, StatisticKind
from edgecomp.walk import Structure, Unit, Walk, find_structure, unreached
from edgecomp.weights import trim_heap

Item = TypeVar("Item")
_STATISTIC_BYTES = 1 << 30  # of a unit's statistics that are gathered at once


class Progress(Protocol):
    """Wraps an iterable with a progress bar, or returns it as it is."""

    def __call__(
        self, items: Iterable[Item], *, total: int, label: str, unit: str, size: Callable[[Item], int] | None = None
    ) -> Iterator[Item]:
        """Yield the items, reporting each; `total` adds up their sizes where there are any."""

    def say(self, message: str | None) -> None:
        """Tell the person who waits, if there is anything to tell."""


@dataclass(frozen=True)
class Batch:
    """One calibration sample.

    Args:
        name: what messages call it, such as `sample 3`.
        inputs: the module's arguments.
        labels: what a loss compares outputs with, where the samples bring labels.
        mask: which of the inputs is `attention_mask [batch, sequence]`, 0 where a position does not count; None for no such input.
        parts: the samples that this one was joined of, as they were given; empty where it is one of these.

    """

    name: str
    inputs: Sequence[Tensor]
    labels: Tensor | None = None
    mask: int | None = None
    parts: Sequence[Batch] = ()


@dataclass(frozen=True)
class PassContext:
    """What a pass may ask about the model, and where it keeps what it has finished.

    Args:
        module: the original model, its weights as they are stored.
        modules: its compressible layers by name.
        samples: the calibration samples; empty when there is no calibration.
        progress: reports long work.
        kind: what the module is, `encoder`, `causal-lm` or `generic`: its outputs are compared accordingly.
        device: where long computations run; the module itself stays where it is.
        work: what an interrupted run had finished, and where this one keeps the same.

    """

    module: nn.Module
    modules: Mapping[str, nn.Module]
    samples: Sequence[Batch]
    progress: Progress
    kind: str = "generic"
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    work: Work = field(default_factory=Work)
    _found: dict[str, Structure] = field(default_factory=dict)  # shared by the contexts of all passes

    @property
    def batches(self) -> Sequence[Sequence[Tensor]]:
        """The inputs of the samples."""
        return [sample.inputs for sample in self.samples]

    @property
    def structure(self) -> Structure:
        """The model's blocks; the model is run on the first sample for them, when this is first asked for."""
        if "structure" not in self._found:
            self._found["structure"] = find_structure(self.module, self.samples[0].inputs, self.modules, self.progress.say)
        return self._found["structure"]

    @cached_property
    def placed_module(self) -> nn.Module:
        """The original model in float32 on the device, for what runs all of it: itself where it is so already, else a copy."""
        tensors = [*self.module.parameters(), *self.module.buffers()]
        if all(t.device.type == self.device.type and (t.dtype == torch.float32 or not t.is_floating_point()) for t in tensors):
            return self.module
        return copy.deepcopy(self.module).to(device=self.device, dtype=torch.float32)

    def walk(self, module: nn.Module | None = None) -> Walk:
        """A walk over the original model, or over another module of the same structure."""
        module = self.module if module is None else module
        layers = self.modules if module is self.module else {}
        return Walk(module, self.structure, layers, self.batches, self.device, [sample.name for sample in self.samples])

    def of_pass(self, number: int) -> PassContext:
        """The same for one pass of the recipe, whose finished work has names of its own."""
        return replace(self, work=self.work.of(f"pass {number}"))

    def finished(self, factor: str) -> FinishedFactor | None:
        """The factor that an interrupted run of this pass had finished, or None."""
        return self.work.find_factor(factor)

    def keep(self, factor: str, finished: FinishedFactor) -> FinishedFactor:
        """Keep a finished factor for the case of an interruption; returns it, its arrays mapped from where it was kept."""
        kept = self.work.keep_factor(factor, finished)
        trim_heap()
        return kept

    def require_calibration(self, why: str) -> None:
        """Check that there are samples.

        Raises:
            CalibrationError: there are none.

        """
        if not self.samples:
            raise CalibrationError(f"{why}: give --calibration FILE (calibration=... in Python)")

    def require_reached(self, layers: Iterable[str]) -> None:
        """Check that samples reach layers. The first one, which `structure` has run, reaches them all in most models.

        Raises:
            CalibrationError: naming the layers that are never called, or the model does not take a sample.

        """
        left = {name: self.modules[name] for name in layers if name not in self.structure.called}
        if not left:
            return
        others = self.progress(
            self.batches[1:], total=len(self.samples) - 1, label="looking for samples that reach every layer", unit="sample"
        )
        never = unreached(self.module, others, left)
        if never:
            raise _never_called(never)

    def inputs_of(self, draft: Draft, factors: Collection[str], kind: StatisticKind) -> Iterator[tuple[str, Tensor | None]]:
        """Walk over the model, and yield each factor with the statistic of what its stages are given.

        Where several layers share a factor their statistics are added up; the factor comes when the last of them is known. Of an
        embedding there is none, since every row is an output by itself: a factor that only embeddings use comes with None. What a
        later stage of a linear chain is given follows from the layer's own inputs: M H Mᵀ, with M the product of the stages before
        it as the draft has them when the factor comes. In a unit, factors come in the order of their stages: what a pass makes of
        the first counts for the next. Stages of convolution chains are run for it.

        Args:
            draft: the draft; it may change between two factors.
            factors: which factors.
            kind: `energy` or `gram` (`edgecomp.statistics`).

        Raises:
            CalibrationError: there are no samples, or they never reach a layer.

        """
        uses = {factor: [use for use in draft.uses(factor) if draft.stage(use).op != "gather"] for factor in factors}
        of_tables = {factor: [use for use in found if _follows_table(draft, use)] for factor, found in uses.items()}
        waiting = {factor: [use for use in found if use not in of_tables[factor]] for factor, found in uses.items()}
        sums: dict[str, Tensor] = {}
        behind: dict[str, list[tuple[Use, Tensor]]] = {}  # Grams of layers' inputs, of later stages

        def finished(factor: str) -> tuple[str, Tensor | None]:
            for use in of_tables[factor]:
                _add(sums, factor, _of_table(draft, use, kind))
            for use, gram in behind.pop(factor, []):
                _add(sums, factor, _multiplied(draft, use, gram, kind))
            return factor, sums.pop(factor, None)

        at_once = [factor for factor in factors if not waiting[factor]]
        for factor in sorted(at_once, key=lambda factor: max((use.stage for use in uses[factor]), default=0)):
            del waiting[factor]
            yield finished(factor)
        if not waiting:
            return
        self.require_calibration("this pass weights errors by activations and needs calibration inputs")
        self._require_memory(draft, [use for found in waiting.values() for use in found], kind)
        units = self.walk().units()
        while waiting:
            unit = units.pop(0)
            parts = _parts(draft, [use for found in waiting.values() for use in found if use.layer in unit.layers], kind)
            for number, part in enumerate(parts):
                gathered = self._gather(draft, unit, part, kind, keep=number == len(parts) - 1)
                for use in part:  # by stage: what a stage is given follows from those before it as they are then
                    factor = draft.stage(use).factor
                    if _is_multiplied(draft, use):
                        behind.setdefault(factor, []).append((use, gathered.pop(use)))
                    else:
                        _add(sums, factor, gathered.pop(use))
                    waiting[factor].remove(use)
                    if not waiting[factor]:
                        del waiting[factor]
                        yield finished(factor)

    def _require_memory(self, draft: Draft, uses: Iterable[Use], kind: StatisticKind) -> None:
        """Refuse a Gram that does not fit into memory beside that of one sample, which is added to it."""
        places = [(place, use.layer) for use in uses for gathered, place in [_gathered(draft, use, kind)] if gathered == "gram"]
        columns, layer = max(((draft.shape(draft.stage(place).factor)[1], layer) for place, layer in places), default=(0, ""))
        require_memory(
            8 * columns**2,
            f"XᵀX of the {columns:,} columns that {layer} is given",
            "weight the errors of this layer alike, or leave it out with skip",
            self.device,
        )

    def _gather(self, draft: Draft, unit: Unit, uses: Sequence[Use], kind: StatisticKind, *, keep: bool) -> dict[Use, Tensor]:
        """Run a unit, and gather statistics: of what stages are given, or the Gram of the layer's inputs that it follows from."""
        looked_at: dict[StatisticKind, dict[Use, Use]] = {}  # by kind and use, where to look
        for use in uses:
            gathered, place = _gathered(draft, use, kind)
            looked_at.setdefault(gathered, {})[use] = place
        statistics = {
            gathered: InputStatistics(gathered, [_site(draft, place) for place in dict.fromkeys(places.values())])
            for gathered, places in looked_at.items()
        }

        @contextmanager
        def watching() -> Iterator[None]:
            with ExitStack() as stack:
                for watched in statistics.values():
                    stack.enter_context(watched.watching(self.modules))
                yield

        label = f"calibration, {unit.title or 'outside the blocks'}"
        for _ in self.progress(unit.run(keep=keep, context=watching), total=len(self.samples), label=label, unit="sample"):
            pass
        found = {}
        for gathered, places in looked_at.items():
            results = statistics[gathered].results()
            for use, place in places.items():
                if place not in results:
                    raise _never_called([use.layer])
                found[use] = results[place]
        return found


def _never_called(layers: Sequence[str]) -> CalibrationError:
    was, it = ("was", "it") if len(layers) == 1 else ("were", "them")
    return CalibrationError(
        f"every layer that is compressed must see calibration inputs, but {', '.join(layers)} {was} never called: give inputs that "
        f"reach {it}, or leave {it} out with skip = {json.dumps(list(layers))}"
    )


def _parts(draft: Draft, uses: Iterable[Use], kind: StatisticKind) -> list[list[Use]]:
    """The uses in a unit whose statistics are wanted, in parts that fit into the memory meant for them; at least one part.

    They are in the order of their stages, whichever are left, so that a run that goes on after an interruption finds each stage's
    predecessors as an unbroken run does. Later stages of convolution chains run what is before them: that must be packed by then.
    """
    parts: list[list[Use]] = [[]]
    left = _STATISTIC_BYTES
    for use in sorted(uses, key=lambda use: (use.stage, use.stage > 0 and draft.stage(use).conv is not None)):
        gathered, place = _gathered(draft, use, kind)
        columns = draft.shape(draft.stage(place).factor)[1]
        needed = 4 * columns * (columns if gathered == "gram" else 1)
        after = use.stage > 0 and draft.stage(use).conv is not None and parts[-1] and parts[-1][0].stage < use.stage
        if parts[-1] and (needed > left or after):
            parts.append([])
            left = _STATISTIC_BYTES
        parts[-1].append(use)
        left -= needed
    return parts


def _is_multiplied(draft: Draft, use: Use) -> bool:
    """Whether what a stage is given follows from the Gram of its layer's inputs."""
    return use.stage > 0 and draft.stage(use).conv is None


def _gathered(draft: Draft, use: Use, kind: StatisticKind) -> tuple[StatisticKind, Use]:
    """What is gathered for a use, and where."""
    return ("gram", use._replace(stage=0)) if _is_multiplied(draft, use) else (kind, use)


def _multiplied(draft: Draft, use: Use, gram: Tensor, kind: StatisticKind) -> Tensor:
    """M H Mᵀ or its diagonal, of the stages before a use as the draft has them now."""
    before = _product_before(draft, use).to(gram.device)
    product = before @ gram @ before.T
    return product.diagonal().clone() if kind == "energy" else product


def _add(sums: dict[str, Tensor], factor: str, statistic: Tensor) -> None:
    sums[factor] = sums[factor] + statistic.to(sums[factor].device) if factor in sums else statistic


def _follows_table(draft: Draft, use: Use) -> bool:
    return draft.plans[use.layer].terms[use.term][0].op == "gather"


def _of_table(draft: Draft, use: Use, kind: StatisticKind) -> Tensor:
    """Statistic of what a stage behind an embedding is given, each row of the table counted once."""
    term = draft.plans[use.layer].terms[use.term]
    rows = reduce(lambda value, stage: value @ _matrix(draft, stage.factor).T, term[1 : use.stage], _matrix(draft, term[0].factor))
    return rows.T @ rows / len(rows) if kind == "gram" else rows.square().mean(dim=0)


def _product_before(draft: Draft, use: Use) -> Tensor:
    """The product of the matrices of a linear chain before a stage: what takes the layer's inputs to the stage's."""
    stages = draft.plans[use.layer].terms[use.term][: use.stage]
    first, *rest = (_matrix(draft, stage.factor) for stage in stages)
    return reduce(lambda product, matrix: matrix @ product, rest, first)


def _site(draft: Draft, use: Use) -> Site:
    """Where the input of a stage is looked at; stages of a convolution chain are run for those behind them."""
    term = draft.plans[use.layer].terms[use.term]
    stage = term[use.stage]
    columns = None if stage.conv is None else ConvColumns(stage.conv)
    if use.stage == 0:
        return Site(use, columns)
    before = [(stage, _matrix(draft, stage.factor)) for stage in term[: use.stage]]

    def run(x: Tensor) -> Tensor:
        return reduce(lambda value, part: stage_output(part[0].op, part[0].conv, part[1].to(value), value), before, x)

    return Site(use, columns, run)


def _matrix(draft: Draft, factor: str) -> Tensor:
    """A factor of the draft as a float32 matrix, packed or not."""
    if factor in draft.factors:
        return torch.from_numpy(formats.unpack(draft.factors[factor]))
    return draft.matrices[factor].float()
