"""Whether a record's figures may be quoted: the rules, each with the reason it gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgecomp.bench.long_runs import reasons_of_long_runs
from edgecomp.bench.options import BenchOptions
from edgecomp.bench.record import Endurance, Latency, Parity, Round, Sessions, Summary, Validity
from edgecomp.devices.base import Emulation

# A clock that is slewed by its time server moves by less; one that is set moves by more.
_LARGEST_CLOCK_JUMP_NS = 10_000_000
# A Raspberry Pi's flags of what is so now: under-voltage, frequency capped, throttled, at its soft temperature limit. The bits
# above say what has ever been so since it started.
_PI_FLAGS, _PI_NOW = "get_throttled", 0xF


def check_validity(
    rounds: Sequence[Round],
    summary: Summary | None,
    options: BenchOptions,
    emulation: Emulation = "no",
    *,
    parity: Parity | None = None,
    failure: str | None = None,
    endurance: Endurance | None = None,
    sessions: Sessions | None = None,
) -> Validity:
    """Apply the rules.

    Enough samples and time in every round, a spread within the bound, a device that was cool enough at the start, did not throttle,
    kept its frequency and its clock, and outputs like the first device's.
    """
    reasons = [] if failure is None else [failure]
    for number, round_ in enumerate(rounds, 1):
        timed = _reasons_of_times(round_, options) if emulation == "no" else ()
        reasons += [f"round {number} {reason}" for reason in (*timed, *_reasons_of_clocks(round_))]
    if summary is not None and summary.latency is not None:
        reasons += _reasons_of_spread(summary.latency, options)
    if parity is not None and (parity.relative_difference is None or parity.relative_difference > options.max_output_difference):
        found = "not finite" if parity.relative_difference is None else f"{parity.relative_difference:.2e}"
        reasons.append(f"outputs differ from those on {parity.reference}: {found}, above {options.max_output_difference}")
    reasons += reasons_of_long_runs(endurance, sessions)
    return Validity(valid=not reasons, reasons=reasons, notes=_notes(rounds, options, emulation))


def _reasons_of_times(round_: Round, options: BenchOptions) -> Iterator[str]:
    measured = round_.measurement
    if len(measured.samples_ns) < options.min_iterations:
        yield f"took {len(measured.samples_ns)} samples, fewer than {options.min_iterations}"
    if measured.duration_ns < options.min_duration_s * 1e9:
        yield f"lasted {measured.duration_ns / 1e9:.3f} s, less than {options.min_duration_s} s"
    hottest = round_.before.hottest_celsius
    if hottest is not None and hottest > options.max_start_celsius:
        yield f"began at {hottest:.1f} °C after {round_.cooled_s:.0f} s of cooling down, above {options.max_start_celsius} °C"
    yield from _throttling(round_)
    start, end = measured.frequency_start_hz, measured.frequency_end_hz
    if start is not None and end is not None and end < start * (1 - options.max_frequency_drop):
        yield f"ended at {end / 1e6:.0f} MHz and began at {start / 1e6:.0f} MHz, a fall of more than {options.max_frequency_drop}"


def _reasons_of_clocks(round_: Round) -> Iterator[str]:
    measured = round_.measurement
    if abs(measured.wall_clock_jump_ns) > _LARGEST_CLOCK_JUMP_NS:
        yield f"saw the device's clock jump by {measured.wall_clock_jump_ns / 1e9:+.3f} s"
    if measured.suspended_ns > _LARGEST_CLOCK_JUMP_NS:
        yield f"was interrupted by {measured.suspended_ns / 1e9:.3f} s of sleep"


def _throttling(round_: Round) -> Iterator[str]:
    for name, after in round_.after.throttling.items():
        before = round_.before.throttling.get(name, 0)
        if after != before:
            yield f"was throttled: {name} went from {before:#x} to {after:#x}"
        elif name == _PI_FLAGS and after & _PI_NOW:
            yield f"ran throttled: {name} is {after:#x}"


def _reasons_of_spread(latency: Latency, options: BenchOptions) -> Iterator[str]:
    spread = (latency.p90_ns - latency.p10_ns) / latency.p50_ns
    if spread > options.max_spread:
        yield f"spread of the samples (p90 - p10) / p50 is {spread:.3f}, above {options.max_spread}"
    fastest, slowest = min(latency.round_p50_ns), max(latency.round_p50_ns)
    drift = (slowest - fastest) / fastest
    if drift > options.max_spread:
        yield f"the rounds' p50 differ by {drift:.3f} of the fastest, above {options.max_spread}"


def _notes(rounds: Sequence[Round], options: BenchOptions, emulation: Emulation) -> list[str]:
    notes = []
    if emulation != "no":
        falsified = "times" if emulation == "machine" else "times and memory"
        counted = emulation == "machine" or options.count_instructions
        hint = "" if counted else "; --count instructions tells what an inference executes"
        notes.append(f"emulated: {falsified} say nothing of a device and are left out{hint}")
    measurements = [round_.measurement for round_ in rounds]
    cached = max((m.load.cached_bytes_before_cold for m in measurements), default=0)
    if not all(m.load.page_cache_dropped for m in measurements):
        notes.append("the page cache could not be dropped: the cold load may be warm")
    elif cached:
        notes.append(f"{cached} bytes stayed in the page cache before a cold load")
    if not all(m.peak_reset for m in measurements):
        notes.append("the peak could not be reset: it includes the runtime's start-up")
    return notes
