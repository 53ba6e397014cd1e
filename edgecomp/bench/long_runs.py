"""Long runs and energy: what the measuring program counted, turned into figures that may be quoted."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from statistics import median

from edgecomp.bench.record import Endurance, Energy, Interval, Segment, SessionMemory, Sessions

# Of anonymous memory. A leak of a hundred bytes an inference at 20 a second is as much.
LARGEST_GROWTH_PER_MINUTE = 100 * 1024
# Over a thousand sessions, more or less: what an allocator keeps differs by some pages.
LARGEST_SESSION_GROWTH = 100 * 1024
LEAST_INTERVALS = 5  # of a segment, its first left out, for a slope
LEAST_READINGS = 3  # of a half of the sessions, for a slope of its own
LEAST_UPDATES = 10  # of a meter during a run: what lies before the first and behind the last is not seen
_MINUTE_NS = 60e9


def endurance_of(asked_s: float, interval_s: float, segments: Sequence[Segment]) -> Endurance:
    """A long run with its slope of memory."""
    slopes = [slope for segment in segments for slope in _slopes(segment.intervals[1:])]
    growth = median(slopes) if slopes else None
    return Endurance(asked_s=asked_s, interval_s=interval_s, segments=list(segments), growth_bytes_per_minute=growth)


def _slopes(intervals: Sequence[Interval]) -> Iterator[float]:
    """Bytes a minute between every two intervals of a process (P. K. Sen, 1968): a median of them ignores single jumps."""
    if len(intervals) < LEAST_INTERVALS:
        return
    for later in range(1, len(intervals)):
        for earlier in range(later):
            grown = intervals[later].memory.anonymous_bytes - intervals[earlier].memory.anonymous_bytes
            yield grown / (intervals[later].elapsed_ns - intervals[earlier].elapsed_ns) * _MINUTE_NS


def sessions_of(told: Sessions) -> Sessions:
    """Sessions with their growth: the least median slope, of all and of both halves, times the sessions between first and last.

    What sessions leave behind grows all along. Single readings differ by what an allocator happens to keep: of a thousand
    sessions of MiniLM by 260 KB, up and down, and in ExecuTorch by one step of 352 KB after the 400th, the same in every run, and
    none without glibc's cache of freed blocks (`GLIBC_TUNABLES=glibc.malloc.tcache_count=0`).
    """
    readings, middle = told.memory, len(told.memory) // 2
    halves = [readings[:middle], readings[middle:]] if middle >= LEAST_READINGS else []
    slopes = [slope for part in (readings, *halves) if (slope := _session_slope(part)) is not None]
    between = readings[-1].after_sessions - readings[0].after_sessions
    return told.model_copy(update={"growth_bytes": round(min(slopes) * between) if slopes else None})


def _session_slope(readings: Sequence[SessionMemory]) -> float | None:
    """Bytes of anonymous memory a session, the median over all pairs of readings."""
    slopes = [
        (later.memory.anonymous_bytes - earlier.memory.anonymous_bytes) / (later.after_sessions - earlier.after_sessions)
        for earlier, later in itertools.combinations(readings, 2)
        if later.after_sessions > earlier.after_sessions
    ]
    return median(slopes) if slopes else None


def energy_of(told: Energy) -> Energy:
    """Energy of one inference, or why there is no such figure.

    `joules = (busy joules - idle watts x busy seconds) / inferences`
    """
    idle_watts = told.idle.joules / (told.idle.duration_ns / 1e9)
    busy_s = told.busy.duration_ns / 1e9
    joules = (told.busy.joules - idle_watts * busy_s) / told.inferences
    step = told.busy.smallest_step if told.counts else told.busy.smallest_step * busy_s
    refusal = None
    if told.busy.updates < LEAST_UPDATES:
        refusal = (
            f"{told.source} changed {told.busy.updates} times in {busy_s:.1f} s, and a figure wants {LEAST_UPDATES}: measure for "
            "longer (--energy-duration)"
        )
    elif joules <= 0:
        refusal = f"{told.source} counted no more than at rest: the machine did other things, or the run is too short"
    figures = {"joules": None if refusal else joules, "resolution_joules": step / told.inferences, "refusal": refusal}
    return told.model_copy(update=figures)


def reasons_of_long_runs(endurance: Endurance | None, sessions: Sessions | None) -> Iterator[str]:
    """Why a record's figures may not be quoted: it grows, or the long run is not whole."""
    if endurance is not None:
        growth = endurance.growth_bytes_per_minute
        if growth is not None and growth > LARGEST_GROWTH_PER_MINUTE:
            yield f"memory grows by {growth / 1024:.0f} KiB a minute, above {LARGEST_GROWTH_PER_MINUTE // 1024}"
        if endurance.measured_s < endurance.asked_s:
            lasted = f"{endurance.measured_s:.0f} s of {endurance.asked_s:.0f}"
            yield f"the long run lasted {lasted}: the same command with --resume goes on"
    if sessions is not None and sessions.growth_bytes is not None and sessions.growth_bytes > LARGEST_SESSION_GROWTH:
        yield (
            f"{sessions.sessions} sessions leave {sessions.growth_bytes / 1024:.0f} KiB behind, above "
            f"{LARGEST_SESSION_GROWTH // 1024}"
        )
