"""Two runs of the same benchmarks: how much each figure changed, and whether the change is more than chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgecomp.bench.record import Record

RESAMPLES, CONFIDENCE, SEED = 1000, 0.95, 0
# A change smaller than this is none that anybody acts on, however certain it is.
LEAST_CHANGE = 0.02
_LARGEST_ROUND = 1000  # samples of a round that are resampled


@dataclass(frozen=True)
class Change:
    """A figure now, as a multiple of the figure before; `low` and `high` bound it with 95 % confidence, where it was sampled."""

    figure: str
    before: float
    now: float
    ratio: float
    low: float | None
    high: float | None

    @property
    def verdict(self) -> str:
        """`regression`, `improvement` or `no change`: the whole interval must lie beyond a change of 2 %."""
        low, high = (self.ratio, self.ratio) if self.low is None or self.high is None else (self.low, self.high)
        if low > 1 + LEAST_CHANGE:
            return "regression"
        return "improvement" if high < 1 - LEAST_CHANGE else "no change"


@dataclass(frozen=True)
class Comparison:
    """One benchmark in both runs."""

    label: str
    changes: tuple[Change, ...]
    valid: bool


def compare_records(records: Sequence[Record], baseline: Sequence[Record]) -> list[Comparison]:
    """Records of the same artifact name, device, test and threads, compared; those without a partner are left out."""
    before = {_key(record): record for record in baseline}
    return [
        Comparison(record.label, tuple(_changes(record, old)), record.validity.valid and old.validity.valid)
        for record in records
        if (old := before.get(_key(record))) is not None
    ]


def _key(record: Record) -> tuple[object, ...]:
    return record.artifact.name, record.device, record.test, record.options["threads"]


def _changes(now: Record, before: Record) -> list[Change]:
    changes = [_plain("file bytes", now.artifact.bytes, before.artifact.bytes)]
    new, old = now.summary, before.summary
    if new is None or old is None:
        return changes
    if new.latency is not None and old.latency is not None:
        low, high = p50_ratio(now, before)
        p50, p50_before = new.latency.p50_ns, old.latency.p50_ns
        changes.insert(0, Change("p50 ns", p50_before, p50, _ratio(p50, p50_before), low, high))
    if new.steady is not None and old.steady is not None:
        changes.append(_plain("anonymous bytes", new.steady.anonymous_bytes, old.steady.anonymous_bytes))
        changes.append(_plain("peak bytes", new.steady.peak_resident_bytes, old.steady.peak_resident_bytes))
    if new.instructions is not None and old.instructions is not None:
        changes.append(_plain("instructions", new.instructions, old.instructions))
    return changes


def _plain(figure: str, now: float, before: float) -> Change:
    return Change(figure, before, now, _ratio(now, before), None, None)


def _ratio(now: float, before: float) -> float:
    if before == 0:
        return 1.0 if now == 0 else math.inf
    return now / before


def _rounds(record: Record) -> list[np.ndarray]:
    """Each round's samples, evenly spaced by rank where there are many."""
    ordered = [np.sort(round_.measurement.samples_ns) for round_ in record.rounds]
    return [samples[:: -(-len(samples) // _LARGEST_ROUND)] for samples in ordered]


def p50_ratio(now: Record, before: Record) -> tuple[float, float]:
    """Bounds of the ratio of two records' medians by a bootstrap in two stages: rounds are drawn, then samples of each.

    Samples of one process resemble each other more than those of two, so drawing samples alone would promise too much (A. C.
    Davison, D. V. Hinkley, Bootstrap Methods and their Application, 1997, section 3.8).
    """
    random = np.random.default_rng(SEED)

    def median(rounds: Sequence[np.ndarray]) -> float:
        drawn = [rounds[index] for index in random.integers(0, len(rounds), len(rounds))]
        return float(np.median(np.concatenate([random.choice(samples, len(samples)) for samples in drawn])))

    ours, theirs = _rounds(now), _rounds(before)
    ratios = [median(ours) / median(theirs) for _ in range(RESAMPLES)]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(ratios, [tail, 1 - tail])
    return float(low), float(high)
