"""What packed weights stand for, computed by other means than those that made them: the independent check of every pass."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import reduce

import torch
from torch import Tensor

from edgecomp import formats
from edgecomp.columns import ConvColumns, plan_output, stage_output
from edgecomp.tensor import ConvParams, Factor, LayerPlan

_CHUNK_WEIGHTS = 1 << 22
_PROBES = 4  # inputs of a convolution chain, which has no matrix of its own


def relative_error(factor: Factor, matrix: Tensor, columns: ConvColumns | None) -> float:
    """||unpacked - matrix|| / ||matrix||, in float64 over chunks of rows; 0 for a matrix of zeros that is kept.

    Args:
        factor: the packed matrix.
        matrix: what it was packed from, `[N, K]`, of any float type.
        columns: of a convolution: what stands in padding columns, which meet no input, does not count.

    """
    squares = size = 0.0
    for rows, weights in formats.unpack_rows(factor, _CHUNK_WEIGHTS):
        expected = matrix[torch.from_numpy(rows)].to(device="cpu", dtype=torch.float32)
        difference, norm = _squares(torch.from_numpy(weights), expected, columns)
        squares, size = squares + difference, size + norm
        del rows, weights, expected  # which would lie beside those of the next chunk
    return _ratio(squares, size)


def layer_error(plan: LayerPlan, factors: Mapping[str, Factor], original: Tensor, conv: ConvParams | None) -> float:
    """||reconstructed - original|| / ||original|| of a layer, its chains multiplied out and its terms added up.

    Chains of convolutions have no matrix: what they give for random inputs is compared instead.

    Args:
        plan: the layer's plan.
        factors: the factors that it names.
        original: the layer's own weight as a matrix `[N, K]`.
        conv: geometry of the layer, where it is a convolution.

    """
    if conv is not None and any(len(term) > 1 or term[0].conv != conv for term in plan.terms):
        return _output_error(plan, factors, original, conv)
    columns = None if conv is None else ConvColumns(conv)
    if len(plan.terms) == 1 and len(plan.terms[0]) == 1:
        return relative_error(factors[plan.terms[0][0].factor], original, columns)
    gathers = plan.terms[0][0].op == "gather"
    squares = size = 0.0
    rows = max(1, _CHUNK_WEIGHTS // original.shape[1])
    chains = [[torch.from_numpy(formats.unpack(factors[stage.factor])) for stage in term] for term in plan.terms]
    for first in range(0, len(original), rows):
        part = slice(first, first + rows)
        got = torch.stack([_multiplied(chain, part, gathers) for chain in chains]).sum(dim=0)
        difference, norm = _squares(got, original[part].float(), columns)
        squares, size = squares + difference, size + norm
    return _ratio(squares, size)


def _squares(got: Tensor, expected: Tensor, columns: ConvColumns | None) -> tuple[float, float]:
    """Sums over some rows: of squared differences, and of the squares of what is expected."""
    if columns is not None:
        got, expected = columns.kernel(got), columns.kernel(expected)
    return float((got - expected).double().square_().sum()), float(expected.double().square_().sum())


def _multiplied(chain: Sequence[Tensor], rows: slice, gathers: bool) -> Tensor:
    """Rows of the matrix that a chain multiplies by: of a table, or of the last factor, whose rows are outputs."""
    if gathers:
        return reduce(lambda value, matrix: value @ matrix.T, chain[1:], chain[0][rows])
    return reduce(lambda value, matrix: value @ matrix, chain[-2::-1], chain[-1][rows])


@torch.no_grad()
def _output_error(plan: LayerPlan, factors: Mapping[str, Factor], original: Tensor, conv: ConvParams) -> float:
    size = [3 * dilation * (kernel - 1) + 5 for kernel, dilation in zip(conv.kernel_size, conv.dilation, strict=True)]
    x = torch.randn(_PROBES, conv.in_channels, *size, generator=torch.Generator().manual_seed(0))
    expected = stage_output("conv", conv, original.float(), x)
    matrices = {stage.factor: torch.from_numpy(formats.unpack(factors[stage.factor])) for term in plan.terms for stage in term}
    total = plan_output(
        plan, x, None, lambda stage, value, bias: stage_output(stage.op, stage.conv, matrices[stage.factor], value, bias)
    )
    return _ratio(*_squares(total, expected, None))


def _ratio(squares: float, size: float) -> float:
    if size > 0:
        return math.sqrt(squares / size)
    return math.inf if squares > 0 else 0.0
