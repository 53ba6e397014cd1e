"""The operators of the format `lut`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgecomp.errors import FormatError
from edgecomp.formats import lut
from edgecomp.references.common import (
    Reference,
    activated,
    added,
    check_compute,
    conv_output,
    convolved,
    fake_conv2d,
    images_for,
)


def decode(
    codes: Tensor,
    codebooks: Tensor,
    tile_book: Tensor,
    scales: Tensor,
    row_scale: Tensor,
    row_index: Tensor | None,
    *,
    shape: tuple[int, int],
    bits: int,
) -> Tensor:
    """Weights float32 `[N, K]` of the arrays of a `lut` factor (lut.md), on their device."""
    tiles, spans = codes.shape[:2]
    groups = torch.zeros(lut.COLUMN_GROUPS, tiles, spans, lut.TILE_ROWS, 4, dtype=torch.uint8, device=codes.device)
    for i, positions in enumerate(lut.bit_positions(bits).tolist()):
        for b, (plane, position) in enumerate(positions):
            groups[i] |= ((codes[:, :, plane] >> position) & 1) << b
    # [i, T, S, 16, j] -> [T, 16, S, i, j] -> [T, 16 * padded K]
    columns = spans * lut.SPAN_COLUMNS
    index = groups.permute(1, 3, 2, 0, 4).reshape(tiles, lut.TILE_ROWS * columns)
    tables = codebooks[tile_book.to(torch.int64)].to(torch.float32)
    values = torch.gather(tables, 1, index.to(torch.int64))
    values = values.reshape(tiles, lut.TILE_ROWS, scales.shape[1], columns // scales.shape[1])
    steps = scales.transpose(1, 2).to(torch.float32) * row_scale[:, :, None]
    weights = (values * steps[..., None]).reshape(tiles * lut.TILE_ROWS, columns)
    n, k = shape
    if row_index is None:
        return weights[:n, :k]
    used = row_index >= 0
    ordered = weights.new_empty(n, weights.shape[1])
    ordered[row_index[used].to(torch.int64)] = weights[used]
    return ordered[:, :k]


def quantize_dequantize(x: Tensor, block_size: int) -> Tensor:
    """`x [..., K]` after the int8 quantisation per block of lut.md "Compute"."""
    k = x.shape[-1]
    padded = torch.nn.functional.pad(x, (0, lut.round_up(k, block_size) - k))
    blocks = padded.reshape(*x.shape[:-1], padded.shape[-1] // block_size, block_size)
    absmax = blocks.abs().amax(dim=-1, keepdim=True)
    usable = torch.isfinite(absmax) & (absmax >= 1e-30)
    q = torch.where(usable, torch.round(blocks * (127.0 / absmax)).clamp(-127, 127), 0.0)
    step = torch.where(torch.isfinite(absmax), absmax / 127.0, torch.nan)
    return (q * step).reshape(padded.shape)[..., :k]


def _prepared(x: Tensor, compute: str, block_size: int) -> Tensor:
    return quantize_dequantize(x, block_size) if check_compute(compute) == "int8" else x


def _lut_matmul(
    x: Tensor,
    codes: Tensor,
    codebooks: Tensor,
    tile_book: Tensor,
    scales: Tensor,
    row_scale: Tensor,
    row_index: Tensor | None,
    bias: Tensor | None,
    addend: Tensor | None,
    *,
    N: int,
    K: int,
    bits: int,
    block_size: int,
    compute: str,
    activation: str,
    gated: int,
) -> Tensor:
    if gated not in (0, 1) or (gated and N % 2):
        raise FormatError(f"gated must be 0, or 1 with an even N, got {gated} with N={N}")
    weights = decode(codes, codebooks, tile_book, scales, row_scale, row_index, shape=(N, K), bits=bits)
    z = torch.nn.functional.linear(_prepared(x, compute, block_size), weights, bias)
    z = added(z, addend)
    if not gated:
        return activated(z, activation)
    return activated(z[..., : N // 2], activation) * z[..., N // 2 :]


def _lut_gather(
    indices: Tensor,
    codes: Tensor,
    codebooks: Tensor,
    tile_book: Tensor,
    scales: Tensor,
    row_scale: Tensor,
    row_index: Tensor | None,
    *,
    N: int,
    K: int,
    bits: int,
    block_size: int,
) -> Tensor:
    flat = indices.reshape(-1)
    if ((flat < -N) | (flat >= N)).any():
        raise IndexError(f"indices must lie in [{-N}, {N - 1}], got {int(flat.min())} to {int(flat.max())}")
    flat = torch.where(flat < 0, flat + N, flat)
    lanes = flat if row_index is None else _lanes(row_index, N)[flat]
    tiles = torch.div(lanes, lut.TILE_ROWS, rounding_mode="floor")
    # Decodes one tile per index, so that memory is bounded by the indices and not by the table.
    decoded = decode(
        codes[tiles],
        codebooks,
        tile_book[tiles],
        scales[tiles],
        row_scale[tiles],
        None,
        shape=(len(flat) * lut.TILE_ROWS, K),
        bits=bits,
    )
    rows = decoded.reshape(len(flat), lut.TILE_ROWS, K)[torch.arange(len(flat)), lanes % lut.TILE_ROWS]
    return rows.reshape(*indices.shape, K)


def _lanes(row_index: Tensor, n: int) -> Tensor:
    used = torch.nonzero(row_index >= 0)[:, 0]
    lanes = torch.empty(n, dtype=torch.int64, device=row_index.device)
    lanes[row_index[used].to(torch.int64)] = used
    return lanes


def _lut_conv2d(
    x: Tensor,
    codes: Tensor,
    codebooks: Tensor,
    tile_book: Tensor,
    scales: Tensor,
    row_scale: Tensor,
    row_index: Tensor | None,
    bias: Tensor | None,
    addend: Tensor | None,
    *,
    N: int,
    K: int,
    bits: int,
    block_size: int,
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
    weights = decode(codes, codebooks, tile_book, scales, row_scale, row_index, shape=(N, K), bits=bits)
    channels = x.shape[1] // group
    kernel = weights.reshape(N, *kernel_shape, -1)[..., :channels].permute(0, 3, 1, 2)
    return activated(added(convolved(images_for(x, compute), kernel, bias, strides, pads, dilations, group), addend), activation)


def _fake_matmul(x: Tensor, *_: Tensor | None, N: int, gated: int, **__: object) -> Tensor:
    return x.new_empty([*x.shape[:-1], N // 2 if gated else N])


def _fake_gather(indices: Tensor, *_: Tensor | None, K: int, **__: object) -> Tensor:
    return indices.new_empty([*indices.shape, K], dtype=torch.float32)


REFERENCES = {
    "lut_matmul": Reference(_lut_matmul, _fake_matmul),
    "lut_gather": Reference(_lut_gather, _fake_gather),
    "lut_conv2d": Reference(_lut_conv2d, fake_conv2d),
}
