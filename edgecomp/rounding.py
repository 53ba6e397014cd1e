"""Dense tensors as a recipe stores them: what float16 loses of each, and which lose too much to be stored in it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from edgecomp.errors import ModelError

# A value is lost where float16 is off by more than this share of it: it is 0, infinite, or one of the few steps below 6.1e-5.
LARGEST_ERROR = 0.01
# A tensor that loses more than this share of its values stays float32; of infinities, one is too many.
LARGEST_SHARE = 0.01
_PART = 1 << 20  # values in float64 at a time
_NAMED = 5  # tensors that a notice names


@dataclass(frozen=True)
class Loss:
    """What float16 does to a tensor's finite values.

    Args:
        values: how many there are.
        zeroed: become 0 and were not.
        infinite: become infinite.
        inexact: are off by more than 1 % otherwise.
        relative_error: ||rounded - tensor|| / ||tensor||, without those that become infinite.

    """

    values: int
    zeroed: int
    infinite: int
    inexact: int
    relative_error: float

    @property
    def too_much(self) -> bool:
        """Whether the tensor must stay float32."""
        return self.infinite > 0 or self.zeroed + self.inexact > LARGEST_SHARE * self.values

    def describe(self) -> str:
        """Such as `3 of 64 values become 0`."""
        kinds = {"become 0": self.zeroed, "become infinite": self.infinite, "are off by more than 1 %": self.inexact}
        return f"of {self.values:,} values " + " and ".join(f"{count:,} {what}" for what, count in kinds.items() if count)

    def to_json(self) -> dict[str, Any]:
        """The loss as JSON values."""
        return asdict(self)


def loss_of(tensor: Tensor) -> Loss:
    """What float16 loses of a tensor of floats of any dtype; NaN and infinities, which it has too, do not count."""
    values = zeroed = infinite = inexact = 0
    difference = total = 0.0
    for part in tensor.detach().reshape(-1).split(_PART):
        exact = part.double()
        exact = exact[torch.isfinite(exact)]
        rounded = exact.float().half().double()
        beyond = torch.isinf(rounded)
        gone = (rounded == 0) & (exact != 0)
        error = torch.where(beyond, 0.0, rounded - exact).abs()
        values += exact.numel()
        infinite += int(beyond.sum())
        zeroed += int(gone.sum())
        inexact += int(((error > LARGEST_ERROR * exact.abs()) & ~gone).sum())
        difference += float(error.square().sum())
        total += float(exact.square().sum())
    return Loss(values, zeroed, infinite, inexact, (difference / total) ** 0.5 if total else 0.0)


class Rounding:
    """Brings tensors to the dtype that a recipe stores them in, but for those that lose too much by it.

    Args:
        dtype: `torch.float16` or `torch.float32`.

    Attributes:
        losses: what float16 does to each tensor of floats that was brought to it, or kept from it, by name.

    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.losses: dict[str, Loss] = {}

    def __call__(self, name: str, tensor: Tensor) -> Tensor:
        """The tensor as it is stored: in `dtype`, in float32 where float16 loses too much, and unchanged where it has no floats.

        Raises:
            ModelError: it holds values that float32 does not.

        """
        if not tensor.is_floating_point():
            return tensor
        if self.dtype == torch.float16:
            self.losses[name] = loss_of(tensor)
            if not self.losses[name].too_much:
                return tensor.to(torch.float16)
        require_float32(name, tensor)
        return tensor.to(torch.float32)

    def notice(self) -> str | None:
        """What to say of the tensors that stay float32; None where there is none."""
        kept = {name: loss for name, loss in self.losses.items() if loss.too_much}
        if not kept:
            return None
        named = "; ".join(f"{name} ({loss.describe()})" for name, loss in list(kept.items())[:_NAMED])
        more = f"; and {len(kept) - _NAMED} more" if len(kept) > _NAMED else ""
        tensors = "1 dense tensor stays" if len(kept) == 1 else f"{len(kept)} dense tensors stay"
        return f"notice: {tensors} float32, since float16 would lose too much: {named}{more}"

    def to_json(self) -> dict[str, Any]:
        """What a checkpoint tells of each tensor: its relative error in float16, or why it is float32 still."""
        return {
            name: {"kept": "float32", **loss.to_json()} if loss.too_much else {"relative_error": loss.relative_error}
            for name, loss in self.losses.items()
            if loss.too_much or loss.relative_error
        }


def require_float32(name: str, tensor: Tensor) -> None:
    """Refuse a tensor of float64 whose values float32 does not hold.

    Raises:
        ModelError: naming it.

    """
    if tensor.dtype == torch.float64 and not torch.equal(torch.isfinite(tensor), torch.isfinite(tensor.to(torch.float32))):
        raise ModelError(f"{name} must hold values of float32, in which a compressed model computes, and holds larger ones")
