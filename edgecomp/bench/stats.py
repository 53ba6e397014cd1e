"""From raw samples to the figures of a record, and whether they may be quoted."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgecomp.bench.options import BenchOptions
from edgecomp.bench.record import Latency, Measurement, Memory, Summary, Throughput, Validity


def percentile(samples: Sequence[int], percent: float) -> int:
    """Nearest rank: the smallest sample that at least `percent` percent of the samples do not exceed."""
    ordered = sorted(samples)
    return ordered[max(math.ceil(percent / 100 * len(ordered)), 1) - 1]


def summarize(measurements: Sequence[Measurement]) -> Summary:
    """The summary of an artifact's rounds."""
    samples = [sample for measurement in measurements for sample in measurement.samples_ns]
    inferences = len(samples) / (sum(samples) / 1e9)
    batch, tokens = measurements[0].batch, measurements[0].tokens
    return Summary(
        latency=Latency(
            count=len(samples),
            min_ns=min(samples),
            p10_ns=percentile(samples, 10),
            p50_ns=percentile(samples, 50),
            p90_ns=percentile(samples, 90),
            p99_ns=percentile(samples, 99),
            max_ns=max(samples),
            mean_ns=sum(samples) / len(samples),
            round_p50_ns=[percentile(measurement.samples_ns, 50) for measurement in measurements],
        ),
        throughput=Throughput(
            inferences_per_second=inferences,
            items_per_second=inferences * (batch if tokens is None else tokens),
            item="input" if tokens is None else "token",
        ),
        cold_load_ns=percentile([m.load.cold_ns for m in measurements], 50),
        warm_load_ns=percentile([m.load.warm_ns for m in measurements], 50),
        first_inference_ns=percentile([m.first_inference_ns for m in measurements], 50),
        steady=_median([m.memory.steady for m in measurements]),
        above_empty_session=_median([_above_empty_session(m) for m in measurements]),
    )


def _above_empty_session(measurement: Measurement) -> Memory:
    empty, steady = measurement.memory.empty_session, measurement.memory.steady
    differences = {name: value - getattr(empty, name) for name, value in steady.model_dump().items()}
    # The empty session's own high-water mark holds the runtime's start-up, which the reset forgets.
    differences["peak_resident_bytes"] = steady.peak_resident_bytes - empty.resident_bytes
    return Memory(**differences)


def _median(readings: Sequence[Memory]) -> Memory:
    return Memory(**{name: percentile([getattr(reading, name) for reading in readings], 50) for name in Memory.model_fields})


def check_validity(measurements: Sequence[Measurement], summary: Summary, options: BenchOptions) -> Validity:
    """The rules of a record that may be quoted: enough samples and time in every round, and a spread within the bound."""
    reasons = []
    for number, measurement in enumerate(measurements, 1):
        if len(measurement.samples_ns) < options.min_iterations:
            reasons.append(f"round {number} took {len(measurement.samples_ns)} samples, fewer than {options.min_iterations}")
        if measurement.duration_ns < options.min_duration_s * 1e9:
            reasons.append(f"round {number} lasted {measurement.duration_ns / 1e9:.3f} s, less than {options.min_duration_s} s")
    latency = summary.latency
    spread = (latency.p90_ns - latency.p10_ns) / latency.p50_ns
    if spread > options.max_spread:
        reasons.append(f"spread of the samples (p90 - p10) / p50 is {spread:.3f}, above {options.max_spread}")
    fastest, slowest = min(latency.round_p50_ns), max(latency.round_p50_ns)
    drift = (slowest - fastest) / fastest
    if drift > options.max_spread:
        reasons.append(f"the rounds' p50 differ by {drift:.3f} of the fastest, above {options.max_spread}")
    return Validity(valid=not reasons, reasons=reasons, notes=_notes(measurements))


def _notes(measurements: Sequence[Measurement]) -> list[str]:
    notes = []
    cached = max(m.load.cached_bytes_before_cold for m in measurements)
    if not all(m.load.page_cache_dropped for m in measurements):
        notes.append("the page cache could not be dropped: the cold load may be warm")
    elif cached:
        notes.append(f"{cached} bytes stayed in the page cache before a cold load")
    if not all(m.peak_reset for m in measurements):
        notes.append("the peak could not be reset: it includes the runtime's start-up")
    return notes
