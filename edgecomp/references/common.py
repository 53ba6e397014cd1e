"""What references of several formats share: what follows a product, and sizes of convolutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from edgecomp.errors import FormatError
from edgecomp.ops import ACTIVATIONS
from edgecomp.tensor import COMPUTE_MODES


@dataclass(frozen=True)
class Reference:
    """An operator in PyTorch.

    Args:
        run: its implementation, with the arguments of the table's schema.
        fake: an empty output for the same arguments, for `torch.export`.

    """

    run: Callable[..., Tensor]
    fake: Callable[..., Tensor]


def added(z: Tensor, addend: Tensor | None) -> Tensor:
    """The sum, or z where there is no addend."""
    if addend is None:
        return z
    if addend.shape != z.shape:
        raise FormatError(f"addend must be float32 {list(z.shape)} or absent, got {list(addend.shape)}")
    return z + addend


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda z: z,
    "relu": torch.nn.functional.relu,
    "silu": torch.nn.functional.silu,
    "gelu": torch.nn.functional.gelu,
    "gelu_tanh": lambda z: torch.nn.functional.gelu(z, approximate="tanh"),
    "hard_swish": torch.nn.functional.hardswish,
}
assert tuple(_ACTIVATIONS) == ACTIVATIONS


def activated(z: Tensor, activation: str) -> Tensor:
    """The activation of that name, of `edgecomp.ops.ACTIVATIONS`."""
    if activation not in _ACTIVATIONS:
        raise FormatError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    return _ACTIVATIONS[activation](z)


def conv_output(
    x: Tensor, kernel: Sequence[int], strides: Sequence[int], pads: Sequence[int], dilations: Sequence[int]
) -> list[int]:
    """Output height and width; sizes may be symbolic. An axis of no pixels has no outputs but those of its padding."""
    lengths = [
        (x.shape[2 + axis] + pads[axis] + pads[2 + axis] - dilations[axis] * (kernel[axis] - 1) - 1) // strides[axis] + 1
        for axis in range(2)
    ]
    return [max(0, length) if x.shape[2 + axis] == 0 else length for axis, length in enumerate(lengths)]


def quantize_dequantize_images(x: Tensor) -> Tensor:
    """`x [batch, ...]` after the int8 quantisation of whole images of lut.md "Convolution"."""
    if x.numel() == 0:
        return x
    images = x.reshape(len(x), -1)
    least, most = images.amin(1, keepdim=True).clamp(max=0), images.amax(1, keepdim=True).clamp(min=0)
    width = most - least
    finite = torch.isfinite(width)
    usable = finite & (width >= 1e-30)
    inverse = torch.where(usable, 255.0 / width, 0.0)
    zero = torch.round(-least * inverse)
    q = torch.where(usable, torch.round(images * inverse) + zero, 0.0).clamp(max=255)
    step = torch.where(finite, width / 255.0, torch.nan)
    return ((q - torch.where(usable, zero, 0.0)) * step).reshape(x.shape)


def check_compute(compute: str) -> str:
    """The compute mode, if there is one of that name."""
    if compute not in COMPUTE_MODES:
        raise FormatError(f"compute must be one of {', '.join(COMPUTE_MODES)}, got {compute!r}")
    return compute


def images_for(x: Tensor, compute: str) -> Tensor:
    """What a convolution multiplies: images as they are, or on their grids."""
    return quantize_dequantize_images(x) if check_compute(compute) == "int8" else x


def convolved(
    x: Tensor,
    kernel: Tensor,
    bias: Tensor | None,
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    group: int,
) -> Tensor:
    """A convolution with paddings (top, left, bottom, right), also of an image that is nothing but padding."""
    top, left, bottom, right = pads
    padded = torch.nn.functional.pad(x, (left, right, top, bottom))
    return torch.nn.functional.conv2d(padded, kernel, bias, list(strides), 0, list(dilations), group)


def fake_conv2d(
    x: Tensor,
    *_: Tensor | None,
    N: int,
    kernel_shape: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    **__: object,
) -> Tensor:
    """An empty tensor of a convolution's output."""
    return x.new_empty([x.shape[0], N, *conv_output(x, kernel_shape, strides, pads, dilations)])
