"""Gradient learning of packed factors against the original model: what end-to-end and block-wise learning share."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from edgecomp.draft import Draft
from edgecomp.errors import ConfigError
from edgecomp.layers import matrix_of, weight_of
from edgecomp.passes.learned_lut import LEARNABLE_BITS, LearnedLut, MapGradient
from edgecomp.resume import Kept, Work
from edgecomp.tensor import Factor

_WARM_UP = 0.05  # of the steps
_GROUP_WEIGHTS = 1 << 25
_BETAS = (0.9, 0.95)
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
_KEEP_SECONDS = 300.0
_JUDGED = 8  # times in the course of learning, the start aside
_HELD_SHARE = 8
_HELD_MOST = 16

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Rates:
    """Learning rates of Adam at their height: in codewords, in int8 steps of an entry and of a scale, and of dense tensors."""

    positions: float
    books: float
    scales: float
    dense: float


def learnable(draft: Draft) -> list[str]:
    """The factors that can be learned: `lut` of 1 to 6 bits, each a layer's only one.

    Raises:
        ConfigError: there is none.

    """
    plans = draft.plans.values()
    alone = {plan.terms[0][0].factor for plan in plans if len(plan.terms) == 1 and len(plan.terms[0]) == 1}
    others = {stage.factor for plan in plans for term in plan.terms for stage in term if len(plan.terms) > 1 or len(term) > 1}
    names = [
        name
        for name, factor in draft.factors.items()
        if name in alone - others and factor.format == "lut" and factor.attributes["bits"] in LEARNABLE_BITS
    ]
    if not names:
        raise ConfigError(
            "jlcm learns factors that an earlier pass has packed as lut of 1 to 6 bits, one to a layer, and there is none: "
            "put lut-kmeans before it"
        )
    return names


class Replaceable:
    """A module that runs with other tensors in the place of its parameters; the parameters themselves gather no gradients.

    Args:
        module: the module; a parameter of several modules has one name here, the first.

    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._names: dict[str, list[str]] = {}
        self._parameters: dict[str, Tensor] = {}
        first: dict[int, str] = {}
        for prefix, part in module.named_modules():  # a module of several names once: torch would put its tensors back wrongly
            for leaf, parameter in part.named_parameters(recurse=False):
                name = f"{prefix}.{leaf}" if prefix else leaf
                self._names.setdefault(first.setdefault(id(parameter), name), []).append(name)
                self._parameters[first[id(parameter)]] = parameter.detach()

    def __call__(self, tensors: Mapping[str, Tensor], inputs: Sequence[Any], keywords: Mapping[str, Any] | None = None) -> Any:
        """What the module returns for the inputs, with `tensors` in the place of the parameters of those names."""
        chosen = self._parameters | dict(tensors)
        placed = {name: chosen[first] for first, names in self._names.items() for name in names}
        return functional_call(self._module, placed, tuple(inputs), dict(keywords or {}), tie_weights=False)


@dataclass(frozen=True)
class Place:
    """Where a factor's weight goes: the first name of the layer's weight in the module that is run, and the layer."""

    name: str
    layer: nn.Module

    @property
    def original(self) -> Tensor:
        """The layer's own weight, as a matrix."""
        return matrix_of(self.layer, self.layer.get_parameter("weight").detach())


class Student:
    """Factors and dense tensors of a model under way, and the weights that they stand for.

    Args:
        factors: what is learned, by name.
        places: where each factor's weight goes.
        dense: tensors that are learned too, by their name in the module that is run.
        device: where to learn.
        map_gradient: how codes learn.

    """

    def __init__(
        self,
        factors: Mapping[str, Factor],
        places: Mapping[str, Place],
        dense: Mapping[str, Tensor],
        device: torch.device,
        map_gradient: MapGradient,
    ) -> None:
        self.places = places
        self.dense = {name: tensor.detach().to(device, copy=True).requires_grad_() for name, tensor in dense.items()}
        self.groups: list[tuple[list[str], LearnedLut]] = []
        for names in _groups(factors):
            chosen, originals = [factors[name] for name in names], [places[name].original for name in names]
            self.groups.append((names, LearnedLut(chosen, originals, device, map_gradient)))

    @torch.no_grad()
    def weights(self) -> dict[str, Tensor]:
        """The tensors to put in place, leaves of autograd, by their name in the module that is run."""
        placed: dict[str, Tensor] = {}
        for names, learned in self.groups:
            for name, matrix in zip(names, learned.weights(), strict=True):
                place = self.places[name]
                placed[place.name] = weight_of(place.layer, matrix).detach().requires_grad_()
        return placed | self.dense

    @torch.no_grad()
    def set_gradients(self, weights: Mapping[str, Tensor]) -> None:
        """Hand the gradients of `weights()` on to what they are made of; a weight that no input reaches has none."""
        for names, learned in self.groups:
            gradients = []
            for name in names:
                weight = weights[self.places[name].name]
                gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad
                gradients.append(matrix_of(self.places[name].layer, gradient))
            learned.set_gradients(gradients)

    @torch.no_grad()
    def relative_errors(self) -> dict[str, float]:
        """||learned - original|| / ||original|| of the weights, by factor; 0 for weights that are all 0."""
        errors = {}
        for names, learned in self.groups:
            for name, weight in zip(names, learned.weights(), strict=True):
                original = self.places[name].original.to(weight)
                size = original.norm().item()
                errors[name] = (weight - original).norm().item() / size if size else 0.0
        return errors

    def to_factors(self) -> dict[str, Factor]:
        """The learned factors by name."""
        return {name: factor for names, learned in self.groups for name, factor in zip(names, learned.to_factors(), strict=True)}


def _groups(factors: Mapping[str, Factor]) -> list[list[str]]:
    """Names of factors that can be learned as one tensor, at most `_GROUP_WEIGHTS` together unless one alone is larger."""
    groups: dict[tuple[int, ...], list[list[str]]] = {}
    sizes: dict[str, int] = {name: factor.shape[0] * factor.shape[1] for name, factor in factors.items()}
    for name, factor in factors.items():
        alike = groups.setdefault((factor.shape[1], factor.attributes["bits"], factor.attributes["block_size"]), [[]])
        if alike[-1] and sum(sizes[other] for other in alike[-1]) + sizes[name] > _GROUP_WEIGHTS:
            alike.append([])
        alike[-1].append(name)
    return [names for alike in groups.values() for names in alike]


def optimise(
    student: Student,
    rates: Rates,
    batches: Iterable[Batch],
    *,
    steps: int,
    backward: Callable[[Mapping[str, Tensor], Batch], None],
    judge: Callable[[Mapping[str, Tensor]], float] | None,
    work: Work,
    state: str = "state",
) -> None:
    """Learn by Adam with a short warm-up and a cosine decay to 0, and end with the best state on samples held back.

    Adam moves every parameter by about its rate in each step, however small the gradient: what a few steps on a few samples do may
    be worse than doing nothing. So the start counts as a state too.

    Args:
        student: what is learned.
        rates: the rates' height.
        batches: one for each step.
        steps: how many there are.
        backward: computes the loss for the weights and a batch, and its gradients.
        judge: the loss for the weights on samples that are in no batch; None where there are none: the last state stays then.
        work: keeps the state every few minutes; an interrupted run continues from there, with the same result.
        state: its name there, one for each stage of the work.

    Raises:
        OutputError: the state cannot be kept.

    """
    groups: list[dict[str, Any]] = [
        {"params": [learned.parameters[kind] for _, learned in student.groups], "height": height}
        for kind, height in (("positions", rates.positions), ("books", rates.books), ("scales", rates.scales))
    ]
    if student.dense:
        groups.append({"params": list(student.dense.values()), "height": rates.dense})
    optimiser = torch.optim.Adam(groups, betas=_BETAS)
    best = _Best(_parameters(optimiser))
    done = _restore(optimiser, best, work, state)
    kept_at = time.monotonic()
    for step, batch in enumerate(batches):
        if step < done:
            continue
        if judge is not None and step % max(1, steps // _JUDGED) == 0:
            best.offer(judge(student.weights()))
        for group in optimiser.param_groups:
            group["lr"] = group["height"] * _rate(step, steps)
        weights = student.weights()
        backward(weights, batch)
        student.set_gradients(weights)
        optimiser.step()
        optimiser.zero_grad()
        with torch.no_grad():
            for _, learned in student.groups:
                learned.clamp()
        if work.outlives and time.monotonic() - kept_at > _KEEP_SECONDS:
            _keep(optimiser, best, work, state, step + 1)
            kept_at = time.monotonic()
    if judge is not None:
        best.offer(judge(student.weights()))
        best.take()


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
    # Adam counts steps on the processor, whatever the device.
    for state in optimiser.state.values():
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
