from __future__ import annotations

from typing import Any

import pytest

from edgecomp.bench.options import BenchOptions
from edgecomp.bench.record import Conditions, Load, Measurement, Memory, MemoryTrace, Parity, Round
from edgecomp.bench.stats import percentile, summarize
from edgecomp.bench.validity import check_validity
from edgecomp.errors import ConfigError


def memory(scale: int) -> Memory:
    return Memory(
        anonymous_bytes=10 * scale,
        file_backed_bytes=20 * scale,
        artifact_file_backed_bytes=scale,
        resident_bytes=30 * scale,
        pss_bytes=25 * scale,
        peak_resident_bytes=40 * scale,
    )


def round_of(
    samples: list[int], *, batch: int = 1, tokens: int | None = None, dropped: bool = True, cached: int = 0, **other: Any
) -> Round:
    fields = {name: other.pop(name) for name in list(other) if name in Measurement.model_fields}
    values: dict[str, Any] = {
        "runtime": "onnxruntime",
        "versions": {},
        "kernels": {},
        "inputs": {},
        "outputs": [],
        "batch": batch,
        "tokens": tokens,
        "load": Load(cold_ns=5, warm_ns=3, page_cache_dropped=dropped, cached_bytes_before_cold=cached),
        "first_inference_ns": 9,
        "warmup_ns": [],
        "samples_ns": samples,
        "duration_ns": sum(samples),
        "frequency_start_hz": None,
        "frequency_end_hz": None,
        "wall_clock_jump_ns": 0,
        "suspended_ns": 0,
        "memory": MemoryTrace(
            baseline=memory(1), empty_session=memory(2), loaded=memory(3), first_inference=memory(4), steady=memory(5)
        ),
        "peak_reset": True,
    }
    state = {"temperatures_celsius": {}, "frequencies_hz": [], "throttling": {}, "load_average_1min": 0.0}
    states = {name: Conditions(**{**state, **other.pop(name, {})}) for name in ("before", "after")}
    measured = Measurement(**{**values, **fields})
    return Round(**{"started_utc": "now", "cooled_s": 0.0, "measurement": measured, **states, **other})


@pytest.mark.parametrize(("percent", "expected"), [(50, 5), (90, 9), (99, 10), (100, 10), (10, 1), (0, 1), (51, 6)])
def test_percentiles_are_nearest_ranks(percent: float, expected: int) -> None:
    assert percentile([10, 9, 8, 7, 6, 5, 4, 3, 2, 1], percent) == expected


def test_percentiles_of_one_sample_are_that_sample() -> None:
    assert [percentile([42], percent) for percent in (0, 50, 99, 100)] == [42] * 4


def test_summary_joins_the_rounds() -> None:
    summary = summarize([round_of([100, 200], batch=4), round_of([300, 400], batch=4)])
    assert (summary.latency.count, summary.latency.p50_ns, summary.latency.p99_ns, summary.latency.mean_ns) == (4, 200, 400, 250)
    assert summary.latency.round_p50_ns == [100, 300]
    assert summary.throughput.inferences_per_second == pytest.approx(4 / 1000e-9)
    assert (summary.throughput.item, summary.throughput.items_per_second) == ("input", pytest.approx(4 * 4 / 1000e-9))


def test_tokens_are_the_items_where_the_model_takes_tokens() -> None:
    summary = summarize([round_of([1000], tokens=32)])
    assert (summary.throughput.item, summary.throughput.items_per_second) == ("token", pytest.approx(32 / 1e-6))


def test_memory_is_given_above_the_empty_session() -> None:
    above = summarize([round_of([1])]).above_empty_session
    assert above.anonymous_bytes == 10 * 5 - 10 * 2
    assert above.peak_resident_bytes == 40 * 5 - 30 * 2


def test_a_record_within_its_bounds_is_valid() -> None:
    rounds = [round_of([100] * 10)]
    options = BenchOptions(min_iterations=10, min_duration_s=0)
    assert check_validity(rounds, summarize(rounds), options).valid


def test_each_broken_rule_is_a_reason() -> None:
    rounds = [round_of([100, 100, 1000]), round_of([1000] * 3)]
    options = BenchOptions(min_iterations=5, min_duration_s=1, max_spread=0.5)
    validity = check_validity(rounds, summarize(rounds), options)
    assert not validity.valid
    assert [fragment for fragment in ("round 1 took 3", "round 2 took 3", "lasted", "(p90 - p10)", "rounds' p50 differ") if
            not any(fragment in reason for reason in validity.reasons)] == []  # fmt: skip


@pytest.mark.parametrize(("dropped", "cached", "note"), [(False, 0, "could not be dropped"), (True, 4096, "4096 bytes stayed")])
def test_a_load_that_is_not_cold_is_noted(dropped: bool, cached: int, note: str) -> None:
    rounds = [round_of([1], dropped=dropped, cached=cached)]
    validity = check_validity(rounds, summarize(rounds), BenchOptions(min_iterations=1, min_duration_s=0))
    assert validity.valid
    assert note in validity.notes[0]


def test_a_size_below_0_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="size past must be at least 0, got -1"):
        BenchOptions(sizes={"past": -1})


@pytest.mark.parametrize(
    "wrong", [{"threads": 0}, {"rounds": 0}, {"min_duration_s": 9.0, "max_duration_s": 1.0}, {"max_spread": -1.0}]
)
def test_options_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(reversed(wrong))):
        BenchOptions(**wrong)  # type: ignore[arg-type]


QUIET = BenchOptions(min_iterations=1, min_duration_s=0)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"before": {"temperatures_celsius": {"cpu": 84.0, "gpu": 60.0}}, "cooled_s": 120.0}, "began at 84.0 °C after 120 s"),
        ({"after": {"throttling": {"core_throttle_count": 3}}}, "core_throttle_count went from 0x0 to 0x3"),
        ({"before": {"throttling": {"get_throttled": 0x50005}}, "after": {"throttling": {"get_throttled": 0x50005}}}, "is 0x50005"),
        ({"frequency_start_hz": 1_800_000_000, "frequency_end_hz": 600_000_000}, "ended at 600 MHz and began at 1800 MHz"),
        ({"wall_clock_jump_ns": -3_600_000_000_000}, "clock jump by -3600.000 s"),
        ({"suspended_ns": 2_000_000_000}, "2.000 s of sleep"),
    ],
)
def test_a_device_that_cannot_be_trusted_is_a_reason(changed: dict[str, Any], reason: str) -> None:
    rounds = [round_of([100]), round_of([100], **changed)]
    validity = check_validity(rounds, summarize(rounds), QUIET)
    assert not validity.valid
    assert len(validity.reasons) == 1
    assert validity.reasons[0].startswith("round 2 ")
    assert reason in validity.reasons[0]


@pytest.mark.parametrize(
    "changed",
    [
        {"before": {"temperatures_celsius": {"cpu": 69.9}}},
        {"before": {"throttling": {"get_throttled": 0x50000}}, "after": {"throttling": {"get_throttled": 0x50000}}},  # of long ago
        {"frequency_start_hz": 1_800_000_000, "frequency_end_hz": 1_700_000_000},
        {"wall_clock_jump_ns": 9_000_000},
    ],
)
def test_what_is_within_the_bounds_is_no_reason(changed: dict[str, Any]) -> None:
    rounds = [round_of([100], **changed)]
    assert check_validity(rounds, summarize(rounds), QUIET).valid


def test_outputs_that_differ_too_much_are_a_reason() -> None:
    rounds = [round_of([100])]
    for difference, valid in ((0.049, True), (0.051, False), (None, False)):
        parity = Parity(reference="local", identical=False, relative_difference=difference)
        assert check_validity(rounds, summarize(rounds), QUIET, parity=parity).valid == valid


def test_what_an_emulator_falsifies_is_left_out() -> None:
    rounds = [round_of([100, 100], instructions=51)]
    machine, process = summarize(rounds, "machine"), summarize(rounds, "process")
    for summary in (machine, process):
        assert summary.latency is summary.throughput is summary.cold_load_ns is summary.first_inference_ns is None
        assert summary.instructions == 25
    assert machine.above_empty_session is not None
    assert process.above_empty_session is process.steady is None
    validity = check_validity(rounds, machine, BenchOptions(), "machine")  # the rules about times do not apply
    assert validity.valid
    assert validity.notes[0] == "emulated: times say nothing of a device and are left out"
    for options, hinted in ((QUIET, True), (BenchOptions(count_instructions=True), False)):
        note = check_validity(rounds, process, options, "process").notes[0]
        assert note.startswith("emulated: times and memory say nothing")
        assert note.endswith("--count instructions tells what an inference executes") == hinted
