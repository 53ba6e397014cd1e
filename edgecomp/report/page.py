"""Renders the report: `page.html.j2` filled with records, charts and plotly's script, so that the page needs no network."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import edgecomp
from edgecomp.acceptance import Requirements, Verdict, evidence_of, judge
from edgecomp.acceptance.requirements import shown
from edgecomp.bench.operators import condense
from edgecomp.bench.output import SHOWN_NOTES
from edgecomp.bench.record import MEBI, Record
from edgecomp.errors import RuntimeUnavailableError
from edgecomp.files import replace_file, require_writable_target
from edgecomp.report.comparison import compare_records
from edgecomp.report.headline import headline
from edgecomp.report.memory_panels import KINDS, MOMENTS, panels_of
from edgecomp.report.run_folder import Quality, Runs, load_runs, quality_of
from edgecomp.report.summary import to_markdown
from edgecomp.report.table import table_of
from edgecomp.size import compared

TEMPLATE = "page.html.j2"
# The button is there where it works: without scripts, and in print, it is not. A browser that gives no clipboard shows the text.
COPY_SCRIPT = """
const button = document.getElementById("copy"), text = document.getElementById("markdown");
button.hidden = false;
button.addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(text.textContent);
    button.textContent = "Copied";
  } catch {
    text.hidden = false;
    getSelection().selectAllChildren(text);
    button.textContent = "Selected: copy it from here";
  }
});
"""
_SCRIPT = re.compile(r"<script[^>]*>(.*?)</script>", re.DOTALL)  # of plotly's own markup, in which data has no "<"


def write_report(
    runs: Sequence[Path | Record] | Runs,
    output: Path,
    *,
    baseline: Sequence[Path | Record] = (),
    requirements: Requirements | None = None,
    overwrite: bool = False,
) -> Path:
    """Write one HTML page about run folders (see `edgecomp.report.run_folder`) or records.

    Args:
        runs: folders and records, in the order they are shown, or what `load_runs` read of them.
        output: the page.
        baseline: folders and records of an earlier run, which the records are compared with.
        requirements: what the page's first line says whether it holds.
        overwrite: whether an existing page may be replaced.

    Returns:
        `output`.

    Raises:
        OutputError: the page exists already, or cannot be written.
        ModelError: a folder is missing, or there is nothing to report.
        CheckpointError: a file of a folder is not valid.
        RuntimeUnavailableError: plotly or jinja2 is not installed.

    """
    require_writable_target(output, overwrite=overwrite)
    html = render(load_runs(runs), load_runs(baseline).records if baseline else [], requirements)
    with replace_file(output, overwrite=overwrite) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return output


def verdict_on(requirements: Requirements, runs: Runs) -> Verdict:
    """What becomes of requirements by all that a page shows."""
    return judge(requirements, evidence_of(runs.records, runs.verifications))


def render(runs: Runs, baseline: Sequence[Record] = (), requirements: Requirements | None = None) -> str:
    """The page as text.

    Raises:
        RuntimeUnavailableError: plotly or jinja2 is not installed.

    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
        from plotly.offline import get_plotlyjs

        from edgecomp.report import charts
    except ImportError as error:
        raise RuntimeUnavailableError(f"a report needs plotly and jinja2 ({error}): pip install edgecomp[report]") from error

    verdict = None if requirements is None else verdict_on(requirements, runs)
    first, table, title = headline(runs, requirements, verdict), table_of(runs), _title(runs)
    qualities = [_quality(runs, record) for record in runs.records]
    figures: dict[str, str] = {}
    drawn = {} if not runs.records else _record_charts(runs, qualities)
    figures |= {name: charts.to_html(figure, f"{name}-chart") for name, figure in drawn.items() if figure is not None}
    for index, inspection in enumerate(runs.inspections):
        figures[f"parts-{index}"] = charts.to_html(charts.parts_chart(inspection), f"parts-{index}")
        for field, axis in (("bits_per_weight", "bits per weight"), ("relative_error", "relative error")):
            chart = charts.layer_chart(inspection, field, axis)
            if chart is not None:
                figures[f"{field}-{index}"] = charts.to_html(chart, f"{field}-{index}")

    environment = Environment(loader=PackageLoader("edgecomp.report", "."), autoescape=True, undefined=StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    environment.filters |= {"mib": lambda value: f"{value / MEBI:.2f}", "ms": lambda value: f"{value / 1e6:.3f}"}
    plotly_script = get_plotlyjs()
    environment.filters["compared"] = compared
    return environment.get_template(TEMPLATE).render(
        policy=_policy([plotly_script, COPY_SCRIPT, *itertools.chain(*map(_SCRIPT.findall, figures.values()))]),
        title=title,
        verdict=verdict,
        headline=first,
        table=table,
        markdown=to_markdown(title, first, verdict, table),
        copy_script=COPY_SCRIPT,
        panels=panels_of(runs.records),
        memory_kinds=KINDS,
        memory_moments=MOMENTS,
        shown=shown,
        rows=[_row(runs, record, quality) for record, quality in zip(runs.records, qualities, strict=True)],
        devices=_devices(runs.records),
        runs=runs,
        comparisons=compare_records(runs.records, baseline),
        compared=bool(baseline),
        figures=figures,
        shown_notes=SHOWN_NOTES,
        raw=_raw_downloads(runs),
        plotly_script=plotly_script,
        version=edgecomp.__version__,
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _policy(scripts: Sequence[str]) -> str:
    """What a browser may load and run of the page: these scripts and nothing else, whatever markup a record should hold."""
    hashes = {base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"): None for script in scripts}
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    )


def _row(runs: Runs, record: Record, quality: Quality | None) -> dict[str, Any]:
    """A record as the template wants it; None for what the record does not have."""
    summary = record.summary
    return {
        "record": record,
        "quality": quality,
        "inspection": runs.inspection_of(record),
        "command": shlex.join(record.command),
        "latency": None if summary is None else summary.latency,
        "above": None if summary is None else summary.above_empty_session,
        "steady": None if summary is None else summary.steady,
        "operators": None if record.operators is None else condense(record.operators),
        "instructions": None if summary is None else summary.instructions,
    }


def _devices(records: Sequence[Record]) -> list[dict[str, Any]]:
    """The devices in the order of their first records, each with what it said of itself."""
    told: dict[str, Any] = {}
    for record in records:
        told[record.device] = told.get(record.device) or record.environment
    return [{"url": url, "environment": environment} for url, environment in told.items()]


def _record_charts(runs: Runs, qualities: Sequence[Quality | None]) -> dict[str, Any]:
    from edgecomp.report import charts

    found = {
        "size": charts.size_chart(runs.records),
        "latency": charts.latency_chart(runs.records),
    }
    return found | {f"quality-{name}": figure for name, figure in charts.quality_charts(runs.records, qualities).items()}


def _quality(runs: Runs, record: Record) -> Quality | None:
    result = runs.verification_of(record)
    return None if result is None else quality_of(result)


def _title(runs: Runs) -> str:
    # A folder of this machine says less than the name that the checkpoint was given.
    sources = dict.fromkeys(
        inspection.name.partition(".")[0] if inspection.source is None or _is_path(inspection.source) else inspection.source
        for inspection in runs.inspections
    )
    if sources:
        return f"{', '.join(sources)}, compressed"
    if not runs.records:
        return f"{len(runs.verifications)} artifacts, verified"
    devices = len({record.device for record in runs.records})
    artifacts = len(runs.records) // devices
    return f"{artifacts} artifact{'' if artifacts == 1 else 's'}, measured" + (f" on {devices} devices" if devices > 1 else "")


def _is_path(source: str) -> bool:
    return Path(source).is_absolute() or source.startswith(".") or Path(source).suffix in (".gguf", ".pt2")


def _raw_downloads(runs: Runs) -> list[dict[str, str]]:
    """The records as links that hold their own data."""
    contents: dict[str, list[Any]] = {
        "bench.json": [record.model_dump(mode="json") for record in runs.records],
        "verify.json": [result.to_json() for result in runs.verifications],
        "inspect.json": [inspection.to_json() for inspection in runs.inspections],
    }
    return [
        {"name": name, "count": str(len(values)), "data": base64.b64encode(json.dumps(values).encode()).decode("ascii")}
        for name, values in contents.items()
        if values
    ]
