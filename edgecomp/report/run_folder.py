"""Run folders: the JSON that benchmarks, verifications and inspections leave behind.

    runs/NAME/
        bench*.json      a `edgecomp.bench.record.Record`, or an array of them
        verify*.json     a `edgecomp.verify.VerifyResult`, or an array of them
        inspect*.json    a `edgecomp.inspect.result.Inspection`, or an array of them

Other files are ignored. A verification belongs to the benchmark whose artifact has the same files (SHA-256); an inspection to the
artifact with the same name up to the first dot.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from edgecomp.bench.record import Record
from edgecomp.bounded import read_json
from edgecomp.errors import CheckpointError, ModelError
from edgecomp.inspect.result import Inspection
from edgecomp.verify.result import REFERENCE, VerifyResult

_SCHEMAS: dict[str, TypeAdapter[Any]] = {
    "bench": TypeAdapter(Record),
    "verify": TypeAdapter(VerifyResult),
    "inspect": TypeAdapter(Inspection),
}
_INTEGER_BITS = 63  # what numpy and charts take
_VERSIONS = {"bench": 2, "verify": 1, "inspect": 1}


@dataclass
class Runs:
    """Everything that a report shows."""

    records: list[Record] = field(default_factory=list)
    verifications: list[VerifyResult] = field(default_factory=list)
    inspections: list[Inspection] = field(default_factory=list)

    def verification_of(self, record: Record) -> VerifyResult | None:
        """The latest verification of the very files that the record measured."""
        files = {file.sha256 for file in record.artifact.files}
        found = [result for result in self.verifications if {file.sha256 for file in result.files} == files]
        return max(found, key=lambda result: result.created_utc, default=None)

    def inspection_of(self, record: Record) -> Inspection | None:
        """The inspection of the model that the artifact was exported from, by name."""
        name = _stem(record.artifact.name)
        return next((inspection for inspection in self.inspections if _stem(inspection.name) == name), None)


@dataclass(frozen=True)
class Quality:
    """How close an artifact is to its reference; `compared` says which run of the artifact."""

    compared: str
    cosine: float | None
    cosine_of: str
    relative: float | None
    perplexity: float | None
    reference_perplexity: float | None


def quality_of(result: VerifyResult) -> Quality:
    """The figures of the first comparison with the reference: with the library, where there was one; of its first output."""
    comparison = next((comparison for comparison in result.comparisons if comparison.right == REFERENCE), None)
    output = None if comparison is None or not comparison.outputs else comparison.outputs[0]
    perplexities = {} if result.perplexity is None else dict(result.perplexity.values)
    reference = perplexities.pop(REFERENCE, None)
    compared, perplexity = next(iter(perplexities.items()), ("", None))
    sentences = output is not None and output.sentence_cosine is not None
    return Quality(
        compared=compared if comparison is None else comparison.left,
        cosine=None if output is None else (output.sentence_cosine if sentences else output.cosine),
        cosine_of="sentences" if sentences else "rows",
        relative=None if output is None else output.relative,
        perplexity=perplexity,
        reference_perplexity=reference,
    )


def load_runs(runs: Sequence[Path | Record] | Runs) -> Runs:
    """Read run folders and records.

    Raises:
        ModelError: no such folder.
        CheckpointError: a file is not what its name says, or of another version.

    """
    if isinstance(runs, Runs):
        return runs
    loaded = Runs()
    for run in runs:
        if isinstance(run, Record):
            loaded.records.append(run)
            continue
        if not run.is_dir():
            raise ModelError(f"no run folder at {run}: it must hold bench*.json, verify*.json or inspect*.json")
        loaded.records += _read(run, "bench")
        loaded.verifications += _read(run, "verify")
        loaded.inspections += _read(run, "inspect")
    if not (loaded.records or loaded.verifications or loaded.inspections):
        raise ModelError(f"nothing to report in {', '.join(map(str, runs))}: no bench*.json, verify*.json or inspect*.json")
    return loaded


def read_records(path: Path) -> list[Record]:
    """The benchmarks of one file.

    Raises:
        CheckpointError: it is not what its name says, or of another version.

    """
    return list(_read_file(path, "bench"))


def _read(folder: Path, kind: str) -> Iterator[Any]:
    for path in sorted(folder.glob(f"{kind}*.json")):
        yield from _read_file(path, kind)


def _read_file(path: Path, kind: str) -> Iterator[Any]:
    try:
        content = read_json(path, bits=_INTEGER_BITS)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    for value in content if isinstance(content, list) else [content]:
        found = (value.get("kind"), value.get("schema_version")) if isinstance(value, dict) else (None, None)
        if found != (kind, _VERSIONS[kind]):
            raise CheckpointError(
                f"{path} must hold {kind} records of schema version {_VERSIONS[kind]}, got kind {found[0]!r}, version {found[1]!r}"
            )
        try:
            record = _SCHEMAS[kind].validate_python(value)
        except ValidationError as error:
            raise CheckpointError(f"{path} is not a valid {kind} record: {error}") from error
        lacking = _lacking(record)
        if lacking is not None:
            raise CheckpointError(f"{path} is not a valid {kind} record: it must have {lacking}")
        yield record


def _lacking(record: Record | VerifyResult | Inspection) -> str | None:
    """What a record lacks of what its other parts promise; None where it is whole."""
    if isinstance(record, Inspection):
        return "parameters" if record.size.parameters < 1 else None
    if isinstance(record, VerifyResult):
        return None
    summary, threads = record.summary, record.options.get("threads")
    if not isinstance(threads, int) or threads < 1:
        return "a number of threads in its options"
    if bool(record.rounds) != (summary is not None) or (record.rounds and record.environment is None):
        return "rounds, a summary and an environment, or none of them"
    if summary is None:
        return None
    times = (summary.throughput, summary.cold_load_ns, summary.warm_load_ns, summary.first_inference_ns)
    if summary.latency is not None and (None in times or len(summary.latency.round_p50_ns) != len(record.rounds)):
        return "all times of every round, or none"
    if (summary.steady is None) != (summary.above_empty_session is None):
        return "steady memory, in itself and above an empty session, or none"
    return None


def _stem(name: str) -> str:
    return name.partition(".")[0]
