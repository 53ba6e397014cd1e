"""What was measured, figure by figure, with the artifact and the device that it is of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgecomp.bench.record import Record
from edgecomp.verify.labelled import Judgement, Score
from edgecomp.verify.result import REFERENCE, VerifyResult

LOCAL = "local"
_OF_AN_INFERENCE = ("p50_ms", "p90_ms", "p99_ms", "joules")


@dataclass(frozen=True)
class Evidence:
    """A figure as measured.

    Args:
        figure: key of `edgecomp.acceptance.requirements.FIGURES`.
        artifact: file name.
        device: where.
        value: the figure; None where it could not be judged.
        worst: the worse end of its 95 % interval; None where it has none.
        why: what is to be known of it: which slice, or why there is no value.
        metric: of figures of quality.
        own: whether the artifact calls operators of ours.

    """

    figure: str
    artifact: str
    device: str
    value: float | None
    worst: float | None = None
    why: str = ""
    metric: str | None = None
    own: bool = True


def evidence_of(records: Sequence[Record], verifications: Sequence[VerifyResult]) -> list[Evidence]:
    """All figures of benchmarks and verifications."""
    return [
        *(found for record in records for found in _of_record(record)),
        *(found for result in verifications for found in _of_verification(result)),
    ]


def _of_record(record: Record) -> Iterator[Evidence]:
    name, own = record.artifact.name, record.artifact.uses_edgecomp
    yield Evidence("bytes", name, record.device, record.artifact.bytes, own=own)
    summary = record.summary
    emulated = record.environment is not None and record.environment.emulation != "no"
    missing = "emulated: times and memory say nothing" if emulated else "the device failed"
    invalid = "" if record.validity.valid else f"the record is invalid: {record.validity.reasons[0]}"
    latency = None if summary is None else summary.latency
    memory = None if summary is None else summary.above_empty_session
    energy, growth = record.energy, None if record.endurance is None else record.endurance.growth_bytes_per_minute
    figures: dict[str, float | None] = {
        "p50_ms": None if latency is None else latency.p50_ns / 1e6,
        "p90_ms": None if latency is None else latency.p90_ns / 1e6,
        "p99_ms": None if latency is None else latency.p99_ns / 1e6,
        "load_ms": None if summary is None or summary.cold_load_ns is None else summary.cold_load_ns / 1e6,
        "peak_memory_bytes": None if memory is None else memory.peak_resident_bytes,
    }
    if record.endurance is not None:  # growth is itself a reason why a record is invalid
        why = f"{record.endurance.measured_s / 60:.0f} minutes" + (", too short to tell" if growth is None else "")
        yield Evidence("growth_bytes_per_minute", name, record.device, growth, why=why, own=own)
    whys = {figure: "" if value is not None else missing for figure, value in figures.items()}
    if energy is not None:
        figures["joules"], whys["joules"] = energy.joules, energy.refusal or energy.source
    for figure, value in figures.items():
        if record.token_test is not None and figure in _OF_AN_INFERENCE:
            continue  # its samples are of hundreds of tokens
        yield Evidence(figure, name, record.device, None if invalid else value, why=invalid or whys[figure], own=own)


def _of_verification(result: VerifyResult) -> Iterator[Evidence]:
    own = result.library is not None
    yield Evidence("bytes", result.artifact, LOCAL, sum(file.bytes for file in result.files), own=own)
    if result.against != REFERENCE:  # another artifact: what is lost to it says nothing of the original
        return
    yield from _closeness(result, own)
    if result.judgement is not None:
        yield from _of_judgement(result.judgement, result.artifact, own)


def _closeness(result: VerifyResult, own: bool) -> Iterator[Evidence]:
    comparison = next((comparison for comparison in result.comparisons if comparison.right == REFERENCE), None)
    for output in () if comparison is None else comparison.outputs:
        value = output.cosine if output.sentence_cosine is None else output.sentence_cosine
        yield Evidence("cosine", result.artifact, LOCAL, value, why=f"output {output.name}", own=own)
    values = {} if result.perplexity is None else dict(result.perplexity.values)
    reference = values.pop(REFERENCE, None)
    if reference and values:
        compared, perplexity = next(iter(values.items()))
        yield Evidence("perplexity_ratio", result.artifact, LOCAL, perplexity / reference, why=compared, own=own)


def _of_judgement(judgement: Judgement, artifact: str, own: bool) -> Iterator[Evidence]:
    def found(figure: str, value: float | None, worst: float | None, why: str = "") -> Evidence:
        return Evidence(figure, artifact, LOCAL, value, worst, why, judgement.metric, own)

    overall = judgement.overall
    few = _few(overall)
    yield found("quality", None if few else overall.value, overall.low, few)
    yield found("quality_loss", None if few else _less(overall.difference), _less(overall.difference_low), few)
    if overall.flips is not None:
        why = f"{overall.flips.to_wrong} right to wrong, {overall.flips.to_right} back, of {overall.flips.answers:,}"
        yield found("flips", None if few else overall.flips.rate, None, few or why)
    judged = [score for score in judgement.slices if score.judged]
    small = [score.name for score in judgement.slices if not score.judged]
    note = f"; too small to judge: {', '.join(small)}" if small else ""
    for score in judged:  # a requirement takes the worst of all that it is told, by value or by interval
        yield found("worst_slice", score.value, score.low, f"slice {score.name}{note}")
        yield found("worst_slice_loss", _less(score.difference), _less(score.difference_low), f"slice {score.name}{note}")
    if not judged and judgement.slices:
        for figure in ("worst_slice", "worst_slice_loss"):
            yield found(figure, None, None, "every slice is too small to judge")
    for score in judgement.perturbations:
        few = _few(score)
        yield found("perturbed_loss", None if few else _less(score.difference), _less(score.difference_low), few or score.name)


def _few(score: Score) -> str:
    return "" if score.judged else f"{score.examples} examples are too few to judge"


def _less(difference: float | None) -> float | None:
    """A loss, of the difference to the original; 0.0 for -0.0."""
    return None if difference is None else -difference + 0.0
