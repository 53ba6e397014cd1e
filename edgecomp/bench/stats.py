"""From raw samples to the figures of a record."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgecomp.bench.record import Latency, Measurement, Memory, Round, Summary, Throughput
from edgecomp.devices.base import Emulation


def percentile(samples: Sequence[int], percent: float) -> int:
    """Nearest rank: the smallest sample that at least `percent` percent of the samples do not exceed."""
    ordered = sorted(samples)
    return ordered[max(math.ceil(percent / 100 * len(ordered)), 1) - 1]


def relative_difference(values: np.ndarray, reference: np.ndarray) -> float:
    """||a - b|| / ||b||, b the reference: infinite for other shapes, or where b alone is nothing; NaN where a value is."""
    if values.shape != reference.shape:
        return np.inf
    left, right = values.astype(np.float64), reference.astype(np.float64)
    difference, norm = np.linalg.norm(left - right), np.linalg.norm(right)
    return 0.0 if difference == 0 else float(difference / norm) if norm > 0 else np.inf


def summarize(rounds: Sequence[Round], emulation: Emulation = "no", *, by_median: bool = False) -> Summary:
    """The summary of an artifact's rounds, without the figures that the emulation falsifies.

    `by_median`: whether rates are of the median of the samples, in the place of their mean.
    """
    measurements = [round_.measurement for round_ in rounds]
    timed, remembered = emulation == "no", emulation != "process"
    latency = _latency(measurements) if timed else None
    counted = [round_.instructions // len(round_.measurement.samples_ns) for round_ in rounds if round_.instructions is not None]
    return Summary(
        latency=latency,
        throughput=None if latency is None else _throughput(measurements, latency, by_median=by_median),
        cold_load_ns=percentile([m.load.cold_ns for m in measurements], 50) if timed else None,
        warm_load_ns=percentile([m.load.warm_ns for m in measurements], 50) if timed else None,
        first_inference_ns=percentile([m.first_inference_ns for m in measurements], 50) if timed else None,
        steady=_median([m.memory.steady for m in measurements]) if remembered else None,
        above_empty_session=_median([_above_empty_session(m) for m in measurements]) if remembered else None,
        instructions=percentile(counted, 50) if counted else None,
    )


def _latency(measurements: Sequence[Measurement]) -> Latency:
    samples = [sample for measurement in measurements for sample in measurement.samples_ns]
    return Latency(
        count=len(samples),
        min_ns=min(samples),
        p10_ns=percentile(samples, 10),
        p50_ns=percentile(samples, 50),
        p90_ns=percentile(samples, 90),
        p99_ns=percentile(samples, 99),
        max_ns=max(samples),
        mean_ns=sum(samples) / len(samples),
        round_p50_ns=[percentile(measurement.samples_ns, 50) for measurement in measurements],
    )


def _throughput(measurements: Sequence[Measurement], latency: Latency, *, by_median: bool) -> Throughput:
    inferences = 1e9 / (latency.p50_ns if by_median else latency.mean_ns)
    batch, tokens = measurements[0].batch, measurements[0].tokens
    return Throughput(
        inferences_per_second=inferences,
        items_per_second=inferences * (batch if tokens is None else tokens),
        item="input" if tokens is None else "token",
    )


def _above_empty_session(measurement: Measurement) -> Memory:
    empty, steady = measurement.memory.empty_session, measurement.memory.steady
    differences = {name: value - getattr(empty, name) for name, value in steady.model_dump().items()}
    # The empty session's own high-water mark holds the runtime's start-up, which the reset forgets.
    differences["peak_resident_bytes"] = steady.peak_resident_bytes - empty.resident_bytes
    return Memory(**differences)


def _median(readings: Sequence[Memory]) -> Memory:
    return Memory(**{name: percentile([getattr(reading, name) for reading in readings], 50) for name in Memory.model_fields})
