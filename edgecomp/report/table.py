"""The table of all artifacts: columns that some row has, for the page and for Markdown alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgecomp.bench.record import MEBI, Record
from edgecomp.report.run_folder import Quality, Runs, quality_of
from edgecomp.verify.labelled import Judgement

NONE = "-"


@dataclass(frozen=True)
class Cell:
    """A figure: what is shown, and its exact value."""

    text: str
    value: float | None = None
    doubtful: bool = False


@dataclass(frozen=True)
class Row:
    """A benchmark: the artifact, below it how it was run, and a cell for each column."""

    name: str
    how: str
    valid: bool
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """Heads of the columns behind the first, and the rows."""

    heads: tuple[str, ...]
    rows: tuple[Row, ...]

    def to_markdown(self) -> str:
        """The same in Markdown."""
        lines = [f"| artifact | {' | '.join(self.heads)} |", "| --- |" + " ---: |" * len(self.heads)]
        for row in self.rows:
            name = f"{row.name}{'' if row.valid else ' !'}, {row.how}".replace("|", "\\|")
            lines.append(f"| {name} | {' | '.join(cell.text for cell in row.cells)} |")
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class _Measured:
    """A record with what else is known of its artifact."""

    record: Record
    quality: Quality | None
    judgement: Judgement | None
    parameters: int | None


def table_of(runs: Runs) -> Table:
    """A row for each record, without the columns that no row has."""
    measured = []
    for record in runs.records:
        result, inspection = runs.verification_of(record), runs.inspection_of(record)
        measured.append(
            _Measured(
                record,
                None if result is None else quality_of(result),
                None if result is None else result.judgement,
                None if inspection is None else inspection.size.parameters,
            )
        )
    several = len({record.device for record in runs.records}) > 1
    columns = {head: [of(one) for one in measured] for head, of in _COLUMNS.items() if several or head != _DIFFER}
    columns = {head: cells for head, cells in columns.items() if any(cell is not None for cell in cells)}
    rows = tuple(
        Row(
            one.record.artifact.name,
            _how(one.record, several=several),
            one.record.validity.valid,
            tuple(cells[position] or Cell(NONE) for cells in columns.values()),
        )
        for position, one in enumerate(measured)
    )
    return Table(tuple(columns), rows)


def _how(record: Record, *, several: bool) -> str:
    threads = record.options["threads"]
    parts = [
        *([record.device] if several else []),
        *([record.backend] if record.backend != NONE else []),
        *([record.test] if record.test != NONE else []),
        *([f"{threads} threads"] if threads > 1 else []),
    ]
    return ", ".join(parts) or record.device


def _number(value: float | None, form: str, scale: float = 1.0) -> Cell | None:
    return None if value is None else Cell(format(value * scale, form), value)


def _bits(one: _Measured) -> Cell | None:
    return None if one.parameters is None else _number(8 * one.record.artifact.bytes / one.parameters, ".3f")


def _metric(one: _Measured) -> Cell | None:
    if one.judgement is None or one.judgement.overall.value is None:
        return None
    overall = one.judgement.overall
    interval = "" if overall.low is None or overall.high is None else f" [{overall.low:.4f}, {overall.high:.4f}]"
    return Cell(f"{one.judgement.metric} {overall.value:.4f}{interval}", overall.value, doubtful=not overall.judged)


def _of_quality(field: str, form: str) -> Callable[[_Measured], Cell | None]:
    return lambda one: None if one.quality is None else _number(getattr(one.quality, field), form)


def _time(field: str) -> Callable[[_Measured], Cell | None]:
    def cell(one: _Measured) -> Cell | None:
        latency = None if one.record.summary is None else one.record.summary.latency
        return None if latency is None else _number(getattr(latency, field), ".3f", 1e-6)

    return cell


def _memory(part: str, field: str) -> Callable[[_Measured], Cell | None]:
    def cell(one: _Measured) -> Cell | None:
        memory = None if one.record.summary is None else getattr(one.record.summary, part)
        return None if memory is None else _number(getattr(memory, field), ".2f", 1 / MEBI)

    return cell


def _energy(one: _Measured) -> Cell | None:
    return None if one.record.energy is None else _number(one.record.energy.joules, ".3g", 1000)


def _instructions(one: _Measured) -> Cell | None:
    return None if one.record.summary is None else _number(one.record.summary.instructions, ",")


def _parity(one: _Measured) -> Cell | None:
    parity = one.record.parity
    if parity is None:
        return None
    if parity.identical:
        return Cell("0", 0)
    if parity.relative_difference is None:
        return Cell("not finite", doubtful=True)
    return _number(parity.relative_difference, ".1e")


_DIFFER = "outputs differ"
_COLUMNS: dict[str, Callable[[_Measured], Cell | None]] = {
    "files MiB": lambda one: _number(one.record.artifact.bytes, ".2f", 1 / MEBI),
    "bits a weight": _bits,
    "metric": _metric,
    "cosine": _of_quality("cosine", ".4f"),
    "relative error": _of_quality("relative", ".2e"),
    "perplexity": _of_quality("perplexity", ".2f"),
    "p50 ms": _time("p50_ns"),
    "p90 ms": _time("p90_ns"),
    "p99 ms": _time("p99_ns"),
    "anonymous MiB": _memory("above_empty_session", "anonymous_bytes"),
    "file-backed MiB": _memory("steady", "artifact_file_backed_bytes"),
    "peak MiB": _memory("above_empty_session", "peak_resident_bytes"),
    "mJ": _energy,
    "instructions": _instructions,
    _DIFFER: _parity,
}
