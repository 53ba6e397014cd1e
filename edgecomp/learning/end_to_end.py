"""End-to-end learning: all factors of a draft together, by an objective of the whole model's outputs."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from edgecomp.context import Batch, PassContext
from edgecomp.draft import Draft
from edgecomp.errors import CalibrationError, ConfigError
from edgecomp.learning.objectives import Objective
from edgecomp.learning.optimise import hold_back, optimise, sample_order
from edgecomp.learning.replayed import Replayed
from edgecomp.learning.running import RunningDraft
from edgecomp.learning.student import LearningSettings, Student, reached, say_unreached, spread


def learn_end_to_end(
    draft: Draft, context: PassContext, names: Sequence[str], objective: Objective, settings: LearningSettings
) -> None:
    """Learn factors, and the dense tensors of the model; the draft takes them.

    Args:
        draft: the draft.
        context: what the pass may ask.
        names: the factors that can be learned.
        objective: what is minimised.
        settings: how.

    Raises:
        ConfigError: the objective depends on no factor, or its loss is no scalar.
        CalibrationError: a sample's loss is not finite.

    """
    running = RunningDraft(draft, context, objective.context.placed_module)
    batches = objective.batches
    samples = _Samples(running, objective, batches, context.device, settings.batch)
    learned, held = hold_back(len(batches))
    within = running.factors_within("")
    with running.holding([name for name in within if name not in names]):
        losses = (partial(samples.loss, [learned[i]]) for i in spread(len(learned)))
        found = reached(running, draft, context.device, names, losses)
        if not found:
            raise ConfigError(
                "jlcm needs an objective whose loss depends on a factor that can be learned, by operations that have gradients; "
                f"this one depends on none of {', '.join(list(names)[:5])}"
            )
        say_unreached(names, found, context, "the objective")
    tensors = running.dense_within("") if settings.rates["dense"] else {}
    student = Student(running, draft, context, found, tensors, settings)
    settled = [name for name in within if name not in found]
    with running.holding(settled), student.learning():
        optimise(
            student,
            settings.rates,
            context.progress(
                sample_order(learned, settings.batch, settings.steps, settings.seed),
                total=settings.steps,
                label="jlcm, end to end",
                unit="step",
            ),
            steps=settings.steps,
            backward=Replayed(student, running, objective, context.progress.say).wrapped(samples.joined, samples.backward)
            if context.device.type == "cuda"
            else samples.backward,
            judge=(lambda: samples.judge(held)) if held else None,
            work=context.work,
            state="state" if batches is context.samples else f"state, {_digest(batches)}",
        )
        student.take()


@dataclass(frozen=True)
class _Samples:
    """Losses of samples, several of equal shapes at once on an accelerator."""

    running: RunningDraft
    objective: Objective
    batches: Sequence[Batch]
    device: torch.device
    batch: int

    def backward(self, numbers: Sequence[int]) -> None:
        """Gradients of the mean over the rows of some samples."""
        for part, share in self._parts(numbers):
            loss = self._loss(part) * share
            if loss.requires_grad:
                loss.backward()

    def joined(self, numbers: Sequence[int]) -> Batch | None:
        """Some samples as one batch on the device, if their shapes allow it."""
        parts = list(self._parts(numbers))
        return _joined(parts[0][0], self.device) if len(parts) == 1 else None

    def loss(self, numbers: Sequence[int]) -> Tensor:
        """The mean over the rows of some samples."""
        return torch.stack([self._loss(part) * share for part, share in self._parts(numbers)]).sum()

    def judge(self, numbers: Sequence[int]) -> float:
        """What the objective says of samples that are held back."""
        total = 0.0
        for part, share in self._parts(numbers):
            with self._autocast():
                judged = self.objective.judge(self.running.module, _joined(part, self.device))
            if not math.isfinite(judged):
                raise CalibrationError(f"an objective must judge every sample by a finite number, got {judged} for {_names(part)}")
            total += judged * share
        return total

    def _parts(self, numbers: Sequence[int]) -> Iterator[tuple[list[Batch], float]]:
        """Samples to be joined, and what their mean counts for: rows count alike."""
        stack = self.batch if self.device.type == "cuda" else 1
        samples = [self.batches[number] for number in numbers]
        total = sum(_rows(batch) for batch in samples)
        for part in _stacked(samples, stack):
            yield part, sum(_rows(batch) for batch in part) / total

    def _loss(self, part: Sequence[Batch]) -> Tensor:
        with self._autocast():
            loss = self.objective.loss(self.running.module, _joined(part, self.device))
        if not isinstance(loss, Tensor) or loss.ndim:
            got = list(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise ConfigError(f"the loss of an objective must be a tensor of one number without axes, got {got}")
        if not torch.isfinite(loss):
            bad = part
            if len(part) > 1:
                with torch.no_grad():
                    bad = [
                        batch
                        for batch in part
                        if not torch.isfinite(self.objective.loss(self.running.module, _joined([batch], self.device)))
                    ]
            raise CalibrationError(
                f"the loss of every sample must be finite, but is {loss.item()} for {_names(bad or part)}: leave the sample out, "
                "or learn by smaller rates if it happens after some steps"
            )
        return loss

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")


def _stacked(samples: Sequence[Batch], limit: int) -> Iterator[list[Batch]]:
    """Samples of equal shapes together, at most `limit` at a time."""
    waiting: list[Batch] = []
    for sample in sorted(samples, key=_shapes) if limit > 1 else samples:
        if waiting and (len(waiting) == limit or _shapes(sample) != _shapes(waiting[0])):
            yield waiting
            waiting = []
        waiting.append(sample)
    if waiting:
        yield waiting


def _joined(samples: Sequence[Batch], device: torch.device) -> Batch:
    """Samples joined along axis 0, on the device."""
    first = samples[0]
    inputs = [
        torch.cat(parts).to(device) if len(parts) > 1 else parts[0].to(device, copy=True)  # an objective may change it
        for parts in zip(*(s.inputs for s in samples), strict=True)
    ]
    labels = None if first.labels is None else torch.cat([s.labels for s in samples if s.labels is not None]).to(device)
    return Batch(_names(samples), inputs, labels, first.mask, parts=tuple(samples))


def _shapes(sample: Batch) -> list[tuple[int, ...]]:
    labels = [] if sample.labels is None else [sample.labels]
    return [tuple(tensor.shape) for tensor in [*sample.inputs, *labels]]


def _rows(sample: Batch) -> int:
    return len(sample.inputs[0]) if sample.inputs[0].ndim else 1


def _names(samples: Sequence[Batch]) -> str:
    return ", ".join(sample.name for sample in samples)


def _digest(batches: Sequence[Batch]) -> str:
    """Of samples that an objective brings, which a continued run must find again."""
    digest = hashlib.sha256()
    for batch in batches:
        for tensor in [*batch.inputs, *([] if batch.labels is None else [batch.labels])]:
            digest.update(f"{tensor.dtype} {list(tensor.shape)} ".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
