"""Plain layers made of parameters that are there already."""

from __future__ import annotations

from typing import Any, TypeVar

from torch import Tensor, nn

Layer = TypeVar("Layer", bound=nn.Module)


def shared(value: Tensor, of: nn.Parameter) -> nn.Parameter:
    """A view of a parameter, or what was made of it, as a parameter."""
    return nn.Parameter(value.detach(), requires_grad=of.requires_grad)


def linear(weight: nn.Parameter, bias: nn.Parameter | None = None) -> nn.Linear:
    """The layer of a weight `[N, K]`."""
    return _with(nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta"), weight, bias)


def table(weight: nn.Parameter) -> nn.Embedding:
    """The layer of a weight `[N, K]` whose rows are looked up."""
    return _with(nn.Embedding(weight.shape[0], weight.shape[1], device="meta"), weight)


def convolution(weight: nn.Parameter, bias: nn.Parameter | None, groups: int, **geometry: Any) -> nn.Conv2d:
    """The layer of a kernel `[N, C, kh, kw]`; what `geometry` leaves out is of stride 1 without padding."""
    n, channels, height, width = weight.shape
    made = nn.Conv2d(channels * groups, n, (height, width), bias=bias is not None, groups=groups, device="meta", **geometry)
    return _with(made, weight, bias)


def _with(layer: Layer, weight: nn.Parameter, bias: nn.Parameter | None = None) -> Layer:
    layer.weight = weight
    if bias is not None:
        layer.bias = bias
    return layer.eval()
