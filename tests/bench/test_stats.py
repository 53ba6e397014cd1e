from __future__ import annotations

import pytest

from edgecomp.bench.options import BenchOptions
from edgecomp.bench.record import Load, Measurement, Memory, MemoryTrace
from edgecomp.bench.stats import check_validity, percentile, summarize
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


def measurement(
    samples: list[int], *, batch: int = 1, tokens: int | None = None, dropped: bool = True, cached: int = 0
) -> Measurement:
    return Measurement(
        runtime="onnxruntime",
        versions={},
        kernels={},
        inputs={},
        batch=batch,
        tokens=tokens,
        load=Load(cold_ns=5, warm_ns=3, page_cache_dropped=dropped, cached_bytes_before_cold=cached),
        first_inference_ns=9,
        warmup_ns=[],
        samples_ns=samples,
        duration_ns=sum(samples),
        memory=MemoryTrace(
            baseline=memory(1), empty_session=memory(2), loaded=memory(3), first_inference=memory(4), steady=memory(5)
        ),
        peak_reset=True,
    )


@pytest.mark.parametrize(("percent", "expected"), [(50, 5), (90, 9), (99, 10), (100, 10), (10, 1), (0, 1), (51, 6)])
def test_percentiles_are_nearest_ranks(percent: float, expected: int) -> None:
    assert percentile([10, 9, 8, 7, 6, 5, 4, 3, 2, 1], percent) == expected


def test_percentiles_of_one_sample_are_that_sample() -> None:
    assert [percentile([42], percent) for percent in (0, 50, 99, 100)] == [42] * 4


def test_summary_joins_the_rounds() -> None:
    summary = summarize([measurement([100, 200], batch=4), measurement([300, 400], batch=4)])
    assert (summary.latency.count, summary.latency.p50_ns, summary.latency.p99_ns, summary.latency.mean_ns) == (4, 200, 400, 250)
    assert summary.latency.round_p50_ns == [100, 300]
    assert summary.throughput.inferences_per_second == pytest.approx(4 / 1000e-9)
    assert (summary.throughput.item, summary.throughput.items_per_second) == ("input", pytest.approx(4 * 4 / 1000e-9))


def test_tokens_are_the_items_where_the_model_takes_tokens() -> None:
    summary = summarize([measurement([1000], tokens=32)])
    assert (summary.throughput.item, summary.throughput.items_per_second) == ("token", pytest.approx(32 / 1e-6))


def test_memory_is_given_above_the_empty_session() -> None:
    above = summarize([measurement([1])]).above_empty_session
    assert above.anonymous_bytes == 10 * 5 - 10 * 2
    assert above.peak_resident_bytes == 40 * 5 - 30 * 2


def test_a_record_within_its_bounds_is_valid() -> None:
    measurements = [measurement([100] * 10)]
    options = BenchOptions(min_iterations=10, min_duration_s=0)
    assert check_validity(measurements, summarize(measurements), options).valid


def test_each_broken_rule_is_a_reason() -> None:
    measurements = [measurement([100, 100, 1000]), measurement([1000] * 3)]
    options = BenchOptions(min_iterations=5, min_duration_s=1, max_spread=0.5)
    validity = check_validity(measurements, summarize(measurements), options)
    assert not validity.valid
    assert [fragment for fragment in ("round 1 took 3", "round 2 took 3", "lasted", "(p90 - p10)", "rounds' p50 differ") if
            not any(fragment in reason for reason in validity.reasons)] == []  # fmt: skip


@pytest.mark.parametrize(("dropped", "cached", "note"), [(False, 0, "could not be dropped"), (True, 4096, "4096 bytes stayed")])
def test_a_load_that_is_not_cold_is_noted(dropped: bool, cached: int, note: str) -> None:
    measurements = [measurement([1], dropped=dropped, cached=cached)]
    validity = check_validity(measurements, summarize(measurements), BenchOptions(min_iterations=1, min_duration_s=0))
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
