"""What is learned of a running draft, or of a part of it: its factors and dense tensors, and the way back into the draft."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgecomp import formats
from edgecomp.context import PassContext
from edgecomp.draft import Draft
from edgecomp.formats import dense
from edgecomp.layers import matrix_of
from edgecomp.learning.learned import can_learn, learned_groups
from edgecomp.learning.running import RunningDraft
from edgecomp.tensor import Factor

_TRIED = 32  # samples, to see which factors a loss depends on


@dataclass(frozen=True)
class LearningSettings:
    """How to learn.

    Args:
        steps: of the optimiser.
        batch: samples of a step.
        rates: learning rates at their height, by kind of parameter; `dense` is that of dense tensors, and 0 leaves these and
            matrices that no pass has packed.
        seed: of the order of the samples.
        formats: settings of the formats' learners.

    """

    steps: int
    batch: int
    rates: Mapping[str, float]
    seed: int = 0
    formats: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def learnable(draft: Draft, *, dense: bool) -> list[str]:
    """The factors that can be learned: packed ones by their format's learner, and matrices that a pass has made, if `dense`."""
    own = {layer.factor for layer in draft.layers.values()}
    made = [name for name in draft.matrices if name not in own] if dense else []
    return [name for name, factor in draft.factors.items() if can_learn(factor)] + made


class Student:
    """Factors and dense tensors of a running draft under way.

    Args:
        running: the draft that runs.
        draft: the same, where what was learned goes in the end.
        context: the original layers.
        names: the factors that are learned.
        tensors: parameters of `running.module` that are learned too, by name in the draft.
        settings: of the learners.

    """

    def __init__(
        self,
        running: RunningDraft,
        draft: Draft,
        context: PassContext,
        names: Sequence[str],
        tensors: Mapping[str, nn.Parameter],
        settings: LearningSettings,
    ) -> None:
        self._running, self._draft, self._context = running, draft, context
        self._device = context.device
        self.tensors = dict(tensors)
        factors = {name: start_of(draft, name) for name in names}
        self.groups = learned_groups(factors, self._original, context.device, settings.formats)
        self._leaves: dict[str, Tensor] = {}

    @contextmanager
    def learning(self) -> Iterator[None]:
        """Dense tensors are leaves of autograd, copies of what they were; the running draft holds the student's matrices."""
        for tensor in self.tensors.values():
            tensor.data = tensor.data.to(self._device, torch.float32, copy=True)
            tensor.requires_grad_()
        try:
            with self._running.holding(()):
                self.place()
                yield
        finally:
            for tensor in self.tensors.values():
                tensor.requires_grad_(False)
                tensor.grad = None

    @torch.no_grad()
    def place(self) -> None:
        """Have the draft run with the weights as they are now, leaves of autograd that stay where they are; within `learning`."""
        for names, learned in self.groups:
            for name, weights in zip(names, learned.weights(), strict=True):
                if name in self._leaves:
                    self._leaves[name].copy_(weights)
                    self._leaves[name].grad = None
                else:
                    self._leaves[name] = weights.clone().requires_grad_()
        self._running.hold(self._leaves)

    @property
    def leaves(self) -> list[Tensor]:
        """What gets gradients: the weights that are placed, and the dense tensors; always the same tensors."""
        return [*self._leaves.values(), *self.tensors.values()]

    @torch.no_grad()
    def set_gradients(self) -> None:
        """Hand the gradients of what was placed on to what it is made of; a weight that no input reached has none."""
        for names, learned in self.groups:
            leaves = [self._leaves[name] for name in names]
            learned.set_gradients([torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves])

    @torch.no_grad()
    def take(self) -> None:
        """Put what was learned into the draft.

        Of a factor that is a layer's only one the distance to its weight is recorded, else the one to what it was before.
        """
        for names, learned in self.groups:
            records = [self._record(name, weights) for name, weights in zip(names, learned.weights(), strict=True)]
            for name, factor, record in zip(names, learned.to_factors(), records, strict=True):
                put_factor(self._draft, name, factor)
                self._draft.records[name] = record
        for name, tensor in self.tensors.items():
            take_tensor(self._draft, self._running, name, tensor.detach().cpu())

    def _record(self, name: str, weights: Tensor) -> dict[str, float]:
        original, columns = self._original(name).to(weights), self._draft.columns(name)
        if columns is not None:
            original, weights = columns.kernel(original), columns.kernel(weights)
        size = original.norm().item()
        error = (weights - original).norm().item() / size if size else 0.0
        return {"relative_error" if self._alone(name) else "change": error}

    def _alone(self, name: str) -> bool:
        """Whether each layer that uses the factor has no other one."""
        plans = [self._draft.plans[use.layer] for use in self._draft.uses(name)]
        return all(len(plan.terms) == 1 and len(plan.terms[0]) == 1 for plan in plans)

    def _original(self, name: str) -> Tensor:
        """What a factor stands for, zeros in padding columns: the layer's own weight where it is its only factor, else itself."""
        start, columns = start_of(self._draft, name), self._draft.columns(name)
        if self._alone(name):
            layer = self._context.modules[self._draft.uses(name)[0].layer]
            matrix = matrix_of(layer, layer.get_parameter("weight").detach()).float()
        else:
            matrix = torch.from_numpy(formats.unpack(start))
        if columns is None or start.shape[1] == columns.count:
            return matrix
        return columns.padded(columns.matrix(columns.kernel(matrix)))


def take_tensor(draft: Draft, running: RunningDraft, name: str, value: Tensor) -> None:
    """Put a dense tensor into the draft under all of its names."""
    draft.tensors |= dict.fromkeys(running.names_of(name), value)


def put_factor(draft: Draft, name: str, factor: Factor) -> None:
    """Put a learned factor into the draft; a matrix that was not packed stays one."""
    if name in draft.matrices:
        draft.matrices[name] = torch.from_numpy(formats.unpack(factor))
    else:
        draft.factors[name] = factor


def start_of(draft: Draft, name: str) -> Factor:
    """A factor of the draft, a matrix as a dense factor of float32."""
    if name in draft.factors:
        return draft.factors[name]
    return dense.pack(draft.matrices[name].detach().cpu().float().numpy(), np.float32)


def reached(
    running: RunningDraft, draft: Draft, device: torch.device, names: Collection[str], losses: Iterator[Callable[[], Tensor]]
) -> list[str]:
    """Those of the factors that have a gradient from any of some losses, which are computed until all have one."""
    if not names:
        return []
    leaves = {name: torch.from_numpy(formats.unpack(start_of(draft, name))).to(device).requires_grad_() for name in names}
    found: set[str] = set()
    with running.holding((), leaves), torch.enable_grad():
        for loss in losses:
            value = loss()
            if value.requires_grad:
                gradients = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
                found |= {name for name, gradient in zip(leaves, gradients, strict=True) if gradient is not None}
            if len(found) == len(leaves):
                break
    return [name for name in names if name in found]


def spread(count: int) -> list[int]:
    """Some of `count` positions, evenly, to try whether a loss depends on a factor; the first among them."""
    tried = min(count, _TRIED)
    return [i * count // tried for i in range(tried)]


def say_unreached(names: Sequence[str], found: Collection[str], context: PassContext, what: str) -> None:
    """Say which factors stay as they are, since a loss does not depend on them."""
    left = [name for name in names if name not in found]
    if left:
        context.progress.say(f"jlcm leaves as they are, since {what} does not depend on them: {', '.join(left)}")
