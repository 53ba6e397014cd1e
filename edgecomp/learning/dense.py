"""A `dense` factor while it is learned: its matrix, by the gradient of its weights."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from edgecomp.formats import dense
from edgecomp.tensor import Factor


class LearnedDense:
    """One dense factor. The forward value is rounded to what is stored, and gradients pass the rounding (straight-through).

    Args:
        factors: the factor.
        originals: what it stands for; not needed here.
        device: where to learn.

    """

    rates: ClassVar[Mapping[str, float]] = {"values": 1e-4}

    def __init__(self, factors: Sequence[Factor], originals: Sequence[Tensor], device: torch.device) -> None:
        (factor,) = factors
        self._dtype = factor.arrays["values"].dtype
        self._largest = float(np.finfo(self._dtype).max)
        self.values = torch.from_numpy(dense.unpack(factor)).to(device, copy=True)

    @staticmethod
    def learns(factor: Factor) -> bool:
        """Every one can be learned."""
        return True

    @staticmethod
    def alike(factor: Factor) -> Hashable:
        """Each by itself: equal keys are equal factors only."""
        return id(factor)

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        """The matrix, `values`."""
        return {"values": self.values}

    def weights(self) -> tuple[Tensor, ...]:
        """The matrix as it is stored, in float32."""
        return (self.values.to(torch.float16).float() if self._dtype == np.float16 else self.values.clone(),)

    def set_gradients(self, gradients: Sequence[Tensor]) -> None:
        """The gradient of the matrix."""
        self.values.grad = gradients[0]

    def clamp(self) -> None:
        """Keep values finite in the type that is stored."""
        self.values.clamp_(-self._largest, self._largest)

    def to_factors(self) -> list[Factor]:
        """The factor, in the type it had."""
        dtype = np.float16 if self._dtype == np.float16 else np.float32
        return [dense.pack(self.values.cpu().numpy(), dtype)]
