"""Records as text: a Markdown table for people, CSV for spreadsheets, JSON and JSON lines with everything."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pydantic import BaseModel

from edgecomp.bench.operators import condense
from edgecomp.bench.record import MEBI, Latency, Memory, OperatorTimes, Parity, Record, Throughput
from edgecomp.errors import ConfigError

_TEXTS = ("model", "device", "backend", "test")
_OF_SEVERAL = ("device", "outputs differ")
_LEFT, _RIGHT = ("model", "device", "size MiB", "backend", "threads", "test"), ("instructions", "outputs differ")
_HEADS = (
    *_LEFT,
    *("p50 ms", "p90 ms", "p99 ms", "inf/s", "cold load ms", "first ms", "anon MiB", "file-backed MiB", "peak MiB"),
    *_RIGHT,
)
_TOKEN_HEADS = (
    *_LEFT,
    *("t/s", "p10 t/s", "p90 t/s", "cold load ms", "first ms", "anon MiB", "cache MiB", "file-backed MiB", "peak MiB"),
    *("instructions/token", "outputs differ"),
)
_LEGEND = {
    False: "anon and peak: above an empty session of the same process; file-backed: resident pages of the artifact's own files; "
    "percentiles by nearest rank; cold load: the process's first session of the model; first: its first inference.",
    True: "t/s: by the median of all repetitions, p10 and p90 by theirs; tokens as llama-bench gives them: ppN all at once, tgN "
    "one after the other, behind those of the depth; cold load: the process's first session of the model; first: its first "
    "repetition; anon and peak: above an empty session, the cache included; file-backed: resident pages of the model's own files.",
}
_DIFFERENCE = " outputs differ: norm of the difference to the first device's, relative."
# Notes that explain what is missing begin with one of these; the others stay in the record and the report.
SHOWN_NOTES = ("emulated", "operators", "energy")


def to_markdown(records: Sequence[Record]) -> str:
    """A table in the manner of llama-bench, one row per record; rows of invalid records carry `!` and their reasons follow.

    Tests of language models have a table of their own. Where a figure does not exist (a device failed, or is emulated) stands `-`.
    """
    several = any(record.device != "local" for record in records)
    lines: list[str] = []
    for tokens, heads, cells_of in ((False, _HEADS, _cells), (True, _TOKEN_HEADS, _token_cells)):
        chosen = [record for record in records if (record.token_test is not None) == tokens]
        if chosen:
            lines += [*([""] if lines else []), *_table(chosen, heads, cells_of, several=several)]
            lines += ["", _LEGEND[tokens] + (_DIFFERENCE if several else "")]
    lines += [f"! {record.label}: {reason}" for record in records for reason in record.validity.reasons]
    lines += [f"  {record.label}: {note}" for record in records for note in record.validity.notes if note.startswith(SHOWN_NOTES)]
    for record in records:
        lines += list(_long_lines(record))
    timed = [(record.label, record.operators) for record in records if record.operators is not None]
    for label, times in timed:
        lines += ["", *_operator_lines(label, times)]
    if timed:
        lines += ["", "traced in processes of their own, which takes time itself: shares of an inference, not latencies"]
    return "\n".join(lines) + "\n"


def _table(
    records: Sequence[Record], heads: Sequence[str], cells_of: Callable[[Record], dict[str, str]], *, several: bool
) -> Iterator[str]:
    """The rows of records of one kind; columns of devices and of counts only where there are any."""
    counted = any(record.summary is not None and record.summary.instructions is not None for record in records)
    shown = [head for head in heads if (several or head not in _OF_SEVERAL) and (counted or not head.startswith("instructions"))]
    yield _row(shown)
    yield _row(["---" if head in _TEXTS else "---:" for head in shown])
    for record in records:
        cells = cells_of(record)
        yield _row([cells[head] for head in shown])


def _long_lines(record: Record) -> Iterator[str]:
    """A long run by its minutes, sessions and energy, where they were measured."""
    energy = record.energy
    if energy is not None and energy.joules is not None:
        watts = energy.idle.joules / (energy.idle.duration_ns / 1e9)
        yield ""
        yield (
            f"{record.label}: {energy.joules * 1e3:.3f} mJ an inference above {watts:.2f} W at rest, by {energy.source} "
            f"(resolution {(energy.resolution_joules or 0) * 1e3:.3g} mJ)"
        )
    if record.sessions is not None:
        grown = "-" if record.sessions.growth_bytes is None else f"{record.sessions.growth_bytes / 1024:.0f} KiB"
        yield ""
        yield f"{record.label}: {record.sessions.sessions:,} sessions opened, run and closed: {grown} of anonymous memory more"
    if record.endurance is None:
        return
    growth = record.endurance.growth_bytes_per_minute
    told = "too short to tell" if growth is None else f"{growth / 1024:+.1f} KiB a minute"
    yield ""
    yield f"{record.label}: {record.endurance.measured_s / 60:.1f} minutes, anonymous memory {told}"
    yield ""
    yield _row(["minute", "p50 ms", "p90 ms", "largest ms", "°C", "MHz", "anon MiB"])
    yield _row(["---:"] * 7)
    before_s = 0.0
    for segment in record.endurance.segments:
        for interval in segment.intervals:
            yield _row(
                [
                    f"{(before_s + interval.elapsed_ns / 1e9) / 60:.1f}",
                    *(_ms(value) for value in (interval.p50_ns, interval.p90_ns, interval.max_ns)),
                    "-" if interval.celsius is None else f"{interval.celsius:.1f}",
                    "-" if interval.frequency_hz is None else f"{interval.frequency_hz / 1e6:.0f}",
                    _mib(interval.memory.anonymous_bytes),
                ]
            )
        before_s += segment.intervals[-1].elapsed_ns / 1e9 if segment.intervals else 0
        if segment.failure is not None:
            yield f"! {segment.failure}"


def _operator_lines(label: str, times: OperatorTimes) -> Iterator[str]:
    """A table of the time by operator."""
    yield _row([label, "nodes", "ms an inference", "share"])
    yield _row(["---", "---:", "---:", "---:"])
    for time in condense(times):
        milliseconds, share = _ms(round(time.total_ns / times.inferences)), f"{100 * times.share(time):.1f} %"
        yield _row([time.operator, str(time.nodes or ""), milliseconds, share])


def _cells(record: Record) -> dict[str, str]:
    summary, parity = record.summary, record.parity
    latency, throughput = _of(summary, "latency"), _of(summary, "throughput")
    above, steady = _of(summary, "above_empty_session"), _of(summary, "steady")
    return {
        "model": record.artifact.name + ("" if record.validity.valid else " !"),
        "device": record.device,
        "size MiB": f"{record.artifact.bytes / MEBI:.2f}",
        "backend": record.backend,
        "threads": str(record.options["threads"]),
        "test": record.test,
        "p50 ms": _ms(_of(latency, "p50_ns")),
        "p90 ms": _ms(_of(latency, "p90_ns")),
        "p99 ms": _ms(_of(latency, "p99_ns")),
        "inf/s": "-" if throughput is None else f"{throughput.inferences_per_second:.2f}",
        "cold load ms": _ms(_of(summary, "cold_load_ns")),
        "first ms": _ms(_of(summary, "first_inference_ns")),
        "anon MiB": _mib(_of(above, "anonymous_bytes")),
        "file-backed MiB": _mib(_of(steady, "artifact_file_backed_bytes")),
        "peak MiB": _mib(_of(above, "peak_resident_bytes")),
        "instructions": "-" if summary is None or summary.instructions is None else f"{summary.instructions:,}",
        "outputs differ": "-" if parity is None else _difference(parity),
    }


def _token_cells(record: Record) -> dict[str, str]:
    """A test of a language model: rates of its tokens in the place of times."""
    test, summary = record.token_test, record.summary
    latency, instructions = _of(summary, "latency"), _of(summary, "instructions")
    tokens = 0 if test is None else test.tokens
    return _cells(record) | {
        "t/s": _rate(tokens, _of(latency, "p50_ns")),
        "p10 t/s": _rate(tokens, _of(latency, "p90_ns")),  # of the times, the slow ones
        "p90 t/s": _rate(tokens, _of(latency, "p10_ns")),
        "cache MiB": _mib(record.rounds[0].measurement.cache_bytes if record.rounds else None),
        "instructions/token": "-" if instructions is None else f"{instructions / tokens:,.0f}",
    }


def _rate(tokens: int, nanoseconds: int | None) -> str:
    return "-" if nanoseconds is None else f"{tokens / (nanoseconds / 1e9):.2f}"


def _of(value: BaseModel | None, name: str) -> Any:
    """A field of what may be absent."""
    return None if value is None else getattr(value, name)


def _ms(nanoseconds: int | None) -> str:
    return "-" if nanoseconds is None else f"{nanoseconds / 1e6:.3f}"


def _mib(size: int | None) -> str:
    return "-" if size is None else f"{size / MEBI:.2f}"


def _difference(parity: Parity) -> str:
    if parity.identical:
        return "0"
    return "not finite" if parity.relative_difference is None else f"{parity.relative_difference:.1e}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def to_csv(records: Sequence[Record]) -> str:
    """One line per record, in base units, raw samples left out; what does not exist is empty."""
    text = io.StringIO()
    rows = [_flat_row(record) for record in records]
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _flat_row(record: Record) -> dict[str, object]:
    summary, environment, parity = record.summary, record.environment, record.parity
    return {
        "model": record.artifact.name,
        "size_bytes": record.artifact.bytes,
        "backend": record.backend,
        "threads": record.options["threads"],
        "test": record.test,
        **_fields(Latency, _of(summary, "latency"), "", without="round_p50_ns"),
        **_fields(Throughput, _of(summary, "throughput"), ""),
        "cold_load_ns": _of(summary, "cold_load_ns"),
        "warm_load_ns": _of(summary, "warm_load_ns"),
        "first_inference_ns": _of(summary, "first_inference_ns"),
        **_fields(Memory, _of(summary, "steady"), "steady_"),
        **_fields(Memory, _of(summary, "above_empty_session"), "above_empty_"),
        "instructions": _of(summary, "instructions"),
        "relative_difference": _of(parity, "relative_difference"),
        "valid": record.validity.valid,
        "reasons": "; ".join(record.validity.reasons),
        "device": record.device,
        "emulation": _of(environment, "emulation"),
        "cpu_model": _of(environment, "cpu_model"),
        "created_utc": record.created_utc,
        "git_commit": _of(environment, "git_commit"),
    }


def _fields(kind: type[BaseModel], value: BaseModel | None, prefix: str, without: str = "") -> dict[str, object]:
    """The fields of `value`, or empty ones of its kind."""
    return {f"{prefix}{name}": _of(value, name) for name in kind.model_fields if name != without}


def to_json(records: Sequence[Record]) -> str:
    """A JSON array of whole records."""
    return json.dumps([record.model_dump(mode="json") for record in records], indent=1) + "\n"


def to_jsonl(records: Sequence[Record]) -> str:
    """A whole record per line."""
    return "".join(json.dumps(record.model_dump(mode="json")) + "\n" for record in records)


WRITERS: dict[str, Callable[[Sequence[Record]], str]] = {"md": to_markdown, "csv": to_csv, "json": to_json, "jsonl": to_jsonl}


def format_records(records: Sequence[Record], output_format: str) -> str:
    """The records in one of `WRITERS`' formats.

    Raises:
        ConfigError: no such format.

    """
    if output_format not in WRITERS:
        raise ConfigError(f"the output format must be one of {', '.join(WRITERS)}, got {output_format!r}")
    return WRITERS[output_format](records)
