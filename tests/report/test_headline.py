"""The first screen: whose figures stand in the tiles, what they are held against, and what is said where there are none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from report_records import BENCH

from edgecomp.acceptance import Requirements, evidence_of, judge
from edgecomp.bench.record import Record
from edgecomp.config import parse
from edgecomp.exported.files import FileInfo
from edgecomp.report.headline import Headline, Tile, headline, ratio
from edgecomp.report.run_folder import Runs
from edgecomp.report.summary import to_markdown
from edgecomp.report.table import table_of
from edgecomp.verify import Comparison, Flips, Judgement, OutputDifference, Score, VerifyResult


def record(name: str, size: int, p50_us: int, *, own: bool = False, device: str = "local", **more: Any) -> Record:
    """A benchmark of a file of so many bytes and microseconds."""
    raw: dict[str, Any] = {**BENCH, "device": device, **more}
    raw["artifact"] = {**BENCH["artifact"], "name": name, "bytes": size, "uses_edgecomp": own}
    raw["artifact"]["files"] = [{"name": name, "bytes": size, "sha256": name}]
    if raw["summary"] is not None:
        raw["summary"] = {**raw["summary"], "latency": {**BENCH["summary"]["latency"], "p50_ns": 1000 * p50_us}}
    return Record.model_validate(raw)


def verified(name: str, relative: float, cosine: float, judgement: Judgement | None = None) -> VerifyResult:
    output = OutputDifference("y", 0.1, relative, cosine, 10, None, 0, 0, 0)
    files = (FileInfo(name=name, bytes=1, sha256=name),)
    compared = (Comparison("library", "reference", (output,)),)
    return VerifyResult(name, files, "l.so", 1, compared, None, "2026-01-01", judgement=judgement)


def tiles(found: Headline | None) -> dict[str, Tile]:
    assert found is not None
    return {tile.title: tile for tile in found.tiles}


def runs(more: Sequence[Record] = (), judgement: Judgement | None = None) -> Runs:
    return Runs(
        [
            record("float.onnx", 4000, 400),
            record("near.onnx", 1000, 300),
            record("quick.onnx", 2000, 200),
            record("ours.onnx", 500, 100, own=True),
            *more,
        ],
        [
            verified("float.onnx", 1e-6, 1.0),
            verified("near.onnx", 0.2, 0.98),
            verified("quick.onnx", 0.3, 0.95),
            verified("ours.onnx", 0.1, 0.99, judgement),
        ],
    )


def test_ours_stands_beside_the_original_and_the_twin_that_is_closest_to_it() -> None:
    found = headline(runs(), None, None)
    assert found is not None
    assert (found.subject, found.peers) == ("ours.onnx", (("original", "float.onnx"), ("best stock twin", "near.onnx")))
    size, quality, speed, memory, energy = found.tiles
    assert [what for what, _ in size.lines] == ["original float.onnx", "best stock twin near.onnx"]
    assert size.lines[0][1].startswith("8.00x smaller, ")
    assert (quality.value, quality.lines) == ("cosine 0.9900", (("best stock twin near.onnx", "0.9800"),))
    assert speed.value == "0.1 ms p50"
    told = dict(speed.lines)
    assert told["original float.onnx"].startswith("4.00x faster [")
    # The twin is the closest in quality; a stock file that is quicker than it is not kept back.
    assert told["fastest stock file quick.onnx"].startswith("2.00x faster [")
    assert memory.measured
    assert (energy.measured, energy.value) == (False, "not measured")


def test_what_is_worse_is_called_so() -> None:
    assert ratio(2.0, 1.0, "faster", "slower") == "2.00x slower"
    assert ratio(1.0, 1.0, "smaller", "larger") == "1.00x smaller"
    assert ratio(0, 1.0, "smaller", "larger") == "nothing to compare"


def test_quality_by_a_metric_tells_interval_flips_slices_and_perturbations() -> None:
    overall = Score("all", 200, 0.91, 0.87, 0.95, 0.93, -0.02, -0.04, 0.0, Flips(200, 7, 5, 1))
    dark = Score("dark", 50, 0.8, 0.7, 0.9, 0.9, -0.1, -0.2, 0.0)
    noise = Score("noise:0.1", 200, 0.85, 0.8, 0.9, 0.88, -0.01, -0.02, 0.0)
    tile = tiles(headline(runs(judgement=Judgement("accuracy", "library", overall, (dark,), (noise,))), None, None))["Quality"]
    assert tile.value == "accuracy 0.9100"
    assert dict(tile.lines) == {
        "original": "0.9300, a difference of -0.0200 [-0.0400, +0.0000]",
        "flips": "5 right to wrong, 1 back, of 200",
        "worst slice, dark": "0.8000, a difference of -0.1000",
        "noise:0.1": "-0.0100 beyond the original's own loss",
    }
    assert tile.caveats == ("200 examples; 95 % within [0.8700, 0.9500]",)


def test_doubts_stand_in_the_tiles_that_they_are_of() -> None:
    validity = {"valid": False, "reasons": ["it was hot"], "notes": []}
    emulated = {**BENCH["environment"], "emulation": "process"}
    hot = tiles(headline(Runs([record("m.onnx", 10, 1, own=True, validity=validity)]), None, None))
    assert hot["Speed"].caveats[0] == hot["Memory"].caveats[0] == "! m.onnx: it was hot"
    assert hot["Quality"].value == "not measured"
    slow = record("m.onnx", 10, 1, own=True, environment=emulated)
    assert slow.summary is not None
    nothing = {"latency": None, "steady": None, "above_empty_session": None}
    bare = slow.model_copy(update={"summary": slow.summary.model_copy(update=nothing)})
    assert tiles(headline(Runs([bare]), None, None))["Speed"].caveats == ("emulated: times and memory say nothing",)
    failed = {"rounds": [], "summary": None, "environment": None, "failure": "not reached", "validity": validity}
    assert tiles(headline(Runs([record("m.onnx", 10, 1, **failed)]), None, None))["Memory"].caveats == ("! not reached",)
    assert headline(Runs(), None, None) is None


def test_other_devices_and_energy() -> None:
    span = {"joules": 1.0, "duration_ns": 10**9, "updates": 100, "smallest_step": 0.1}
    energy = {
        "source": "RAPL",
        "counts": True,
        "inferences": 10,
        "idle": span,
        "busy": span,
        "joules": 0.02,
        "resolution_joules": 0.001,
    }
    refused = {**energy, "joules": None, "refusal": "the meter was slower than the run"}
    there = record("ours.onnx", 500, 900, own=True, device="ssh://pi")
    found = Runs(
        [
            record("ours.onnx", 500, 100, own=True, energy=energy),
            record("stock.onnx", 900, 90, energy={**energy, "joules": 0.03}),
            there,
        ]
    )
    assert dict(tiles(headline(found, None, None))["Speed"].lines)["on ssh://pi"] == "0.9 ms"
    tile = tiles(headline(found, None, None))["Energy"]
    assert (tile.value, tile.lines[0]) == ("20 mJ each", ("best stock twin stock.onnx", "1.50x less, 30 mJ"))
    assert tile.caveats == ("an inference above idle, by RAPL, resolved to 1 mJ",)
    tile = tiles(headline(Runs([record("m.onnx", 10, 1, energy=refused)]), None, None))["Energy"]
    assert tile.caveats == ("! refused: the meter was slower than the run",)


@pytest.mark.parametrize(("limit", "outcome"), [(0.05, "failed"), (0.5, "passed")])
def test_tiles_tell_what_became_of_their_requirements(limit: float, outcome: str) -> None:
    asked = [{"figure": "p50_ms", "max": limit}, {"figure": "joules", "max": 1}, {"figure": "cosine", "min": 0.9}]
    requirements = parse(Requirements, {"version": 1, "limits": asked}, "the requirements")
    found = runs()
    verdict = judge(requirements, evidence_of(found.records, found.verifications))
    told = {title: tile.outcome for title, tile in tiles(headline(found, requirements, verdict)).items()}
    assert told == {"Size": "", "Quality": "passed", "Speed": outcome, "Memory": "", "Energy": "not judged"}
    text = to_markdown("A model", headline(found, requirements, verdict), verdict, table_of(found))
    assert text.startswith(f"## A model\n\n{'FAILED' if outcome == 'failed' else 'NOT JUDGED'}: requirements")
    assert "| ours.onnx, " in text


def test_requirements_name_the_artifact_of_the_tiles() -> None:
    asked = {"version": 1, "artifact": "quick*", "limits": [{"figure": "bytes", "max": 10}]}
    found = headline(runs(), parse(Requirements, asked, "the requirements"), None)
    assert found is not None
    assert found.subject == "quick.onnx"


def test_columns_that_no_row_has_are_left_out() -> None:
    table = table_of(Runs([record("m|n.onnx", 1 << 20, 1)]))
    assert table.heads[:2] == ("files MiB", "p50 ms")
    assert "outputs differ" not in table.heads
    assert "| m\\|n.onnx, onnxruntime 1.32.0 + l.so, b1 s8 | 1.00 |" in table.to_markdown()
