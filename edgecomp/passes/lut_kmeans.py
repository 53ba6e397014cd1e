"""Method `lut-kmeans`: one weighted k-means codebook per matrix, with int8 block scales refitted to it.

For a matrix `W [N, K]` with column importances `h [K]` (the diagonal of XᵀX from calibration) it minimises

    sum over n, k of  h[k] (W[n, k] - codebook[code[n, k]] step[n, k / block_size])**2

over codes, codebook and steps in turn, each on the grid that is stored: int8 codebook entries, and steps that are int8 scales
times a float32 row scale. The start is the exact one-dimensional k-means of the normalised weights. With the whole of XᵀX instead
of its diagonal, what one column's rounding does other columns make good (`edgecomp.fitting.compensation`). Rows may be sorted into
groups with a codebook each (`edgecomp.fitting.lut_fit`). Kernels of depthwise convolutions and of few channels, which blocks do
not suit, have a step a row (`edgecomp.fitting.narrow_fit`).

Source: S. Kim et al., "SqueezeLLM: Dense-and-Sparse Quantization", 2023, arXiv:2306.07629 (sensitivity-weighted k-means
codebooks). We deviate in the block scales, which it lacks, in weighting by activations instead of the Fisher information, and in
storing int8 entries.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from edgecomp.columns import ConvColumns
from edgecomp.config import PassConfig, fits_any, require_patterns_used
from edgecomp.context import PassContext
from edgecomp.draft import Draft
from edgecomp.errors import ConfigError, FormatError, ModelError
from edgecomp.fitting.lut_fit import fit_lut, hessian_bytes
from edgecomp.fitting.narrow_fit import fit_narrow
from edgecomp.formats import conv_format, lut, lut_narrow
from edgecomp.memory import require_memory
from edgecomp.passes.base import Candidate
from edgecomp.resume import FinishedFactor
from edgecomp.settings.lut_kmeans import LutKmeansConfig
from edgecomp.statistics import StatisticKind
from edgecomp.tensor import Compute, Factor

_CANDIDATE_ROWS = 256
# Why a matrix is left as it is.
_SKIPPED = "skip of the recipe leaves them out"
_NO_SMALLER = "packed they would not be smaller than float16"


@dataclass(frozen=True)
class _Resolved:
    """The settings of one matrix."""

    bits: int
    narrow_bits: int
    block_size: int
    compute: Compute
    skip: bool


class LutKmeans:
    """Replaces every matrix of the draft by a `lut` factor, or one of a convolution with few channels by a `lut_narrow` one.

    Matrices that would not become smaller than float16 stay.
    """

    Config: ClassVar[type[PassConfig]] = LutKmeansConfig

    def __init__(self, config: LutKmeansConfig) -> None:
        self.config = config

    def prepare(self, draft: Draft, context: PassContext) -> None:
        """Refuse patterns that fit no layer, block sizes that fit no matrix, and calibration that is missing or misses a layer.

        Raises:
            ConfigError: a pattern fits no layer, a block size does not fit, or a Hessian is larger than memory.
            CalibrationError: activations are asked for and missing, or never reach a layer.

        """
        names = list(draft.plans)
        require_patterns_used(self.config.skip, names, "lut-kmeans skip")
        for group in self.config.layers:
            require_patterns_used(group.match, names, "lut-kmeans layers.match")
        work = self._work(draft)
        uses = [use for factor in work for use in draft.uses(factor)]
        multiplied = {use.layer: draft.stage(use).factor for use in uses if draft.stage(use).op != "gather"}
        if self.config.weighting != "none" and multiplied:
            context.require_calibration(
                f'lut-kmeans weights errors by activations (weighting = "{self.config.weighting}"; --set passes.N.weighting=none '
                "weights all alike) and needs calibration inputs"
            )
            self._require_memory(draft, context, multiplied)
            context.require_reached(multiplied)

    def _require_memory(self, draft: Draft, context: PassContext, factors: Mapping[str, str]) -> None:
        """Refuse Hessians that do not fit into memory, of layers and their factors."""
        if self.config.weighting != "hessian":
            return
        columns = {layer: _columns_of(draft, factor) for layer, factor in factors.items()}
        widest = max(columns, key=columns.__getitem__)
        require_memory(
            hessian_bytes(columns[widest]),
            f"weighting the errors of {widest} by a Hessian of {columns[widest]:,} columns",
            'weight them by its diagonal, weighting = "activations" (--set passes.N.weighting=activations), or leave the layer out '
            "with skip",
            context.device,
        )

    def requires(self, draft: Draft) -> None:
        """Refuse a draft without a matrix left to pack.

        Raises:
            ConfigError: every factor is packed already, or a block size does not fit.

        """
        if not draft.matrices:
            raise ConfigError("lut-kmeans packs matrices, and the passes before it have left none: leave it out of the recipe")
        self._work(draft)

    def run(self, draft: Draft, context: PassContext) -> None:
        """Pack the draft's matrices.

        Raises:
            CalibrationError: activations are asked for, and never reach a layer.

        """
        work = self._work(draft)
        left = dict.fromkeys(use.layer for factor in self._wanted(draft) if factor not in work for use in draft.uses(factor))
        if left:
            context.progress.say(f"lut-kmeans leaves as they are, since packed they would not be smaller: {', '.join(left)}")
        for factor in draft.matrices:
            if factor not in work:
                draft.left[factor] = _NO_SMALLER if factor in self._wanted(draft) else _SKIPPED
        for factor, settings in work.items():
            for layer in {use.layer for use in draft.uses(factor)}:
                draft.plans[layer] = replace(draft.plans[layer], compute=settings.compute)
        # By weights: the embedding of a language model takes as long as a hundred of its other matrices.
        sizes = {factor: draft.matrices[factor].numel() for factor in work}
        packed = self._packed(draft, context, work)
        for factor, finished in context.progress(
            packed, total=sum(sizes.values()), label="lut-kmeans", unit="weights", size=lambda item: sizes[item[0]]
        ):
            draft.finish(factor, finished.factor, finished.record)
        # They came in the order of the walk, or as an interrupted run had left them; later passes see one order.
        for factor in work:
            draft.factors[factor] = draft.factors.pop(factor)
            draft.records[factor] = draft.records.pop(factor)

    def foretell(self, draft: Draft) -> None:
        """The factors that `run` makes, without arrays."""
        for factor, settings in self._work(draft).items():
            kind, _ = _format_of(draft, factor, settings)
            bits = settings.narrow_bits if kind == lut_narrow.FORMAT else settings.bits
            attributes = {"bits": bits, "block_size": settings.block_size}
            draft.factors[factor] = Factor(kind, draft.shape(factor), attributes, {})
            del draft.matrices[factor]

    def ensures(self, draft: Draft) -> None:
        """Check that every matrix is packed, but for what was skipped or would grow.

        Raises:
            ModelError: one is left.

        """
        left = self._work(draft)
        if left:
            raise ModelError(f"lut-kmeans must pack every matrix that it works on, but left {', '.join(left)}")

    def candidates(self, draft: Draft, context: PassContext, layer: str) -> list[Candidate]:
        """What each width would make of a layer's own matrix, at the pass's other settings; errors are of a quick fit of some rows.

        Args:
            draft: the draft, in which the layer's matrix is not packed yet.
            context: unused here.
            layer: its name.

        """
        factor = draft.layers[layer].factor
        settings, columns = self._settings_of(draft, factor), draft.columns(factor)
        matrix = draft.matrices[factor]
        rows = matrix[:: max(1, len(matrix) // _CANDIDATE_ROWS)][:_CANDIDATE_ROWS]
        candidates = []
        for bits in range(1, 9):
            chosen = replace(settings, bits=bits, narrow_bits=bits)
            kind, size = _format_of(draft, factor, chosen)
            error = self._fit(rows, None, chosen, columns, kind, refits=0).record["relative_error"]
            made = {"bits": bits, "narrow_bits": bits, "block_size": settings.block_size}
            candidates.append(Candidate(made, size, error))
        return candidates

    def _packed(self, draft: Draft, context: PassContext, work: Mapping[str, _Resolved]) -> Iterator[tuple[str, FinishedFactor]]:
        """Each factor of `work`, what an interrupted run had finished first."""
        left = []
        for factor in work:
            finished = context.finished(factor)
            if finished is None:
                left.append(factor)
            else:
                yield factor, finished
        kinds: dict[str, StatisticKind] = {"activations": "energy", "hessian": "gram"}
        importances: Iterable[tuple[str, Tensor | None]] = ((factor, None) for factor in left)
        if self.config.weighting != "none":
            importances = context.inputs_of(draft, left, kinds[self.config.weighting])
        for factor, importance in importances:
            matrix, columns = draft.matrices[factor].to(context.device), draft.columns(factor)
            kind, _ = _format_of(draft, factor, work[factor])
            finished = self._fit(matrix, importance, work[factor], columns, kind, refits=self.config.refits)
            del matrix, importance  # which this loop would hold while the next unit runs
            yield factor, context.keep(factor, finished)

    def _fit(
        self,
        matrix: Tensor,
        importance: Tensor | None,
        settings: _Resolved,
        columns: ConvColumns | None,
        kind: str,
        *,
        refits: int,
    ) -> FinishedFactor:
        if kind == lut_narrow.FORMAT:
            return _fit_narrow(matrix, importance, settings.narrow_bits, refits)
        matrix, importance, real = _padded(matrix, importance, columns)
        fit = fit_lut(
            matrix,
            importance,
            bits=settings.bits,
            block_size=settings.block_size,
            refits=refits,
            real=real,
            books=self.config.books,
            largest_entry=self.config.largest_entry,
        )
        return FinishedFactor(fit.factor, {"relative_error": fit.relative_error, "weighted_error": fit.weighted_error})

    def _work(self, draft: Draft) -> dict[str, _Resolved]:
        """The matrices to pack, and how.

        Raises:
            ConfigError: a block size does not fit.

        """
        wanted = self._wanted(draft)
        _require_block_sizes(draft, wanted)
        return {factor: settings for factor, settings in wanted.items() if _saves_bytes(draft, factor, settings)}

    def _wanted(self, draft: Draft) -> dict[str, _Resolved]:
        """The matrices that are not skipped, smaller when they are packed or not."""
        settings = {factor: self._settings_of(draft, factor) for factor in draft.matrices}
        return {factor: resolved for factor, resolved in settings.items() if not resolved.skip}

    def _settings_of(self, draft: Draft, factor: str) -> _Resolved:
        """The settings of a matrix: what fits one of the layers that share it fits it."""
        layers = [draft.layers[use.layer] for use in draft.uses(factor)]
        groups = [group for group in self.config.layers if any(group.matches(layer.name, layer.op) for layer in layers)]

        def setting(name: str) -> Any:
            given = [value for group in groups if (value := getattr(group, name)) is not None]
            return given[-1] if given else getattr(self.config, name)

        skip = any(fits_any(layer.name, self.config.skip) for layer in layers)
        block_size = _dividing(setting("block_size"), _columns_of(draft, factor))
        return _Resolved(setting("bits"), setting("narrow_bits"), block_size, setting("compute"), skip)


def _columns_of(draft: Draft, factor: str) -> int:
    """Columns of a matrix as `lut` holds it."""
    columns = draft.columns(factor)
    return draft.shape(factor)[1] if columns is None else lut.conv_columns(columns.conv)


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
    n, k = draft.shape(factor)
    columns = draft.columns(factor)
    if columns is None:
        return lut.FORMAT, lut.packed_bytes(n, k, settings.bits, settings.block_size)
    return conv_format(n, columns.conv, settings.bits, settings.block_size, settings.narrow_bits)


def _saves_bytes(draft: Draft, factor: str, settings: _Resolved) -> bool:
    """Whether the packed form is smaller than float16: that of a few weights may not be, with its codebook and scales."""
    return _format_of(draft, factor, settings)[1] < 2 * draft.matrices[factor].numel()


def _fit_narrow(matrix: Tensor, importance: Tensor | None, bits: int, refits: int) -> FinishedFactor:
    """The matrix as `lut_narrow`. Of a Hessian its diagonal: a row has too few columns to compensate in."""
    weights = matrix.detach().float().cpu().numpy()
    if importance is not None and importance.ndim == 2:
        importance = importance.diagonal()
    column = None if importance is None else importance.float().cpu().numpy()
    packed = fit_narrow(weights, column, bits=bits, refits=refits)
    squares, sizes = ((lut_narrow.unpack(packed) - weights).astype(np.float64) ** 2, weights.astype(np.float64) ** 2)

    def ratio(by: np.ndarray) -> float:
        return float(np.sqrt((by * squares).sum() / max((by * sizes).sum(), 1e-300)))

    plain = ratio(np.ones(weights.shape[1]))
    return FinishedFactor(packed, {"relative_error": plain, "weighted_error": plain if column is None else ratio(column)})


def _padded(matrix: Tensor, importance: Tensor | None, columns: ConvColumns | None) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Matrix and importances with the columns that `lut` adds to a convolution, and which columns are none of them (None: all)."""
    if columns is None or not columns.padding:
        return matrix, importance, None
    if importance is not None:
        importance = columns.padded(importance)
        importance = columns.padded(importance.T) if importance.ndim == 2 else importance
    return columns.padded(matrix), importance, columns.real()
