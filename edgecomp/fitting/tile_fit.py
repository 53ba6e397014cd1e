"""The fit of a codebook, and of codes and scales given it, in PyTorch: for accelerators, and the reference of the C++ library.

Both compute the same to the bit (`runtimes/fitting`): sums of a block have one order, sums over blocks are of integers, and no
multiplication is fused with an addition. Weights are float32 `[N, blocks, block_size]` near 1; `importance` `[blocks, block_size]`.

A block's step, given codes, is that of least squares, `step = sum(h c w) / sum(h c²)` with `c` the entries. It takes
`sum(h c w)² / sum(h c²)`, its *gain*, from the block's `sum(h w²)`. The codebook, given steps, is the exact k-means of a histogram
of weights over their steps, on the integers that entries can be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from edgecomp.fitting import native_fit
from edgecomp.fitting.levels import Levels, divided, inverse_steps, nearest_codes, quantize_steps
from edgecomp.fitting.native_fit import PackedRows
from edgecomp.formats import lut

# Alternating least squares stop at the nearest local optimum: every round searches steps over a range of the block's largest
# weight, half of the candidates in its turn, and so does the final fit, more finely. Both try either sign.
_CANDIDATES = ((0.75, 0.91, 1.07, 1.22), (0.83, 0.99, 1.14, 1.3))
_FINE_CANDIDATES = (
    *(0.6, 0.64, 0.68, 0.72, 0.76, 0.8, 0.84, 0.88, 0.92, 0.96, 1.0),
    *(1.04, 1.08, 1.12, 1.16, 1.2, 1.24, 1.28, 1.32, 1.36, 1.4),
)
_STEP_REFITS = 2
_GRID = 127  # entries are integers of at most this magnitude
_FAR_POINT = 508  # and a histogram's targets of at most this
# How much further than to the centres entries go: codebook and steps follow each other, by little in a round and in one direction.
# What a large stride upsets, one without any puts right.
_STRIDES = (1.0, 4.0, 0.0)
_MASS_BITS = 26  # of the largest mass of a histogram at the start
_MOST_MASS = 2.0**30
_GAIN_UNIT = 2.0**-40
_CHUNK_WEIGHTS = 1 << 24  # enough to keep an accelerator busy


def fit_codebook(weights: Tensor, importance: Tensor, bits: int, refits: int, largest_entry: int) -> Tensor:
    """The best codebook met in `refits` rounds: float32 `[2**bits]` holding integers, ascending; all 255 of them for 8 bits."""
    if bits == 8:
        return torch.arange(-_GRID, _GRID + 1, dtype=torch.float32, device=weights.device)
    steps = divided(_largest(weights), _GRID)
    to_entries = float(np.float32(_GRID) / np.float32(largest_entry))
    bound = importance.max() * (steps.abs().max() * to_entries).square()
    exponent = int(torch.frexp(bound).exponent)
    scale = 2.0 ** min(max(_MASS_BITS - exponent, -126), 126) if bound > 0 else 0.0
    centres = _centres(weights, importance, steps, scale, bits)
    peak = np.abs(centres).max()
    now = _entries(centres * (largest_entry / peak if peak > 0 else 1.0), largest_entry)
    best, most = now, -1
    steps = steps * to_entries
    for refit in range(refits + 1) if refits and bound > 0 else ():
        codebook = torch.from_numpy(now).to(weights.device, torch.float32)
        steps, gains = _search(weights, importance, codebook, largest_entry, _CANDIDATES[refit % 2], steps)
        total = int((gains.double() / _GAIN_UNIT).round().long().sum())
        if total > most:
            best, most = now, total
        if refit < refits:
            centres = _centres(weights, importance, steps, scale, bits)
            now = _entries(centres + _STRIDES[refit % 3] * (centres - now), largest_entry)
    return torch.from_numpy(best).to(weights.device, torch.float32)


def fit_rows(weights: Tensor, importance: Tensor, codebook: Tensor, largest_entry: int) -> Levels:
    """Codes and scales given the codebook."""

    def fit(weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        steps = _search(weights, importance, codebook, largest_entry, _FINE_CANDIDATES)[0]
        for _ in range(_STEP_REFITS):
            steps = _refit_steps(weights, importance, codebook, steps)[0]
        scales, row_scale = quantize_steps(steps)
        targets = weights * inverse_steps(scales * row_scale[:, None])[..., None]
        return nearest_codes(codebook, targets), scales, row_scale

    codes, scales, row_scale = _by_rows(fit, weights)
    return Levels(codebook, codes, scales, row_scale)


def _by_rows(function: Callable[[Tensor], Sequence[Tensor]], weights: Tensor) -> list[Tensor]:
    """Results of `function` over chunks of rows, joined."""
    rows = max(1, _CHUNK_WEIGHTS // weights[0].numel())
    return [torch.cat(parts) for parts in zip(*map(function, weights.split(rows)), strict=True)]


def _largest(weights: Tensor) -> Tensor:
    """The weight largest in magnitude of each block, the positive one of two: `[N, blocks]`."""
    high, low = weights.amax(dim=2), weights.amin(dim=2)
    return torch.where(high >= -low, high, low)


def _block_sum(terms: Tensor) -> Tensor:
    """Sums over a block, the last dimension: four partial ones of every fourth column, then (0 + 2) + (1 + 3)."""
    quarters = terms.unflatten(-1, (-1, 4))
    total: Tensor = quarters[..., 0, :]
    for i in range(1, quarters.shape[-2]):
        total = total + quarters[..., i, :]
    summed: Tensor = (total[..., 0] + total[..., 2]) + (total[..., 1] + total[..., 3])
    return summed


def _refit_steps(weights: Tensor, importance: Tensor, codebook: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
    """Least-squares steps `[..., N, blocks]` of the codes that are nearest at `steps`, and their gains."""
    values = codebook[nearest_codes(codebook, weights * inverse_steps(steps)[..., None])]
    weighted = importance * values
    numerator, denominator = _block_sum(weighted * weights), _block_sum(weighted * values)
    some = denominator > 0
    return torch.where(some, numerator / denominator, 0), torch.where(some, numerator * numerator / denominator, 0)


def _search(
    weights: Tensor,
    importance: Tensor,
    codebook: Tensor,
    largest_entry: int,
    candidates: Sequence[float],
    present: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The best steps among the present ones and candidates of both signs, each refitted by least squares, and their gains."""
    base = divided(_largest(weights), largest_entry)
    starts = [base * (sign * candidate) for candidate in candidates for sign in (1, -1)]
    tried = torch.stack(starts if present is None else [present, *starts])
    most, best = torch.full_like(base, -1), torch.zeros_like(base)
    for some in tried.split(max(1, _CHUNK_WEIGHTS // weights.numel())):  # as many at once as keep an accelerator busy
        steps, gains = _refit_steps(weights, importance, codebook, some)
        gain, first = gains.max(dim=0)
        better = gain > most
        most, best = torch.where(better, gain, most), torch.where(better, steps.gather(0, first[None])[0], best)
    return best, most


def _centres(weights: Tensor, importance: Tensor, steps: Tensor, scale: float, bits: int) -> np.ndarray:
    """Centres of the weights over their steps: float64 `[2**bits]`, ascending.

    By the exact k-means of a histogram over the integers that entries can be. Targets beyond them count as the ends, which lie
    where their targets do on average. Masses `importance * step² * scale` are integers: their sums do not depend on an order.
    """
    targets = (weights * inverse_steps(steps)[..., None]).clamp(-_FAR_POINT, _FAR_POINT).round().long() + _FAR_POINT
    masses = (importance * (steps * steps)[..., None] * scale).clamp(max=_MOST_MASS).round().double()
    histogram = torch.bincount(targets.reshape(-1), weights=masses.reshape(-1), minlength=2 * _FAR_POINT + 1)
    low, mass, high = np.split(histogram.cpu().numpy().astype(np.int64), [_FAR_POINT - _GRID, _FAR_POINT + _GRID + 1])
    points = np.arange(-_GRID, _GRID + 1, dtype=np.float64)
    for end, sign, beyond in ((0, -1, low[::-1]), (-1, 1, high)):
        mass[end] += beyond.sum()
        if mass[end] > 0:
            points[end] += sign * (float((beyond * np.arange(1, len(beyond) + 1)).sum()) / float(mass[end]))
    return native_fit.kmeans(mass, points, 2**bits)


def _entries(centres: np.ndarray, largest_entry: int) -> np.ndarray:
    """Entries as they are stored: float64 integers, ascending."""
    return np.sort(np.clip(np.rint(centres), -largest_entry, largest_entry))


def normalised(weights: Tensor) -> Tensor:
    """Weights over the largest of their block: `[N, blocks, block_size]`."""
    largest = _largest(weights)[..., None]
    return torch.where(largest == 0, 0, weights / largest)


def pack_rows(
    weights: Tensor, levels: Levels, importance: Tensor, hessian: Tensor | None, out: PackedRows, *, bits: int, scale: float
) -> None:
    """Fitted rows as a `lut` factor holds them, packed on their own device, into `out`."""
    n, blocks, _ = weights.shape
    error = levels.weights - weights
    real = importance > 0
    if hessian is None:
        weighted = [(difference.square() * importance).double().sum() for difference in (error, weights)]
    else:
        flat = (error.flatten(1), weights.flatten(1))
        weighted = [((difference @ hessian) * difference).double().sum() for difference in flat]
    plain = [torch.where(real, difference, 0).square().double().sum() for difference in (error, weights)]
    codes = (levels.codebook[levels.codes] if bits >= 7 else levels.codes).to(torch.int8).view(torch.uint8)
    padding = 0 if bits >= 7 else int(levels.codebook.abs().argmin())
    codes = torch.where(real, codes, padding).to(torch.uint8).flatten(1)
    missing = -n % lut.TILE_ROWS
    codes = torch.nn.functional.pad(codes, (0, 0, 0, missing), value=padding)
    scales = torch.nn.functional.pad(levels.scales.to(torch.int8), (0, 0, 0, missing))
    row_scale = torch.nn.functional.pad(levels.row_scale / scale, (0, missing))
    out.codes[:] = _pack_planes(codes, bits).cpu().numpy()
    out.scales[:] = scales.reshape(-1, lut.TILE_ROWS, blocks).transpose(1, 2).cpu().numpy()
    out.row_scale[:] = row_scale.reshape(-1, lut.TILE_ROWS).cpu().numpy()
    out.squares[:] = torch.stack([*plain, *weighted]).cpu().numpy()


def _pack_planes(codes: Tensor, bits: int) -> Tensor:
    """Codes uint8 `[T*16, S*32]` to planes uint8 `[T, S, P, 16, 4]` (lut.md)."""
    tiles, spans = len(codes) // lut.TILE_ROWS, codes.shape[1] // lut.SPAN_COLUMNS
    groups = codes.reshape(tiles, lut.TILE_ROWS, spans, lut.COLUMN_GROUPS, 4).permute(3, 0, 2, 1, 4).contiguous()
    planes = torch.zeros((tiles, spans, lut.storage_bits(bits), lut.TILE_ROWS, 4), dtype=torch.uint8, device=codes.device)
    for i, positions in enumerate(lut.bit_positions(bits).tolist()):
        for b, (plane, position) in enumerate(positions):
            planes[:, :, plane] |= ((groups[i] >> b) & 1) << position
    return planes
