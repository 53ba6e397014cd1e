"""Convolutions over one and three axes, transposed ones, and other paddings than zeros, as two-dimensional ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from edgecomp.modules import stand_in
from edgecomp.unfolding.plain import convolution, shared


class Convolution(nn.Module):
    """`nn.Conv1d`, `nn.Conv2d` and `nn.Conv3d` with any padding.

    One axis is the width of an image of height 1. Of three, the taps along the first become channels: for x `[B, C, D, H, W]` and a
    kernel of `kd` taps there, `[B Do, C kd, H, W]` for Do outputs, channels ordered (channel, tap), so that groups stay together.
    Paddings other than zeros come before the convolution.
    """

    def __init__(self, layer: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> None:
        super().__init__()
        stand_in(self, layer)
        self._axes = len(layer.kernel_size)
        plain = layer.padding_mode == "zeros"
        self._mode = "constant" if plain else layer.padding_mode
        self._before: list[int] = []  # as torch.nn.functional.pad takes it
        padding: str | tuple[int, ...] = layer.padding if isinstance(layer.padding, str) else tuple(layer.padding)
        if not plain or (self._axes == 3 and isinstance(padding, str)):
            self._before, padding = list(layer._reversed_padding_repeated_twice), (0,) * self._axes
        elif self._axes == 3:
            self._before, padding = [0, 0, 0, 0, int(padding[0]), int(padding[0])], padding[1:]
        if not any(self._before):
            self._before = []
        weight = layer.get_parameter("weight")
        stride, dilation = tuple(layer.stride), tuple(layer.dilation)
        if self._axes == 1:
            weight, stride, dilation = shared(weight.unsqueeze(2), weight), (1, *stride), (1, *dilation)
            padding = padding if isinstance(padding, str) else (0, *padding)
        elif self._axes == 3:
            self._depth = (layer.kernel_size[0], stride[0], dilation[0])
            weight, stride, dilation = shared(weight.flatten(1, 2), weight), stride[1:], dilation[1:]
            padding = padding[-2:]
        bias = layer._parameters.get("bias")
        self.conv = convolution(weight, bias, layer.groups, stride=stride, padding=padding, dilation=dilation)

    @property
    def weight(self) -> Tensor:
        """As the layer had it."""
        weight = self.conv.weight
        if self._axes == 2:
            return weight
        return weight.squeeze(2) if self._axes == 1 else weight.unflatten(1, (-1, self._depth[0]))

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output for `x`, with a batch or without."""
        single = x.ndim == self._axes + 1
        x = x.unsqueeze(0) if single else x
        if self._before:
            x = pad(x, self._before, self._mode)
        if self._axes == 1:
            y: Tensor = self.conv(x.unsqueeze(2)).squeeze(2)
        elif self._axes == 2:
            y = self.conv(x)
        else:
            y = self._volume(x)
        return y.squeeze(0) if single else y

    def _volume(self, x: Tensor) -> Tensor:
        taps, stride, dilation = self._depth
        batch = x.shape[0]
        outputs = (x.shape[2] - dilation * (taps - 1) - 1) // stride + 1
        seen = [x[:, :, tap * dilation : tap * dilation + stride * (outputs - 1) + 1 : stride] for tap in range(taps)]
        # [B, C, taps, Do, H, W] -> [B, Do, C, taps, H, W]
        images = torch.stack(seen, dim=2).permute(0, 3, 1, 2, 4, 5)
        y: Tensor = self.conv(images.reshape(batch * outputs, x.shape[1] * taps, x.shape[3], x.shape[4]))
        return y.reshape(batch, outputs, *y.shape[1:]).transpose(1, 2)


class _Phase(NamedTuple):
    """Along one axis: which taps meet the outputs at one remainder of the stride, first to last, and how they meet inputs."""

    taps: tuple[int, ...]
    first: int  # how many inputs back the first tap looks
    step: int  # and each next one


class TransposedConvolution(nn.Module):
    """`nn.ConvTranspose1d` and `nn.ConvTranspose2d` as ordinary convolutions, one for all outputs that see as many taps.

    Of stride s, dilation d and k taps, output o = s q + r - p is the sum over the taps t with d t = r (mod s) of
    x[q - (d t - r) / s] w[t]. So the outputs of each remainder r are a convolution of stride 1 with its own taps, reversed. Those
    whose taps lie alike are one, with as many times the channels, ordered (channel, remainder): no tap is stored or computed that
    the layer has not.
    """

    def __init__(self, layer: nn.ConvTranspose1d | nn.ConvTranspose2d) -> None:
        super().__init__()
        stand_in(self, layer)
        self._axes = len(layer.kernel_size)
        own, own_bias = layer.get_parameter("weight"), layer._parameters.get("bias")
        weight = own.unsqueeze(2) if self._axes == 1 else own  # [C, N / groups, kh, kw]

        def both(sizes: Sequence[Any], first: int) -> tuple[int, int]:
            return (first, int(sizes[0])) if self._axes == 1 else (int(sizes[0]), int(sizes[1]))

        self._stride, dilation = both(layer.stride, 1), both(layer.dilation, 1)
        self._start, more = both(layer.padding, 0), both(layer.output_padding, 0)
        spans = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        # So many outputs are made behind the last input, in strides: what its taps reach and what the layer wants, at least.
        self._behind = [
            max(span // s, -((s + p - span - 1 - o) // s))
            for span, s, p, o in zip(spans, self._stride, self._start, more, strict=True)
        ]
        # What is cut off behind, in terms of the outputs made: (L + behind) s - (p + (L - 1) s - 2 p + span + 1 + o).
        self._cut = [
            (behind + 1) * s + p - span - 1 - o
            for behind, span, s, p, o in zip(self._behind, spans, self._stride, self._start, more, strict=True)
        ]
        phases = [[_phase(k, s, d, r) for r in range(s)] for k, s, d in zip(weight.shape[2:], self._stride, dilation, strict=True)]
        alike: dict[tuple[int, ...], list[int]] = {}
        pairs = [(y, x) for y in phases[0] for x in phases[1]]
        for number, (y, x) in enumerate(pairs):
            met = bool(y.taps and x.taps)
            alike.setdefault((len(y.taps), y.first, len(x.taps), x.first) if met else (), []).append(number)
        self._none = alike.pop((), [])  # remainders that no tap meets: the bias alone
        self._numbers = list(alike.values())
        self._offsets: list[list[int]] = []
        self._exact: list[bool] = []  # whether a convolution gives what is wanted of it and no more
        self.convs = nn.ModuleList()
        for key, numbers in alike.items():
            kernels = [_kernel(weight, *pairs[number], layer.groups) for number in numbers]
            kernel = shared(torch.stack(kernels, dim=1).flatten(0, 1), own)
            bias = None if own_bias is None else shared(own_bias.repeat_interleave(len(numbers)), own_bias)
            steps = tuple(phase.step for phase in pairs[numbers[0]])
            self.convs.append(convolution(kernel, bias, layer.groups, padding=tuple(self._behind), dilation=steps))
            reach = [(taps - 1) * step for taps, step in zip(key[::2], steps, strict=True)]
            self._offsets.append([behind - first - far for behind, first, far in zip(self._behind, key[1::2], reach, strict=True)])
            self._exact.append(reach == self._behind)
        self.bias = own_bias if self._none else None

    def forward(self, x: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """The layer's output for `x`, with a batch or without, of the height and width `output_size` where that is given."""
        single = x.ndim == self._axes + 1
        x = x.unsqueeze(0) if single else x
        x = x.unsqueeze(2) if self._axes == 1 else x
        if output_size is None:
            y = self._whole(x)
            y = y[:, :, self._start[0] : y.shape[2] - self._cut[0], self._start[1] : y.shape[3] - self._cut[1]]
        else:  # zeros behind the inputs make as many more outputs as the layer could be asked for
            sizes = [int(size) if isinstance(size, int) else size for size in output_size][-self._axes :]
            height, width = (1, sizes[0]) if self._axes == 1 else sizes
            y = self._whole(pad(x, (0, 1, 0, 1)))
            y = y[:, :, self._start[0] : self._start[0] + height, self._start[1] : self._start[1] + width]
        y = y.squeeze(2) if self._axes == 1 else y
        return y.squeeze(0) if single else y

    def _whole(self, x: Tensor) -> Tensor:
        """All outputs that any tap reaches, and what the padding of the convolutions makes behind them."""
        batch, rows, columns = x.shape[0], x.shape[2] + self._behind[0], x.shape[3] + self._behind[1]
        height, width = self._stride
        parts: dict[int, Tensor] = {}
        for conv, numbers, (down, right), exact in zip(self.convs, self._numbers, self._offsets, self._exact, strict=True):
            y: Tensor = conv(x)
            if not exact:
                y = y[:, :, down : down + rows, right : right + columns]
            if len(numbers) == height * width:
                return _interleaved(y.reshape(batch, -1, height, width, rows, columns))
            y = y.reshape(batch, -1, len(numbers), rows, columns)
            parts |= {number: y[:, :, place] for place, number in enumerate(numbers)}
        some = next(iter(parts.values()))
        empty = torch.zeros_like(some) if self.bias is None else torch.zeros_like(some) + self.bias[:, None, None]
        parts |= dict.fromkeys(self._none, empty)
        found = torch.stack([parts[number] for number in range(height * width)], dim=2)
        return _interleaved(found.reshape(batch, -1, height, width, rows, columns))


def _interleaved(phases: Tensor) -> Tensor:
    """`[B, N, sy, sx, rows, columns]` as the image `[B, N, rows sy, columns sx]`."""
    batch, n, height, width, rows, columns = phases.shape
    image: Tensor = phases.permute(0, 1, 4, 2, 5, 3).reshape(batch, n, rows * height, columns * width)
    return image


def _phase(kernel: int, stride: int, dilation: int, remainder: int) -> _Phase:
    taps = tuple(tap for tap in range(kernel) if (dilation * tap - remainder) % stride == 0)
    first = (dilation * taps[0] - remainder) // stride if taps else 0
    return _Phase(taps, first, dilation // math.gcd(dilation, stride))


def _kernel(weight: Tensor, rows: _Phase, columns: _Phase, groups: int) -> Tensor:
    """The ordinary kernel `[N, C / groups, taps, taps]` of some taps of a transposed one `[C, N / groups, kh, kw]`."""
    taken = weight.detach()[:, :, list(reversed(rows.taps))][:, :, :, list(reversed(columns.taps))]
    kernel: Tensor = taken.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
    return kernel
