"""The columns of a convolution's matrix: one place that knows their order, and the padding that a format adds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor, nn

from edgecomp.errors import ModelError
from edgecomp.formats import lut
from edgecomp.tensor import ConvParams, LayerPlan, Stage


@dataclass(frozen=True)
class ConvColumns:
    """A kernel `[N, C, kh, kw]` as a matrix `[N, K]`, K = kh * kw * C, and what goes with it.

    Columns are ordered (kernel row, kernel column, channel). The `lut` format pads the C channels of a tap to C', a multiple of 32,
    so that a pixel fills whole spans: its matrices have kh * kw * C' columns (`padded`).

    Args:
        conv: geometry of the stage that uses the matrix; of a chain, each stage has its own.

    """

    conv: ConvParams

    @property
    def channels(self) -> int:
        """Channels of a group, C."""
        return self.conv.in_channels // self.conv.groups

    @property
    def taps(self) -> int:
        """Positions of the kernel, kh * kw."""
        return math.prod(self.conv.kernel_size)

    @property
    def count(self) -> int:
        """Columns of the matrix, K."""
        return self.taps * self.channels

    @property
    def padding(self) -> int:
        """Channels that `lut` adds to each tap, C' - C."""
        return lut.conv_columns(self.conv) // self.taps - self.channels

    def real(self) -> Tensor:
        """Which of the padded columns are no padding: bool `[kh * kw * C']`."""
        return self.padded(torch.ones(self.count)) > 0

    def padded(self, values: Tensor) -> Tensor:
        """Values by column `[..., K]` with zeros in the columns of padding: `[..., kh * kw * C']`."""
        taps = values.reshape(*values.shape[:-1], self.taps, self.channels)
        return nn.functional.pad(taps, (0, self.padding)).flatten(-2)

    def matrix(self, kernel: Tensor) -> Tensor:
        """A kernel `[N, C, kh, kw]` as its matrix `[N, K]`."""
        return kernel.permute(0, 2, 3, 1).reshape(len(kernel), -1)

    def kernel(self, matrix: Tensor) -> Tensor:
        """The kernel `[N, C, kh, kw]` of a matrix, padded or not; what stands in padding columns is left out."""
        taps = matrix.reshape(len(matrix), *self.conv.kernel_size, -1)
        return taps[..., : self.channels].permute(0, 3, 1, 2)

    def patches(self, x: Tensor) -> Tensor:
        """What each output position of each group sees of `x [batch, in_channels, height, width]`: `[positions, K]`."""
        top, left, bottom, right = self.conv.padding
        x = nn.functional.pad(x if x.ndim == 4 else x[None], (left, right, top, bottom))
        # [batch, C * taps, positions]
        seen = nn.functional.unfold(x, self.conv.kernel_size, self.conv.dilation, 0, self.conv.stride)
        return (
            seen.reshape(len(x) * self.conv.groups, self.channels, -1, seen.shape[-1]).permute(0, 3, 2, 1).flatten(2).flatten(0, 1)
        )

    def of_channels(self, values: Tensor) -> Tensor:
        """A value of each input channel `[in_channels]` at every column that it is seen through: `[K]`.

        Groups share the columns of the matrix's rows: their values are averaged.
        """
        return values.reshape(self.conv.groups, -1).mean(dim=0).repeat(self.taps)


def stage_output(op: str, conv: ConvParams | None, matrix: Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """What a stage gives for `x`, from its matrix `[N, K]` in float: the meaning of `edgecomp.tensor.Stage` in PyTorch."""
    if op == "conv":
        assert conv is not None  # LayerPlan.from_json and the passes give conv stages their geometry
        top, left, bottom, right = conv.padding
        padding = (top, left)
        if padding != (bottom, right):  # PyTorch pads both sides alike
            x, padding = nn.functional.pad(x, (left, right, top, bottom)), (0, 0)
        return nn.functional.conv2d(x, ConvColumns(conv).kernel(matrix), bias, conv.stride, padding, conv.dilation, conv.groups)
    if op == "gather":
        y = nn.functional.embedding(x, matrix)
        return y if bias is None else y + bias
    return nn.functional.linear(x, matrix, bias)


def plan_output(plan: LayerPlan, x: Tensor, bias: Tensor | None, run: Callable[[Stage, Tensor, Tensor | None], Tensor]) -> Tensor:
    """What a layer gives for `x`: the sum over the terms of their chains; `run` runs one stage, and adds the bias it is given."""
    outputs = []
    for position, term in enumerate(plan.terms):
        value = x
        for depth, stage in enumerate(term):
            first_output = position == 0 and depth == len(term) - 1
            value = run(stage, value, bias if first_output else None)
        outputs.append(value)
    return reduce(torch.add, outputs)


def plan_weight(plan: LayerPlan, matrix: Callable[[str], Tensor], transposed: bool) -> Tensor:
    """The weight of the layer that a plan stands for, in the layer's own layout.

    Args:
        plan: the plan.
        matrix: the matrix `[N, K]` of a factor.
        transposed: the weight of a linear layer is stored `[K, N]`.

    Raises:
        ModelError: a chain of convolutions, which has none.

    """
    stages = [stage for term in plan.terms for stage in term]
    if stages[0].op == "conv":
        if len(stages) > len(plan.terms):
            raise ModelError("a chain of convolutions has no weight of its own: use what the layer gives, not its weight")
        kernels = [ConvColumns(stage.conv).kernel(matrix(stage.factor)) for stage in stages if stage.conv is not None]
        return torch.stack(kernels).sum(dim=0)
    first = matrix(stages[0].factor)
    probe = torch.arange(len(first)) if stages[0].op == "gather" else torch.eye(first.shape[1])
    seen = plan_output(
        plan, probe.to(first.device), None, lambda stage, x, _: stage_output(stage.op, None, matrix(stage.factor), x)
    )
    return seen if stages[0].op == "gather" or transposed else seen.T
