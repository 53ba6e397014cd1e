"""One chart of memory: a small panel for each benchmark, all to one scale, drawn by the page's style sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgecomp.bench.record import MEBI, Memory, Record

MOMENTS = ("runtime loaded", "empty session", "model loaded", "first inference", "last sample")
# Class of the style sheet and name, from the bottom of a bar.
KINDS = (("anonymous", "anonymous"), ("own", "file-backed, the artifact's"), ("other", "file-backed, other"))


@dataclass(frozen=True)
class Panel:
    """A benchmark's last round.

    Args:
        label: of the record.
        bars: for each moment the MiB of each kind.
        steady: MiB resident at the end.
        peak: the most, after the empty session.

    """

    label: str
    bars: tuple[tuple[float, ...], ...]
    steady: float
    peak: float


@dataclass(frozen=True)
class Panels:
    """All of them, and the MiB of a bar of full height."""

    panels: tuple[Panel, ...]
    full: float


def panels_of(records: Sequence[Record]) -> Panels:
    """Panels of the records that have memory."""
    found = []
    for record in records:
        if not record.rounds or record.summary is None or record.summary.steady is None:
            continue
        trace = record.rounds[-1].measurement.memory
        readings: list[Memory] = [getattr(trace, name) for name in type(trace).model_fields]
        bars = tuple(tuple(max(size, 0) / MEBI for size in _kinds(reading)) for reading in readings)
        found.append(Panel(record.label, bars, sum(bars[-1]), max(trace.steady.peak_resident_bytes, 0) / MEBI))
    tallest = [max(panel.peak, *(sum(bar) for bar in panel.bars)) for panel in found]
    return Panels(tuple(found), max(tallest, default=0.0) or 1.0)


def _kinds(reading: Memory) -> tuple[int, int, int]:
    own = reading.artifact_file_backed_bytes
    return reading.anonymous_bytes, own, reading.file_backed_bytes - own
