"""The operator of the format `lut_narrow`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgecomp.formats import lut_narrow
from edgecomp.formats.lut import storage_bits
from edgecomp.references.common import Reference, activated, added, conv_output, convolved, fake_conv2d, images_for


def decode_narrow(
    codes: Tensor, codebook: Tensor | None, row_scale: Tensor, *, shape: tuple[int, int], bits: int, exponent: int
) -> Tensor:
    """Weights float32 `[N, K]` of the arrays of a `lut_narrow` factor (lut_narrow.md), on their device."""
    n, k = shape
    width = storage_bits(bits)
    positions = torch.arange(8, dtype=torch.uint8, device=codes.device)
    by_bit = (codes[:, None] >> positions & 1).reshape(-1)[: n * k * width].reshape(n * k, width).to(torch.int64)
    code = (by_bit << torch.arange(width, device=codes.device)).sum(dim=1)
    values = torch.where(code < 128, code, code - 256) if codebook is None else codebook[code]
    return values.to(torch.float32).reshape(n, k) * narrow_steps(row_scale.to(torch.int64), exponent)[:, None]


def narrow_steps(row_scale: Tensor, exponent: int | Tensor) -> Tensor:
    """Step of each row of a `lut_narrow` factor, float32, from integers: `edgecomp.formats.lut_narrow.row_steps`."""
    mantissas = torch.from_numpy(lut_narrow.MANTISSAS).to(row_scale.device)
    octaves = row_scale // lut_narrow.SCALES_PER_OCTAVE + exponent
    steps = torch.ldexp(mantissas[row_scale % lut_narrow.SCALES_PER_OCTAVE], octaves)
    return torch.where(row_scale == 0, 0, steps)


def _lut_narrow_conv2d(
    x: Tensor,
    codes: Tensor,
    codebook: Tensor | None,
    row_scale: Tensor,
    bias: Tensor | None,
    addend: Tensor | None,
    *,
    N: int,
    K: int,
    bits: int,
    exponent: int,
    compute: str,
    activation: str,
    kernel_shape: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    group: int,
) -> Tensor:
    height, width = conv_output(x, kernel_shape, strides, pads, dilations)
    if 0 in (len(x), height, width):
        return x.new_empty(len(x), N, height, width)
    weights = decode_narrow(codes, codebook, row_scale, shape=(N, K), bits=bits, exponent=exponent)
    kernel = weights.reshape(N, *kernel_shape, -1).permute(0, 3, 1, 2)
    z = convolved(images_for(x, compute if group == 1 else "float"), kernel, bias, strides, pads, dilations, group)
    return activated(added(z, addend), activation)


REFERENCES = {"lut_narrow_conv2d": Reference(_lut_narrow_conv2d, fake_conv2d)}
