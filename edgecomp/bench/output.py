"""Records as text: a Markdown table for people, CSV for spreadsheets, JSON and JSON lines with everything."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence

from edgecomp.bench.record import Record
from edgecomp.errors import ConfigError

MEBI = 1024 * 1024


def to_markdown(records: Sequence[Record]) -> str:
    """A table in the manner of llama-bench, one row per artifact; rows of invalid records carry `!` and their reasons follow."""
    heads = ["model", "size MiB", "backend", "threads", "test", "p50 ms", "p90 ms", "p99 ms", "inf/s", "cold load ms", "first ms"]
    heads += ["anon MiB", "file-backed MiB", "peak MiB"]
    lines = [_row(heads), _row(["---" if head in ("model", "backend", "test") else "---:" for head in heads])]
    lines += [_row(_cells(record)) for record in records]
    lines += [
        "",
        "anon and peak: above an empty session of the same process; file-backed: resident pages of the artifact's own files; "
        "percentiles by nearest rank; cold load: the process's first session of the model; first: its first inference.",
    ]
    lines += [f"! {record.artifact.name}: {reason}" for record in records for reason in record.validity.reasons]
    return "\n".join(lines) + "\n"


def _cells(record: Record) -> list[str]:
    latency, above = record.summary.latency, record.summary.above_empty_session
    return [
        record.artifact.name + ("" if record.validity.valid else " !"),
        f"{record.artifact.bytes / MEBI:.2f}",
        record.backend,
        str(record.options["threads"]),
        record.test,
        *(f"{value / 1e6:.3f}" for value in (latency.p50_ns, latency.p90_ns, latency.p99_ns)),
        f"{record.summary.throughput.inferences_per_second:.2f}",
        *(f"{value / 1e6:.3f}" for value in (record.summary.cold_load_ns, record.summary.first_inference_ns)),
        f"{above.anonymous_bytes / MEBI:.2f}",
        f"{record.summary.steady.artifact_file_backed_bytes / MEBI:.2f}",
        f"{above.peak_resident_bytes / MEBI:.2f}",
    ]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def to_csv(records: Sequence[Record]) -> str:
    """One line per artifact, in base units, raw samples left out."""
    text = io.StringIO()
    writer: csv.DictWriter[str] | None = None
    for record in records:
        row = _flat_row(record)
        if writer is None:
            writer = csv.DictWriter(text, list(row), lineterminator="\n")
            writer.writeheader()
        writer.writerow(row)
    return text.getvalue()


def _flat_row(record: Record) -> dict[str, object]:
    summary = record.summary
    latency = {key: value for key, value in summary.latency.model_dump().items() if key != "round_p50_ns"}
    above = {f"above_empty_{key}": value for key, value in summary.above_empty_session.model_dump().items()}
    steady = {f"steady_{key}": value for key, value in summary.steady.model_dump().items()}
    return {
        "model": record.artifact.name,
        "size_bytes": record.artifact.bytes,
        "backend": record.backend,
        "threads": record.options["threads"],
        "test": record.test,
        **latency,
        **summary.throughput.model_dump(),
        "cold_load_ns": summary.cold_load_ns,
        "warm_load_ns": summary.warm_load_ns,
        "first_inference_ns": summary.first_inference_ns,
        **steady,
        **above,
        "valid": record.validity.valid,
        "reasons": "; ".join(record.validity.reasons),
        "device": record.device,
        "cpu_model": record.environment.cpu_model,
        "created_utc": record.created_utc,
        "git_commit": record.environment.git_commit,
    }


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
