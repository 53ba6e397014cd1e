"""Method `lut-kmeans`: one weighted k-means codebook per matrix, with int8 block scales refitted to it.

For a matrix `W [N, K]` with column importances `h [K]` (the diagonal of XᵀX from calibration) it minimises

    sum over n, k of  h[k] (W[n, k] - codebook[code[n, k]] step[n, k / block_size])**2

over codes, codebook and steps in turn, each on the grid that is stored: int8 codebook entries, and steps that are int8 scales
times a float32 row scale. The start is the exact one-dimensional k-means of the normalised weights.

Source: S. Kim et al., "SqueezeLLM: Dense-and-Sparse Quantization", 2023, arXiv:2306.07629 (sensitivity-weighted k-means
codebooks). We deviate in the block scales, which it lacks, in weighting by activations instead of the Fisher information, and in
storing int8 entries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from edgecomp.config import LayerMatch, PassConfig, fits_any, require_patterns_used
from edgecomp.draft import Draft
from edgecomp.errors import ConfigError, FormatError
from edgecomp.formats import lut
from edgecomp.passes.base import PassContext
from edgecomp.passes.kmeans import kmeans_1d
from edgecomp.resume import FinishedFactor
from edgecomp.tensor import Factor

_HISTOGRAM_BINS = 1024
_TABLE_RESOLUTION = 8
_SMALLEST_STEP = 1e-30  # of weights near 1: a smaller step has no inverse in float32, and its block is 0
_CHUNK_WEIGHTS = 1 << 16  # what a processor's cache holds
_ACCELERATOR_CHUNK_WEIGHTS = 1 << 24  # enough to keep it busy
# Alternating refinement stops at the nearest local optimum: some rounds try steps over a range of the block's largest weight.
_SEARCH_REFITS = (0, 3)
_STEP_CANDIDATES = [sign * factor for factor in (0.75, 0.83, 0.91, 0.99, 1.07, 1.14, 1.22, 1.3) for sign in (1, -1)]


class LayerSettings(LayerMatch):
    """Settings for the layers that `match` names; what is absent keeps the pass's own value."""

    bits: int | None = Field(default=None, ge=1, le=8)
    block_size: int | None = Field(default=None, ge=32, le=lut.MAX_BLOCK_SIZE)


class LutKmeansConfig(PassConfig):
    """Settings of `lut-kmeans`.

    Args:
        bits: width of a code, 1 to 8.
        block_size: columns that share a scale, a multiple of 32 that divides every compressed layer's padded input width.
        weighting: `activations` weights errors by the mean square of each input, `none` weights all alike.
        refits: rounds of alternating refinement.
        skip: patterns of layers that stay as they are.
        layers: settings for some layers; of several that match, the last one counts. Tied layers share one matrix, which has what
            fits any of them.

    """

    method: Literal["lut-kmeans"] = "lut-kmeans"
    bits: int = Field(default=4, ge=1, le=8)
    block_size: int = Field(default=32, ge=32, le=lut.MAX_BLOCK_SIZE)
    weighting: Literal["activations", "none"] = "activations"
    refits: int = Field(default=8, ge=0, le=1000)
    skip: list[str] = Field(default=[])
    layers: list[LayerSettings] = Field(default=[])


@dataclass(frozen=True)
class _Resolved:
    """The settings of one matrix."""

    bits: int
    block_size: int
    skip: bool


class LutKmeans:
    """Replaces every matrix of the draft by a `lut` factor, but for those that would not become smaller than float16."""

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
        for factor in context.progress(work, total=len(work), label="lut-kmeans", unit="matrix"):
            finished = context.finished(factor) or context.keep(factor, self._fit(draft, context, factor, work[factor]))
            draft.factors[factor], draft.records[factor] = finished
            del draft.matrices[factor]

    def _fit(self, draft: Draft, context: PassContext, factor: str, settings: _Resolved) -> FinishedFactor:
        energy = context.input_energy(draft, factor) if self.config.weighting == "activations" else None
        fit = fit_lut(
            draft.matrices[factor].to(context.device),
            energy,
            bits=settings.bits,
            block_size=settings.block_size,
            refits=self.config.refits,
            real=_real_columns(draft, factor),
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
        return _Resolved(bits=bits, block_size=block_size, skip=skip)


def _require_block_sizes(draft: Draft, work: dict[str, _Resolved]) -> None:
    """Check every layer before the first one is fitted: a long run must not end at its last layer."""
    for factor, settings in work.items():
        n, k = draft.matrices[factor].shape
        try:
            lut.lut_sizes(n, k, settings.bits, settings.block_size)
        except FormatError as error:
            layer = draft.uses(factor)[0].layer
            raise ConfigError(
                f"layer {layer}: {error}; set another block_size, for this layer alone under passes.layers"
            ) from error


def _saves_bytes(draft: Draft, factor: str, settings: _Resolved) -> bool:
    """Whether the packed form is smaller than float16: depthwise and first convolutions are not, padded to 32 channels per tap."""
    n, k = draft.matrices[factor].shape
    layer = draft.layers[draft.uses(factor)[0].layer]
    return lut.packed_bytes(n, k, settings.bits, settings.block_size) < 2 * layer.parameters


def _real_columns(draft: Draft, factor: str) -> Tensor | None:
    """Which columns are no padding channels of a convolution: bool `[K]`, or None where all are real."""
    conv = draft.layers[draft.uses(factor)[0].layer].conv
    if conv is None:
        return None
    channels = conv.in_channels // conv.groups
    return torch.arange(draft.matrices[factor].shape[1]) % lut.round_up(channels, lut.SPAN_COLUMNS) < channels


@dataclass(frozen=True)
class LutFit:
    """A fitted factor; the errors are sqrt(sum of squared differences / sum of squared weights), plain and weighted by `h`."""

    factor: Factor
    relative_error: float
    weighted_error: float


def fit_lut(
    matrix: Tensor, energy: Tensor | None, *, bits: int, block_size: int, refits: int, real: Tensor | None = None
) -> LutFit:
    """Fit and pack one matrix.

    Args:
        matrix: `[N, K]`, any float dtype.
        energy: importances `[K]`, not negative; None weights all columns alike.
        bits: width of a code, 1 to 8.
        block_size: columns that share a scale.
        refits: rounds of alternating refinement.
        real: bool `[K]`, False for columns that are padding: they count nowhere and get the padding code; None: all are real.

    """
    n, k = matrix.shape
    padded = lut.round_up(k, lut.SPAN_COLUMNS)
    real = torch.ones(k, dtype=torch.bool) if real is None else real
    # Near 1, by a power of two, which changes no digit: squares of very large or small weights would leave float32.
    exponent = int(torch.frexp(matrix.detach().abs().max().float()).exponent.clamp(-126, 126))
    weights = torch.nn.functional.pad(matrix.detach().to(torch.float32) * 2.0**-exponent, (0, padded - k))
    weights = weights.reshape(n, -1, block_size)
    importance = _importance(energy, real.to(matrix.device), padded).reshape(-1, block_size)
    codebook, steps = _initial_levels(weights, importance, bits)
    scales, row_scale = _quantize_steps(steps)
    codes = _assign(weights, codebook, scales, row_scale)
    best = (_squared_error(weights, importance, codebook, codes, scales, row_scale), codebook, scales, row_scale)
    for refit in range(refits):
        codebook = _refit_codebook(weights, importance, codes, codebook, scales, row_scale)
        if refit in _SEARCH_REFITS:
            steps = _search_steps(weights, importance, codebook)
        else:
            codes = _assign(weights, codebook, scales, row_scale)
            steps = _refit_steps(weights, importance, codebook, codes)
        scales, row_scale = _quantize_steps(steps)
        codes = _assign(weights, codebook, scales, row_scale)
        squared_error = _squared_error(weights, importance, codebook, codes, scales, row_scale)
        if squared_error < best[0]:
            best = (squared_error, codebook, scales, row_scale)
    # Rounding to the stored grids can undo what a round gained.
    _, codebook, scales, row_scale = best
    codes = _assign(weights, codebook, scales, row_scale)
    values = codebook[codes]
    error = values * (scales * row_scale[:, None])[..., None] - weights
    # 7 and 8 bits store the values themselves (lut.md).
    stored = (values.to(torch.int16) if bits >= 7 else codes).reshape(n, -1)[:, :k].cpu().numpy()
    books = codebook.to(torch.int8).cpu().numpy()[None]
    stored[:, ~real.cpu().numpy()] = lut.padding_codes(books, bits)[0]
    factor = lut.pack(
        stored,
        books,
        scales.to(torch.int8).cpu().numpy(),
        row_scale.cpu().numpy() * np.float32(2.0**exponent),
        bits=bits,
        block_size=block_size,
    )
    return LutFit(factor, _ratio(error, weights, (importance > 0).float()), _ratio(error, weights, importance))


def _squared_error(
    weights: Tensor, importance: Tensor, codebook: Tensor, codes: Tensor, scales: Tensor, row_scale: Tensor
) -> float:
    """What `fit_lut` minimises."""

    def error(weights: Tensor, codes: Tensor, steps: Tensor) -> Tensor:
        return (importance * (weights - codebook[codes] * steps[..., None]).square()).sum(dim=(1, 2))

    return float(_by_rows(error, weights, codes, scales * row_scale[:, None]).double().sum())


def _ratio(error: Tensor, weights: Tensor, importance: Tensor) -> float:
    total = (weights.square() * importance).sum().item()
    return float(np.sqrt((error.square() * importance).sum().item() / total)) if total > 0 else 0.0


def _importance(energy: Tensor | None, real: Tensor, padded: int) -> Tensor:
    """Importances `[padded]` of mean 1 over the real columns, 0 in the padding.

    A hundredth of the mean is added: a column that calibration never excited still has to be kept.
    """
    if energy is None or not energy.any():
        energy = torch.ones_like(real)
    energy = energy.to(device=real.device, dtype=torch.float32)
    importance = torch.where(real, energy / energy[real].mean() + 0.01, 0)
    return torch.nn.functional.pad(importance, (0, padded - len(real)))


def _initial_levels(weights: Tensor, importance: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """A codebook (float32 holding int8 values, ascending) and steps `[N, blocks]` to start from.

    A block's step is its largest weight with its sign, so that the largest weight is always +1 and the codebook spends its entries
    on the rest.
    """
    largest = _largest(weights)
    if bits == 8:
        return torch.arange(-127, 128, dtype=torch.float32, device=weights.device), largest / 127
    normalised = torch.where(largest[..., None] == 0, 0, weights / largest[..., None]).clamp(-1, 1)
    mass = (importance * largest.square()[..., None]).reshape(-1)
    counts = torch.bincount(
        ((normalised.reshape(-1) + 1) * (_HISTOGRAM_BINS / 2)).to(torch.int64).clamp_(max=_HISTOGRAM_BINS - 1),
        weights=mass.to(torch.float64),
        minlength=_HISTOGRAM_BINS,
    )
    centres = (np.arange(_HISTOGRAM_BINS) + 0.5) * (2 / _HISTOGRAM_BINS) - 1
    entries = kmeans_1d(centres, counts.cpu().numpy(), 2**bits)
    peak = np.abs(entries).max()
    codebook = torch.from_numpy(np.rint(entries * (127 / peak))).to(weights.device, torch.float32)
    return codebook, largest * (float(peak) / 127)


def _largest(weights: Tensor) -> Tensor:
    """The weight largest in magnitude of each block, with its sign: `[N, blocks]`."""
    return weights.gather(2, weights.abs().argmax(dim=2, keepdim=True))[..., 0]


def _quantize_steps(steps: Tensor) -> tuple[Tensor, Tensor]:
    """Steps `[N, blocks]` as int8 scales (held in float32) times a row scale `[N]`."""
    largest = steps.abs().amax(dim=1)
    row_scale = torch.where(largest < _SMALLEST_STEP, 0, largest / 127)
    scales = torch.where(row_scale[:, None] > 0, steps / row_scale[:, None], 0)
    return scales.round().clamp(-127, 127), row_scale


def _assign(weights: Tensor, codebook: Tensor, scales: Tensor, row_scale: Tensor) -> Tensor:
    """Code of the nearest representable value of every weight, int32; blocks of scale 0 take the entry nearest 0."""
    nearest = _nearest_table(codebook)

    def assign(weights: Tensor, steps: Tensor) -> Tensor:
        return _look_up(nearest, weights, steps)

    return _by_rows(assign, weights, scales * row_scale[:, None])


def _nearest_table(codebook: Tensor) -> Tensor:
    """The nearest entry's code for every target from -128 to 128 in steps of 1 / _TABLE_RESOLUTION: int32.

    Looking up is several times faster than searching, and off by at most half of such a step.
    """
    targets = (torch.arange(256 * _TABLE_RESOLUTION, device=codebook.device) + 0.5) / _TABLE_RESOLUTION - 128
    return torch.bucketize(targets, (codebook[1:] + codebook[:-1]) / 2, out_int32=True)


def _look_up(table: Tensor, weights: Tensor, steps: Tensor) -> Tensor:
    """Entry of `table` (as `_nearest_table` lays it out) for weights `[N, blocks, block_size]` over steps `[N, blocks]`."""
    inverse = torch.where(steps.abs() < _SMALLEST_STEP, 0, 1 / steps)[..., None]
    position = torch.floor(weights * (inverse * _TABLE_RESOLUTION)).add_(128 * _TABLE_RESOLUTION)
    index = position.clamp_(0, len(table) - 1).to(torch.int32)
    return table.index_select(0, index.reshape(-1)).reshape(weights.shape)


def _by_rows(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """`function` over chunks of rows that fit in the processor's cache, its results joined."""
    chunk = _CHUNK_WEIGHTS if tensors[0].device.type == "cpu" else _ACCELERATOR_CHUNK_WEIGHTS
    rows = max(1, chunk // tensors[0][0].numel())
    return torch.cat([function(*part) for part in zip(*(tensor.split(rows) for tensor in tensors), strict=True)])


def _refit_codebook(
    weights: Tensor, importance: Tensor, codes: Tensor, codebook: Tensor, scales: Tensor, row_scale: Tensor
) -> Tensor:
    """Least-squares entries given codes and steps, on the int8 grid; entries without weight stay. 8 bits are the grid itself."""
    if len(codebook) > 128:
        return codebook
    steps = (scales * row_scale[:, None])[..., None]
    flat = codes.reshape(-1)
    numerator = torch.bincount(flat, weights=(importance * steps * weights).reshape(-1).double(), minlength=len(codebook))
    denominator = torch.bincount(
        flat, weights=(importance * steps.square()).expand_as(weights).reshape(-1).double(), minlength=len(codebook)
    )
    entries = torch.where(denominator > 0, numerator / denominator, codebook.double())
    return entries.round().clamp(-127, 127).float().sort().values


def _refit_steps(weights: Tensor, importance: Tensor, codebook: Tensor, codes: Tensor) -> Tensor:
    """Least-squares steps `[N, blocks]` given the codes of all weights."""

    def refit(weights: Tensor, codes: Tensor) -> Tensor:
        return _least_squares(weights, importance, codebook[codes])

    return _by_rows(refit, weights, codes)


def _least_squares(weights: Tensor, importance: Tensor, values: Tensor) -> Tensor:
    numerator = (importance * values * weights).sum(dim=2)
    denominator = (importance * values.square()).sum(dim=2)
    return torch.where(denominator > 0, numerator / denominator, 0)


def _search_steps(weights: Tensor, importance: Tensor, codebook: Tensor) -> Tensor:
    """The best step of each block among candidates of both signs, each refitted by least squares: `[N, blocks]`."""
    nearest_value = codebook[_nearest_table(codebook)]

    def search(weights: Tensor) -> Tensor:
        largest = _largest(weights) / 127
        best_error = torch.full_like(largest, torch.inf)
        best_steps = torch.zeros_like(largest)
        for factor in _STEP_CANDIDATES:
            values = _look_up(nearest_value, weights, largest * factor)
            steps = _least_squares(weights, importance, values)
            error = (importance * (weights - values * steps[..., None]).square()).sum(dim=2)
            better = error < best_error
            best_error = torch.where(better, error, best_error)
            best_steps = torch.where(better, steps, best_steps)
        return best_steps

    return _by_rows(search, weights)
