"""The convolutions of three nets, and how often each occurs: what convolutions.py times.

ResNet-18: K. He et al., "Deep Residual Learning for Image Recognition", 2015, arXiv:1512.03385, table 1. MobileNetV2: M. Sandler
et al., 2018, arXiv:1801.04381, table 2. Both for an image of 224 x 224. The speech net is the x-vector TDNN of D. Snyder et al.,
"X-Vectors: Robust DNN Embeddings for Speaker Recognition", ICASSP 2018, table 1: its frame layers on three seconds (300 frames of
24 features), which are convolutions of an image of one row.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from edgecomp.tensor import ConvParams


@dataclass(frozen=True)
class Convolution:
    """One layer on an image of one size, with the ReLU behind it where the net has one."""

    outputs: int
    conv: ConvParams
    height: int
    width: int
    relu: bool

    @property
    def name(self) -> str:
        """For example `64 -> 128, 3x3 / 2, 56x56`."""
        kind = " depthwise" if self.conv.groups > 1 else ""
        dilated = f" dilated {self.conv.dilation[1]}" if self.conv.dilation != (1, 1) else ""
        kernel, stride = "x".join(map(str, self.conv.kernel_size)), self.conv.stride[1]
        return f"{self.conv.in_channels} -> {self.outputs}{kind}, {kernel} / {stride}{dilated}, {self.height}x{self.width}"


def _square(inputs: int, outputs: int, kernel: int, stride: int, size: int, *, groups: int = 1, relu: bool = True) -> Convolution:
    pad = kernel // 2
    conv = ConvParams(inputs, (kernel, kernel), (stride, stride), (pad, pad, pad, pad), groups=groups)
    return Convolution(outputs, conv, size, size, relu)


def resnet18() -> Counter[Convolution]:
    """Every convolution, the shortcuts' 1 x 1 included."""
    layers = [_square(3, 64, 7, 2, 224)]
    inputs = 64
    for outputs, size in ((64, 56), (128, 28), (256, 14), (512, 7)):
        for block in range(2):
            down = outputs != inputs
            stride = 2 if down else 1
            layers.append(_square(inputs, outputs, 3, stride, size * stride))
            layers.append(_square(outputs, outputs, 3, 1, size))
            if down:
                layers.append(_square(inputs, outputs, 1, 2, size * 2, relu=False))
            assert block == 0 or not down
            inputs = outputs
    return Counter(layers)


def mobilenet_v2() -> Counter[Convolution]:
    """Every convolution; its ReLU6 counts as a ReLU."""
    layers = [_square(3, 32, 3, 2, 224)]
    inputs, size = 32, 112
    for expansion, outputs, repeats, first_stride in (
        *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
    ):
        for stride in (first_stride, *(1,) * (repeats - 1)):
            hidden = expansion * inputs
            if expansion > 1:
                layers.append(_square(inputs, hidden, 1, 1, size))
            layers.append(_square(hidden, hidden, 3, stride, size, groups=hidden))
            size //= stride
            layers.append(_square(hidden, outputs, 1, 1, size, relu=False))
            inputs = outputs
    layers.append(_square(320, 1280, 1, 1, 7))
    return Counter(layers)


def x_vector() -> Counter[Convolution]:
    """The five frame layers."""
    layers, width = [], 300
    for inputs, outputs, kernel, dilation in (
        (24, 512, 5, 1),
        (512, 512, 3, 2),
        (512, 512, 3, 3),
        (512, 512, 1, 1),
        (512, 1500, 1, 1),
    ):
        fields: dict[str, Any] = {"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, dilation)}
        layers.append(Convolution(outputs, ConvParams(inputs, (1, kernel), **fields), 1, width, relu=True))
        width -= dilation * (kernel - 1)
    return Counter(layers)


NETS = {"ResNet-18": resnet18, "MobileNetV2": mobilenet_v2, "x-vector": x_vector}
