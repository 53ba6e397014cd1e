"""Codes and steps fitted to a whole Hessian: what one column's rounding does to the outputs, other columns make good.

With `H = XᵀX/M` of the layer's inputs, the mean square of the error of a row's output is

    (w' - w) H (w' - w)ᵀ        w the row's weights, w' = codebook[code] step

Codes are first given column by column, the error of each spread over the columns to come (GPTQ). Then, in turns, steps are refitted
by least squares and codes are chosen again by coordinate descent: each weight takes the entry nearest to what is best for it while
all others stay. The codebook stays as k-means made it: refitting it to H too gained less than 1 % of the error.

Sources: E. Frantar et al., "GPTQ", 2022, arXiv:2210.17323; K. Behdin et al., "QuantEase", 2023, arXiv:2309.01885, and J. Kim et
al., "GuidedQuant", 2025, arXiv:2505.07004 (its LNQ), for coordinate descent. We deviate in the grid, which is a codebook times
block steps.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from edgecomp.fitting.levels import Levels, inverse_steps, nearest_codes, quantize_steps

_ROUNDS = 2
_COLUMNS = 64  # whose effect on the columns behind them is applied at once
_SYSTEM_WEIGHTS = 1 << 24  # of the normal equations of the steps, solved at a time


def compensate(weights: Tensor, hessian: Tensor, levels: Levels) -> Levels:
    """Levels of a smaller error under `hessian`.

    Args:
        weights: float32 `[N, blocks, block_size]`.
        hessian: float32 `[K, K]`, K = blocks * block_size, positive definite.
        levels: the start.

    """
    best, least = levels, _squared_error(weights, hessian, levels)
    levels = replace(levels, codes=_spread(weights, hessian, levels))
    for _ in range(_ROUNDS):
        scales, row_scale = quantize_steps(_refit_steps(weights, hessian, levels))
        levels = replace(levels, scales=scales, row_scale=row_scale)
        levels = replace(levels, codes=_descend(weights, hessian, levels))
        error = _squared_error(weights, hessian, levels)
        if error < least:
            best, least = levels, error
    return best


def reversed_factor(hessian: Tensor) -> Tensor:
    """Lᵀ, upper triangular, where `L Lᵀ` is H with rows and columns in reverse order: float64 `[K, K]`, which is all that it needs.

    Raises:
        LinAlgError: H is not positive definite.

    """
    factor = hessian.flip(0, 1).double()
    lower = factor.mT  # in the order of LAPACK, which then needs no second array
    torch.linalg.cholesky(lower, out=lower)
    return factor


def hessian_factor(hessian: Tensor) -> Tensor:
    """R, upper triangular with `H = R Rᵀ`, for which the error of a row is `|(w' - w) R|²`: float32 `[K, K]`.

    The error is 0 where each column's is `(w' - w)_j R_jj = -sum over i < j of (w' - w)_i R_ij`, which is GPTQ's choice of codes.
    """
    factor: Tensor = reversed_factor(hessian).mT.flip(0, 1).float().contiguous()
    return factor


def _squared_error(weights: Tensor, hessian: Tensor, levels: Levels) -> float:
    error = (levels.weights - weights).flatten(1)
    return float(((error @ hessian) * error).double().sum())


class _Columns:
    """The levels a column at a time: the entry nearest to a target."""

    def __init__(self, levels: Levels) -> None:
        self._codebook = levels.codebook
        self._steps = levels.steps.T.contiguous()
        self._inverse = inverse_steps(self._steps)
        self._block_size = levels.codes.shape[2]

    def nearest(self, column: int, target: Tensor) -> tuple[Tensor, Tensor]:
        """Codes and weights `[N]` of the column nearest to the targets."""
        block = column // self._block_size
        codes = nearest_codes(self._codebook, target * self._inverse[block])
        return codes, self._codebook[codes] * self._steps[block]


def _spread(weights: Tensor, hessian: Tensor, levels: Levels) -> Tensor:
    """Codes given column by column, the error of each spread over those behind it: GPTQ."""
    factor = hessian_factor(hessian)
    columns, flat = _Columns(levels), weights.flatten(1)
    codes = torch.empty_like(flat, dtype=torch.int32)
    spread = torch.zeros_like(flat)  # of the errors before a column: their sum times `factor`
    for first in range(0, len(hessian), _COLUMNS):
        last = min(first + _COLUMNS, len(hessian))
        errors = torch.empty_like(flat[:, first:last])
        for column in range(first, last):
            codes[:, column], given = columns.nearest(column, flat[:, column] - spread[:, column] / factor[column, column])
            error = given - flat[:, column]
            spread[:, column:last] += error[:, None] * factor[column, column:last]
            errors[:, column - first] = error
        spread[:, last:] += errors @ factor[first:last, last:]
    return codes.reshape(weights.shape)


def _descend(weights: Tensor, hessian: Tensor, levels: Levels) -> Tensor:
    """Codes after a round of coordinate descent."""
    columns, given, codes = _Columns(levels), levels.weights.flatten(1), levels.codes.flatten(1).clone()
    gradient = (given - weights.flatten(1)) @ hessian
    for first in range(0, len(hessian), _COLUMNS):
        last = min(first + _COLUMNS, len(hessian))
        changes = torch.empty_like(given[:, first:last])
        for column in range(first, last):
            target = given[:, column] - gradient[:, column] / hessian[column, column]
            codes[:, column], chosen = columns.nearest(column, target)
            changes[:, column - first] = chosen - given[:, column]
            gradient[:, column:last] += changes[:, column - first, None] * hessian[column, column:last]
        gradient[:, last:] += changes @ hessian[first:last, last:]
    return codes.reshape(weights.shape)


def _refit_steps(weights: Tensor, hessian: Tensor, levels: Levels) -> Tensor:
    """Least-squares steps `[N, blocks]` given the codes.

    Blocks that are all 0, and rows without a solution in float32, keep theirs.
    """
    blocks, block_size = levels.codes.shape[1:]
    rows = max(1, _SYSTEM_WEIGHTS // max(blocks * blocks, len(hessian)))
    parts = []
    for chunk, codes, steps in zip(weights.split(rows), levels.codes.split(rows), levels.steps.split(rows), strict=True):
        values = levels.codebook[codes]
        flat = values.flatten(1)
        normal = torch.stack(
            [
                ((values[:, block] @ hessian[block * block_size : (block + 1) * block_size]) * flat)
                .reshape(values.shape)
                .sum(dim=2)
                for block in range(blocks)
            ],
            dim=1,
        )
        right = ((chunk.flatten(1) @ hessian).reshape(values.shape) * values).sum(dim=2)
        diagonal = normal.diagonal(dim1=1, dim2=2)
        empty = diagonal <= 0
        # A little is added: blocks whose inputs always come together could take each other's place without bounds.
        ridge = torch.where(empty, 1.0, 1e-4 * diagonal.mean(dim=1, keepdim=True))
        # By Cholesky: batches of LU factorisations of more than 144 columns never return with two threads (oneMKL in PyTorch 2.13).
        factor, failed = torch.linalg.cholesky_ex(normal + torch.diag_embed(ridge))
        solved = torch.cholesky_solve((right + torch.where(empty, 0, ridge * steps))[..., None], factor)[..., 0]
        parts.append(torch.where(empty | (failed > 0)[:, None], steps, solved))
    return torch.cat(parts)
