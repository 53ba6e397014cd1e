"""Method `lut-kmeans`: one weighted k-means codebook per matrix, with int8 block scales refitted to it.

For a matrix `W [N, K]` with column importances `h [K]` (the diagonal of XᵀX from calibration) it minimises

    sum over n, k of  h[k] (W[n, k] - codebook[code[n, k]] step[n, k / block_size])**2

over codes, codebook and steps in turn, each on the grid that is stored: int8 codebook entries, and steps that are int8 scales
times a float32 row scale. The start is the exact one-dimensional k-means of the normalised weights. With the whole of XᵀX instead
of its diagonal, what one column's rounding does other columns make good (`edgecomp.passes.compensation`). Rows may be sorted into
groups with a codebook each (`edgecomp.passes.lut_fit`). Kernels of depthwise convolutions and of few channels, which blocks do
not suit, have a step a row (`edgecomp.passes.narrow_fit`).

Source: S. Kim et al., "SqueezeLLM: Dense-and-Sparse Quantization", 2023, arXiv:2306.07629 (sensitivity-weighted k-means
codebooks). We deviate in the block scales, which it lacks, in weighting by activations instead of the Fisher information, and in
storing int8 entries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from edgecomp.config import LayerMatch, PassConfig, fits_any, require_patterns_used
from edgecomp.draft import Draft
from edgecomp.errors import ConfigError, FormatError
from edgecomp.formats import conv_format, lut, lut_narrow
from edgecomp.passes.base import PassContext
from edgecomp.passes.lut_fit import fit_lut
from edgecomp.passes.narrow_fit import fit_narrow
from edgecomp.resume import FinishedFactor


class LayerSettings(LayerMatch):
    """Settings for the layers that `match` names; what is absent keeps the pass's own value."""

    bits: int | None = Field(default=None, ge=1, le=8)
    block_size: int | None = Field(default=None, ge=32, le=lut.MAX_BLOCK_SIZE)


class LutKmeansConfig(PassConfig):
    """Settings of `lut-kmeans`.

    Args:
        bits: width of a code, 1 to 8.
        block_size: columns that share a scale, a multiple of 32. Halved, as long as it stays one, for a layer whose padded input
            width it does not divide; what does not divide it then is refused.
        weighting: `activations` weights errors by the mean square of each input, `hessian` by the whole XᵀX of the inputs, `none`
            weights all alike.
        refits: rounds of alternating refinement.
        books: codebooks of a matrix of 1 to 6 bits, at most: its rows are sorted by distribution into so many groups. The order of
            the rows is stored, 32 bits a row.
        largest_entry: magnitude of codebook entries of 1 to 6 bits, at most: the least-squares entry e is stored as
            clamp(round(e), -largest_entry, largest_entry), so that an entry is off by at most half of 1 / largest_entry of the
            largest. Processors that add up products of bytes in 16 bits (AVX2, ARM without the dot product) multiply smaller
            entries faster: with an offset of 64 or 32 an entry is an unsigned byte of at most 127 or 63, and 2 * 127 * 127 and
            4 * 63 * 127, the largest sums of two and four products, fit into 16 bits.
        skip: patterns of layers that stay as they are.
        layers: settings for some layers; of several that match, the last one counts. Tied layers share one matrix, which has what
            fits any of them.

    """

    method: Literal["lut-kmeans"] = "lut-kmeans"
    bits: int = Field(default=4, ge=1, le=8)
    block_size: int = Field(default=32, ge=32, le=lut.MAX_BLOCK_SIZE)
    weighting: Literal["activations", "hessian", "none"] = "activations"
    refits: int = Field(default=8, ge=0, le=1000)
    books: int = Field(default=1, ge=1, le=65535)
    largest_entry: Literal[31, 63, 127] = 127
    skip: list[str] = Field(default=[])
    layers: list[LayerSettings] = Field(default=[])


@dataclass(frozen=True)
class _Resolved:
    """The settings of one matrix."""

    bits: int
    block_size: int
    skip: bool


class LutKmeans:
    """Replaces every matrix of the draft by a `lut` factor, or one of a convolution with few channels by a `lut_narrow` one.

    Matrices that would not become smaller than float16 stay.
    """

    Config: ClassVar[type[PassConfig]] = LutKmeansConfig

    def __init__(self, config: LutKmeansConfig) -> None:
        self.config = config

    def run(self, draft: Draft, context: PassContext) -> None:
        """Pack the draft's matrices.

        Raises:
            ConfigError: a pattern fits no layer, or a block size does not fit.
            CalibrationError: activations are asked for and missing.

        """
        names = list(draft.plans)
        require_patterns_used(self.config.skip, names, "lut-kmeans skip")
        for group in self.config.layers:
            require_patterns_used(group.match, names, "lut-kmeans layers.match")
        work = {factor: self._settings_of(draft, factor) for factor in draft.matrices}
        work = {factor: settings for factor, settings in work.items() if not settings.skip}
        _require_block_sizes(draft, work)
        work = {factor: settings for factor, settings in work.items() if _saves_bytes(draft, factor, settings)}
        if self.config.weighting != "none":
            context.require_calibration(draft, work)
        # By weights: the embedding of a language model takes as long as a hundred of its other matrices.
        sizes = {factor: draft.matrices[factor].numel() for factor in work}
        for factor in context.progress(work, total=sum(sizes.values()), label="lut-kmeans", unit="weights", size=sizes.__getitem__):
            finished = context.finished(factor) or context.keep(factor, self._fit(draft, context, factor, work[factor]))
            draft.factors[factor], draft.records[factor] = finished
            del draft.matrices[factor]

    def _fit(self, draft: Draft, context: PassContext, factor: str, settings: _Resolved) -> FinishedFactor:
        importance = None
        if self.config.weighting == "activations":
            importance = context.input_energy(draft, factor)
        elif self.config.weighting == "hessian":
            importance = context.hessian(draft, factor)
        if _format_of(draft, factor, settings)[0] == lut_narrow.FORMAT:
            return _fit_narrow(draft, factor, importance, settings.bits, self.config.refits)
        fit = fit_lut(
            draft.matrices[factor].to(context.device),
            importance,
            bits=settings.bits,
            block_size=settings.block_size,
            refits=self.config.refits,
            real=_real_columns(draft, factor),
            books=self.config.books,
            largest_entry=self.config.largest_entry,
        )
        return FinishedFactor(fit.factor, {"relative_error": fit.relative_error, "weighted_error": fit.weighted_error})

    def _settings_of(self, draft: Draft, factor: str) -> _Resolved:
        """The settings of a matrix: what fits one of the layers that share it fits it."""
        layers = [draft.layers[use.layer] for use in draft.uses(factor)]
        bits, block_size = self.config.bits, self.config.block_size
        for group in self.config.layers:
            if any(group.matches(layer.name, layer.op) for layer in layers):
                bits = bits if group.bits is None else group.bits
                block_size = block_size if group.block_size is None else group.block_size
        skip = any(fits_any(layer.name, self.config.skip) for layer in layers)
        return _Resolved(bits=bits, block_size=_dividing(block_size, draft.matrices[factor].shape[1]), skip=skip)


def _dividing(block_size: int, k: int) -> int:
    """The block size or the first of its halves that divides the padded K; an odd number of spans has no half."""
    padded = lut.round_up(k, lut.SPAN_COLUMNS)
    while padded % block_size and block_size % (2 * lut.SPAN_COLUMNS) == 0:
        block_size //= 2
    return block_size


def _require_block_sizes(draft: Draft, work: dict[str, _Resolved]) -> None:
    """Check every layer before the first one is fitted: a long run must not end at its last layer."""
    for factor, settings in work.items():
        try:
            _format_of(draft, factor, settings)
        except FormatError as error:
            layer = draft.uses(factor)[0].layer
            raise ConfigError(
                f"layer {layer}: {error}; set another block_size, for this layer alone under passes.layers"
            ) from error


def _format_of(draft: Draft, factor: str, settings: _Resolved) -> tuple[str, int]:
    """The format that a matrix takes, and its bytes there."""
    n, k = draft.matrices[factor].shape
    conv = draft.layers[draft.uses(factor)[0].layer].conv
    if conv is None:
        return lut.FORMAT, lut.packed_bytes(n, k, settings.bits, settings.block_size)
    return conv_format(n, conv, settings.bits, settings.block_size)


def _saves_bytes(draft: Draft, factor: str, settings: _Resolved) -> bool:
    """Whether the packed form is smaller than float16: that of a few weights may not be, with its codebook and scales."""
    layer = draft.layers[draft.uses(factor)[0].layer]
    return _format_of(draft, factor, settings)[1] < 2 * layer.parameters


def _fit_narrow(draft: Draft, factor: str, importance: Tensor | None, bits: int, refits: int) -> FinishedFactor:
    """The columns that are no padding, as `lut_narrow`. Of a Hessian its diagonal: a row has too few columns to compensate in."""
    real = _real_columns(draft, factor)
    matrix = draft.matrices[factor].detach().float().cpu()
    if importance is not None:
        importance = (importance.diagonal() if importance.ndim == 2 else importance).float().cpu()
    if real is not None:
        matrix, importance = matrix[:, real], None if importance is None else importance[real]
    weights = matrix.numpy()
    column = None if importance is None else importance.numpy()
    packed = fit_narrow(weights, column, bits=bits, refits=refits)
    error = lut_narrow.unpack(packed) - weights

    def ratio(by: np.ndarray) -> float:
        return float(
            np.sqrt((by * error.astype(np.float64) ** 2).sum() / max((by * weights.astype(np.float64) ** 2).sum(), 1e-300))
        )

    plain = ratio(np.ones(weights.shape[1]))
    return FinishedFactor(packed, {"relative_error": plain, "weighted_error": plain if column is None else ratio(column)})


def _real_columns(draft: Draft, factor: str) -> Tensor | None:
    """Which columns are no padding channels of a convolution: bool `[K]`, or None where all are real."""
    conv = draft.layers[draft.uses(factor)[0].layer].conv
    if conv is None:
        return None
    channels = conv.in_channels // conv.groups
    return torch.arange(draft.matrices[factor].shape[1]) % lut.round_up(channels, lut.SPAN_COLUMNS) < channels
