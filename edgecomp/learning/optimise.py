"""The loop of learning: Adam over what a student learns, and the best state on samples held back."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from edgecomp.errors import CalibrationError
from edgecomp.learning.student import Student
from edgecomp.resume import Kept, Work

_WARM_UP = 0.05  # of the steps
_BETAS = (0.9, 0.95)
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
_KEEP_SECONDS = 300.0
_JUDGED = 8  # times in the course of learning, the start aside
_HELD_SHARE = 8
_HELD_MOST = 16


def optimise(
    student: Student,
    rates: Mapping[str, float],
    batches: Iterable[Sequence[int]],
    *,
    steps: int,
    backward: Callable[[Sequence[int]], None],
    judge: Callable[[], float] | None,
    work: Work,
    state: str = "state",
) -> None:
    """Learn by Adam with a short warm-up and a cosine decay to 0, and end with the best state on samples held back.

    Adam moves every parameter by about its rate in each step, however small the gradient: what a few steps on a few samples do may
    be worse than doing nothing. So the start counts as a state too.

    Args:
        student: what is learned; the best state is placed in the end.
        rates: the rates' height by kind of parameter; a kind that is not named has its learner's own, and dense tensors `dense`.
        batches: the samples of each step.
        steps: how many there are.
        backward: computes the loss of some samples for the weights that are placed, and its gradients.
        judge: the loss for the weights that are placed on samples that are in no batch; None where there are none: the last state
            stays then.
        work: keeps the state every few minutes; an interrupted run continues from there, with the same result.
        state: its name there, one for each stage of the work.

    Raises:
        CalibrationError: gradients are not finite.
        OutputError: the state cannot be kept.

    """
    groups = _parameter_groups(student, rates)
    # Fused, Adam reads and writes each number once instead of a dozen times.
    on_gpu = all(parameter.device.type == "cuda" for group in groups for parameter in group["params"])
    optimiser = torch.optim.Adam(groups, betas=_BETAS, fused=on_gpu)
    best = _Best(_parameters(optimiser))
    done = _restore(optimiser, best, work, state)
    kept_at = time.monotonic()

    def judged(judge: Callable[[], float]) -> float:
        student.place()
        with torch.no_grad():
            return judge()

    for step, batch in enumerate(batches):
        if step < done:
            continue
        if judge is not None and step % max(1, steps // _JUDGED) == 0:
            best.offer(judged(judge))
        for group in optimiser.param_groups:
            group["lr"] = group["height"] * _rate(step, steps)
        student.place()
        backward(batch)
        student.set_gradients()
        _require_finite(optimiser, step)
        optimiser.step()
        optimiser.zero_grad()
        with torch.no_grad():
            for _, learned in student.groups:
                learned.clamp()
        if work.outlives and time.monotonic() - kept_at > _KEEP_SECONDS:
            _keep(optimiser, best, work, state, step + 1)
            kept_at = time.monotonic()
    if judge is not None:
        best.offer(judged(judge))
        best.take()


def _require_finite(optimiser: torch.optim.Adam, step: int) -> None:
    """Refuse gradients that would spoil what is learned for good."""
    gradients = [parameter.grad for parameter in _parameters(optimiser) if parameter.grad is not None]
    # The smallest and the largest of a tensor with NaN are NaN. One number to wait for on an accelerator.
    if gradients and not torch.isfinite(torch.stack([bound for gradient in gradients for bound in gradient.aminmax()])).all():
        raise CalibrationError(
            f"gradients must be finite, but step {step + 1} has NaN or infinite ones from a finite loss: look for an operation "
            "without a finite slope there, such as a square root or a logarithm at 0 in a loss of your own, or set smaller rates"
        )


def _parameter_groups(student: Student, rates: Mapping[str, float]) -> list[dict[str, Any]]:
    """What is learned, by learning rate."""
    groups: dict[str, dict[str, Any]] = {}
    for _, learned in student.groups:
        for kind, parameter in learned.parameters.items():
            height = rates.get(kind, learned.rates[kind])
            groups.setdefault(kind, {"params": [], "height": height})["params"].append(parameter)
    if student.tensors:
        groups["dense"] = {"params": list(student.tensors.values()), "height": rates["dense"]}
    return list(groups.values())


class _Best:
    """The state of the parameters with the least loss so far."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self._parameters = parameters
        self.loss = math.inf
        self.values: list[Tensor] = []

    def offer(self, loss: float) -> None:
        """Remember the parameters as they are now, if the loss is less than ever."""
        if loss < self.loss:
            self.loss, self.values = loss, [parameter.detach().clone() for parameter in self._parameters]

    @torch.no_grad()
    def take(self) -> None:
        """Put the best state in place; nothing happens where no loss was a number."""
        for parameter, value in zip(self._parameters, self.values, strict=False):
            parameter.copy_(value)


def _keep(optimiser: torch.optim.Adam, best: _Best, work: Work, state_name: str, done: int) -> None:
    arrays = {f"best.{index}": value.cpu().numpy() for index, value in enumerate(best.values)}
    for index, parameter in enumerate(_parameters(optimiser)):
        state = optimiser.state[parameter]
        for name, tensor in {"value": parameter, **{key: state[key] for key in _MOMENTS if key in state}}.items():
            arrays[f"{index}.{name}"] = tensor.detach().cpu().numpy()
    work.keep(state_name, Kept(arrays, {"done": done, "least": best.loss}))


def _restore(optimiser: torch.optim.Adam, best: _Best, work: Work, state_name: str) -> int:
    """Put a kept state in place; the steps that it had done, 0 where there is none."""
    kept = work.find(state_name)
    if kept is None:
        return 0
    with torch.no_grad():
        for index, parameter in enumerate(_parameters(optimiser)):
            parameter.copy_(torch.from_numpy(kept.arrays[f"{index}.value"]))
            moments = {key: kept.arrays.get(f"{index}.{key}") for key in _MOMENTS}
            for key, moment in moments.items():
                if moment is not None:  # what never had a gradient has no moments
                    optimiser.state[parameter][key] = torch.from_numpy(moment).to(parameter.device)
    if "best.0" in kept.arrays:
        best.loss = kept.facts["least"]
        best.values = [torch.from_numpy(kept.arrays[f"best.{i}"]).to(p.device) for i, p in enumerate(_parameters(optimiser))]
    # Adam counts steps on the processor, unless it is fused.
    for state in optimiser.state.values():
        if not optimiser.defaults["fused"]:
            state["step"] = state["step"].cpu()
    return int(kept.facts["done"])


def hold_back(samples: int) -> tuple[list[int], list[int]]:
    """The samples to learn from, and those to judge by: one in 8, 16 at most, spread evenly; none of fewer than 8."""
    count = min(_HELD_MOST, samples // _HELD_SHARE)
    held = [(2 * i + 1) * samples // (2 * count) for i in range(count)]
    return [i for i in range(samples) if i not in held], held


def sample_order(samples: Sequence[int], batch: int, steps: int, seed: int) -> Iterator[list[int]]:
    """The samples of each step: every epoch another order."""
    generator = torch.Generator().manual_seed(seed)
    waiting: list[int] = []
    for _ in range(steps):
        while len(waiting) < batch:
            waiting += [samples[i] for i in torch.randperm(len(samples), generator=generator).tolist()]
        yield waiting[:batch]
        del waiting[:batch]


def _parameters(optimiser: torch.optim.Adam) -> list[Tensor]:
    return [parameter for group in optimiser.param_groups for parameter in group["params"]]


def _rate(step: int, steps: int) -> float:
    warm_up = max(1, round(_WARM_UP * steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 + 0.5 * math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up))
