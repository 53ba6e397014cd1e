"""What can be learned of a packed format: the protocol that a format's learner keeps, and the table of learners.

A learner holds factors as parameters that an optimiser can change, always near values that the format can store. It gives the
weights as they would be stored, takes the gradients of these weights, and hands back packed factors.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from edgecomp.learning.dense import LearnedDense
from edgecomp.learning.lut import LearnedLut
from edgecomp.learning.lut_narrow import LearnedNarrow
from edgecomp.tensor import Factor

_GROUP_WEIGHTS = 1 << 25


class Learned(Protocol):
    """Some factors of one format while they are learned, as one tensor of each kind where that is possible.

    Many small matrices as one tensor: an accelerator would spend its time on starting work.

    Args of the constructor:
        factors: the start; all of one `alike`.
        originals: the weights that they stand for, float32 `[N, K]` each; columns of zeros there, such as padding, may stay so.
        device: where to learn.
        settings: the learner's own, by name.

    """

    rates: ClassVar[Mapping[str, float]]  # kinds of parameters, and the learning rate of each where a method sets none

    def __init__(self, factors: Sequence[Factor], originals: Sequence[Tensor], device: torch.device, **settings: Any) -> None: ...

    @staticmethod
    def learns(factor: Factor) -> bool:
        """Whether this factor of the format can be learned."""

    @staticmethod
    def alike(factor: Factor) -> Hashable:
        """What factors that are learned together must have in common."""

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        """What is learned, by kind; an optimiser changes the tensors in place and then calls `clamp`."""

    def weights(self) -> Sequence[Tensor]:
        """The factors' weights as they would be stored: float32 `[N, K]` each."""

    def set_gradients(self, gradients: Sequence[Tensor]) -> None:
        """Set `.grad` of the parameters from the gradients of the weights, `[N, K]` each."""

    def clamp(self) -> None:
        """Keep what is learned within what can be stored; after every step of an optimiser."""

    def to_factors(self) -> list[Factor]:
        """The learned factors."""


LEARNERS: dict[str, type[Learned]] = {
    "lut": LearnedLut,
    "lut_narrow": LearnedNarrow,
    "dense": LearnedDense,
}


def can_learn(factor: Factor) -> bool:
    """Whether a learner takes the factor."""
    return factor.format in LEARNERS and LEARNERS[factor.format].learns(factor)


def learned_groups(
    factors: Mapping[str, Factor],
    original: Callable[[str], Tensor],
    device: torch.device,
    settings: Mapping[str, Mapping[str, Any]],
) -> list[tuple[list[str], Learned]]:
    """Learners of the factors, each with the names of those it holds.

    Args:
        factors: what is to be learned, by name; `can_learn` holds for each.
        original: the weights that a factor stands for.
        device: where to learn.
        settings: of each format's learner.

    """
    groups: list[tuple[list[str], Learned]] = []
    for names in _groups(factors):
        kind = factors[names[0]].format
        chosen = [factors[name] for name in names]
        groups.append((names, LEARNERS[kind](chosen, [original(name) for name in names], device, **settings.get(kind, {}))))
    return groups


def _groups(factors: Mapping[str, Factor]) -> list[list[str]]:
    """Names of factors that can be learned as one tensor, at most `_GROUP_WEIGHTS` together unless one alone is larger."""
    groups: dict[tuple[str, Hashable], list[list[str]]] = {}
    sizes = {name: factor.shape[0] * factor.shape[1] for name, factor in factors.items()}
    for name, factor in factors.items():
        alike = groups.setdefault((factor.format, LEARNERS[factor.format].alike(factor)), [[]])
        if alike[-1] and sum(sizes[other] for other in alike[-1]) + sizes[name] > _GROUP_WEIGHTS:
            alike.append([])
        alike[-1].append(name)
    return [names for alike in groups.values() for names in alike]
