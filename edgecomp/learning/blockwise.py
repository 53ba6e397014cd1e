"""Block-wise learning: one block of the model after the other, to give the original's outputs whatever went wrong before.

For a block f with weights W, `x` what the original model gives it and `x'` what the compressed blocks before it give,

    minimise over what W' is made of:   mean over rows of |f(x'; W') - f(x; W)|² / |f(x; W)|²

so that each block makes good some of the error that it is given. A row is a position of a sequence, else a sample: the few
positions of huge activations that language models have would outweigh all others otherwise. Only one block's unpacked weights and
state of learning are in memory.

Source: as `edgecomp.passes.jlcm`, a block in the place of a layer; the error carried forward as in GPTQ (arXiv:2210.17323).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgecomp.context import PassContext
from edgecomp.draft import Draft
from edgecomp.errors import CalibrationError
from edgecomp.learning.objectives import counted, row_error
from edgecomp.learning.optimise import hold_back, optimise, sample_order
from edgecomp.learning.running import RunningDraft
from edgecomp.learning.student import (
    LearningSettings,
    Student,
    put_factor,
    reached,
    say_unreached,
    spread,
    start_of,
    take_tensor,
)
from edgecomp.resume import FinishedFactor, Kept
from edgecomp.walk import Unit, Walk


def learn_blocks(draft: Draft, context: PassContext, names: Sequence[str], settings: LearningSettings) -> None:
    """Learn the factors `names` that blocks use, and the blocks' dense tensors; the draft takes each block as it is finished.

    Raises:
        CalibrationError: what a block gives for a sample is not finite.

    """
    blocks = context.structure.blocks
    running = RunningDraft(draft, context, context.module)
    original, current = context.walk(), context.walk(running.module)
    units = list(zip(original.units(), current.units(), strict=True))
    for unit in units[0]:  # what runs before the blocks
        with running.holding(running.factors_within("", without=blocks)):
            _run(context.progress(unit.run(), total=len(context.samples), label="jlcm, inputs of the blocks", unit="sample"))
    left = list(names)
    for of_original, of_draft in context.progress(units[1:-1], total=len(blocks), label="jlcm, block by block", unit="block"):
        _run(of_original.run())
        within = running.factors_within(of_draft.name)
        own = [name for name in left if name in within]
        left = [name for name in left if name not in own]  # what an earlier block shares with this one is settled
        if not _restored(draft, context, running, own, of_draft.name):
            _Block(draft, context, running, original, current, of_draft).learn(own, settings)
        with running.holding(within):
            _run(of_draft.run())


class _Block:
    """A block under way: what it gives, from what the blocks before it give, against what the original's gives."""

    def __init__(
        self, draft: Draft, context: PassContext, running: RunningDraft, original: Walk, current: Walk, unit: Unit
    ) -> None:
        self._draft, self._context, self._running = draft, context, running
        self._targets, self._current, self._unit = original.values, current, unit

    def learn(self, names: Sequence[str], settings: LearningSettings) -> None:
        draft, context, running, root = self._draft, self._context, self._running, self._unit.name
        tensors = running.dense_within(root) if settings.rates["dense"] else {}
        if not names and not tensors:
            return
        learned, held = hold_back(len(self._targets))
        with self._current.opened(self._unit), torch.enable_grad(), ExitStack() as stack:
            within = running.factors_within(root)
            with running.holding([name for name in within if name not in names]):
                losses = (partial(self._error, learned[i]) for i in spread(len(learned)))
                found = reached(running, draft, context.device, names, losses)
            say_unreached(names, found, context, f"what {self._unit.title} gives")
            if not found and not tensors:
                return
            student = Student(running, draft, context, found, tensors, settings)
            stack.enter_context(running.holding([name for name in within if name not in found]))
            stack.enter_context(student.learning())
            optimise(
                student,
                settings.rates,
                sample_order(learned, settings.batch, settings.steps, settings.seed),
                steps=settings.steps,
                backward=self._backward,
                judge=(lambda: sum(float(self._error(sample)) for sample in held)) if held else None,
                work=context.work,
                state=f"state, {root}",
            )
            student.take()
        for name in found:
            context.keep(f"{name}, block by block", _finished(draft, name))
        dense = {name: draft.tensors[name].numpy() for name in tensors}
        context.work.keep(f"dense, {root}", Kept(dense, {"found": found}))  # the last: it says that the block is finished

    def _backward(self, batch: Sequence[int]) -> None:
        for sample in batch:
            error = self._error(sample) / len(batch)
            if error.requires_grad:
                error.backward()

    def _error(self, sample: int) -> Tensor:
        target = self._targets[sample]
        error = row_error(self._unit.output(sample), target, counted(self._context.samples[sample], target))
        if not torch.isfinite(error):
            raise CalibrationError(
                f"what a block gives must be finite, but {self._unit.title} gives NaN or infinity for "
                f"{self._context.samples[sample].name}"
            )
        return error


def _restored(draft: Draft, context: PassContext, running: RunningDraft, names: Sequence[str], root: str) -> bool:
    """Whether an interrupted run had finished the block; the draft takes what it had learned then."""
    dense = context.work.find(f"dense, {root}")
    if dense is None:
        return False
    finished = {name: context.finished(f"{name}, block by block") for name in names if name in dense.facts["found"]}
    if None in finished.values():
        return False
    for name, kept in finished.items():
        if kept is not None:
            put_factor(draft, name, kept.factor)
            draft.records[name] = kept.record
    for name, array in dense.arrays.items():
        value = torch.from_numpy(np.asarray(array))
        running.parameter(name).data = value.to(context.device)
        take_tensor(draft, running, name, value)
    return True


def _finished(draft: Draft, name: str) -> FinishedFactor:
    return FinishedFactor(start_of(draft, name), draft.records[name])


def _run(outputs: Iterable[Any]) -> None:
    for _ in outputs:
        pass
