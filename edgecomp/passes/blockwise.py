"""Block-wise learning: one block of the model after the other, to give the original's outputs whatever went wrong before.

For a block f with weights W, `x` what the original model gives it and `x'` what the compressed blocks before it give,

    minimise over what W' is made of:   mean over rows of |f(x'; W') - f(x; W)|² / |f(x; W)|²

so that each block makes good some of the error that it is given. A row is a position of a sequence, else a sample: the few
positions of huge activations that language models have would outweigh all others otherwise. Only one block's state of learning is
in memory.

Source: as `edgecomp.passes.jlcm`, a block in the place of a layer; the error carried forward as in GPTQ (arXiv:2210.17323).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgecomp.context import PassContext
from edgecomp.draft import Draft
from edgecomp.passes.blocks import Call, capture, capture_value, find_blocks, first_tensor
from edgecomp.passes.learned_lut import MapGradient
from edgecomp.passes.learning import Rates, Replaceable, hold_back, optimise, sample_order
from edgecomp.passes.students import factors_within, settled_tensors, settled_weights, student_of, take, take_dense
from edgecomp.resume import FinishedFactor, Kept


@dataclass(frozen=True)
class BlockSettings:
    """How a block is learned: steps, samples of a step, and the rest as in `JlcmConfig`."""

    steps: int
    batch: int
    rates: Rates
    map_gradient: MapGradient
    seed: int


def learn_blocks(draft: Draft, context: PassContext, names: Sequence[str], settings: BlockSettings) -> None:
    """Learn the factors `names` that blocks use, and the blocks' dense tensors; the draft takes each block as it is finished.

    Raises:
        ConfigError: the model has no blocks.

    """
    module = context.placed_module
    batches = [[tensor.to(context.device) for tensor in batch] for batch in context.batches]
    roots = find_blocks(module, batches[0])
    blocks = [module.get_submodule(root) for root in roots]
    shown = context.progress(batches, total=len(batches), label="jlcm, inputs of the blocks", unit="sample")
    given = [capture(partial(module, *batch), blocks) for batch in shown]
    original = [each.value for each in given]
    compressed, weights = Replaceable(module), settled_weights(draft, context, (), "")
    values = [capture_value(partial(compressed, weights, batch), blocks[0]) for batch in batches]
    del weights  # as large as the model
    left = list(names)
    for number in context.progress(range(len(blocks)), total=len(blocks), label="jlcm, block by block", unit="block"):
        calls = [each.calls[number] for each in given]
        original = _outputs(blocks[number], original, calls)
        own = factors_within(draft, context, left, roots[number])
        left = [name for name in left if name not in own]  # what an earlier block shares with this one is settled
        if not _restored(draft, context, own, roots[number]):
            _learn(draft, context, own, roots[number], settings, _Data(values, original, calls))
        replaceable = Replaceable(blocks[number])
        learned = settled_weights(draft, context, (), roots[number]) | settled_tensors(draft, context, roots[number])
        values = _outputs(lambda *inputs, **rest: replaceable(learned, inputs, rest), values, calls)  # noqa: B023  (used at once)


@dataclass(frozen=True)
class _Data:
    """For each sample what the block is given, what it should give, and what it is called with beside."""

    values: Sequence[Tensor]
    targets: Sequence[Tensor]
    calls: Sequence[Call]


def _learn(draft: Draft, context: PassContext, names: Sequence[str], root: str, settings: BlockSettings, data: _Data) -> None:
    student = student_of(draft, context, names, root, settings.map_gradient, dense=settings.rates.dense > 0)
    if not names and not student.dense:
        return
    block = Replaceable(context.placed_module.get_submodule(root))
    settled = settled_weights(draft, context, names, root)

    def error(weights: Mapping[str, Tensor], sample: int) -> Tensor:
        call = data.calls[sample]
        output = first_tensor(block(settled | dict(weights), (data.values[sample], *call.arguments), call.keywords))
        return _row_error(output, data.targets[sample])

    def backward(weights: Mapping[str, Tensor], batch: Sequence[int]) -> None:
        for sample in batch:
            (error(weights, sample) / len(batch)).backward()

    @torch.no_grad()
    def judge(weights: Mapping[str, Tensor]) -> float:
        return sum(float(error(weights, sample)) for sample in held)

    learned, held = hold_back(len(data.values))
    optimise(
        student,
        settings.rates,
        sample_order(learned, settings.batch, settings.steps, settings.seed),
        steps=settings.steps,
        backward=backward,
        judge=judge if held else None,
        work=context.work,
        state=f"state, {root}",
    )
    take(draft, context, student, root)
    for name in names:
        context.keep(f"{name}, block by block", FinishedFactor(draft.factors[name], draft.records[name]))
    dense = {name: tensor.detach().cpu().numpy() for name, tensor in student.dense.items()}
    context.work.keep(f"dense, {root}", Kept(dense, {}))  # the last: it says that the block is finished


def _restored(draft: Draft, context: PassContext, names: Sequence[str], root: str) -> bool:
    """Whether an interrupted run had finished the block; the draft takes what it had learned then."""
    dense = context.work.find(f"dense, {root}")
    finished = {name: context.finished(f"{name}, block by block") for name in names}
    if dense is None or None in finished.values():
        return False
    for name, kept in finished.items():
        if kept is not None:
            draft.factors[name], draft.records[name] = kept
    take_dense(draft, context, {name: torch.from_numpy(np.asarray(array)) for name, array in dense.arrays.items()}, root)
    return True


def _outputs(block: nn.Module | Callable[..., Any], values: Sequence[Tensor], calls: Sequence[Call]) -> list[Tensor]:
    with torch.no_grad():
        return [first_tensor(block(value, *call.arguments, **call.keywords)) for value, call in zip(values, calls, strict=True)]


def _row_error(output: Tensor, target: Tensor) -> Tensor:
    """Mean over rows of |output - target|² / |target|²; a row is a position of `[batch, sequence, features]`, else a sample."""
    first = 2 if target.ndim == 3 else 1
    squares = (output - target).square().flatten(first).sum(dim=-1)
    return (squares / target.square().flatten(first).sum(dim=-1).clamp_min(1e-30)).mean()
