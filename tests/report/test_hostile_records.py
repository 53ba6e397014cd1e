"""Records with zeros, nulls, infinities, markup and missing parts: a page, or a message."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from report_records import BENCH, INSPECT, VERIFY

from edgecomp.errors import CheckpointError, EdgecompError
from edgecomp.report.page import render
from edgecomp.report.run_folder import load_runs

RECORDS = {"bench": BENCH, "verify": VERIFY, "inspect": INSPECT}
MISSING = "(missing)"
VALUES = [
    0,
    None,
    -1,
    1,
    2**62,
    2**63,
    10**30,
    1e308,
    float("inf"),
    -float("inf"),
    float("nan"),
    "",
    "<script>x</script>",
    [],
    {},
    MISSING,
]


@pytest.fixture(autouse=True)
def no_library_of_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four megabytes that every page holds."""
    monkeypatch.setattr("plotly.offline.get_plotlyjs", lambda: "")


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if path:
        yield path
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in entries:
        yield from places(entry, (*path, key))


def changed(value: Any, path: tuple[str | int, ...], new: Any) -> Any:
    copy = json.loads(json.dumps(value))
    target = copy
    for key in path[:-1]:
        target = target[key]
    if new == MISSING:
        del target[path[-1]]
    else:
        target[path[-1]] = new
    return copy


def page_of(folder: Path, **records: Any) -> str:
    for kind, value in (RECORDS | records).items():
        (folder / f"{kind}.json").write_text(json.dumps(value))
    runs = load_runs([folder])
    return render(runs, runs.records)


CASES = [(kind, path, value) for kind in RECORDS for path in places(RECORDS[kind]) for value in VALUES]
# Of some thousands, others in each run of the fuzz target; these are the ones that once ended with a traceback.
KNOWN = [
    ("bench", ("options",), {}),
    ("bench", ("options", "threads"), {}),
    ("bench", ("summary", "cold_load_ns"), None),
    ("bench", ("summary", "throughput"), None),
    ("bench", ("summary", "steady"), None),
    ("bench", ("summary", "latency", "round_p50_ns"), []),
    ("bench", ("summary", "latency", "p50_ns"), 0),
    ("bench", ("rounds",), []),
    ("bench", ("environment",), None),
    ("bench", ("artifact", "bytes"), 0),
    ("bench", ("operators", "inferences"), 0),
    ("bench", ("rounds", 0, "measurement", "batch"), 0),
    ("bench", ("rounds", 0, "measurement", "samples_ns"), [10**30]),
    ("verify", ("comparisons", 0, "outputs"), []),
    ("inspect", ("size", "parameters"), 0),
    ("inspect", ("size", "packed_bytes"), 0),
]


@pytest.mark.parametrize(("kind", "path", "value"), KNOWN, ids=lambda value: str(value)[-40:])
def test_known_records_make_a_page_or_a_message(tmp_path: Path, kind: str, path: tuple[str | int, ...], value: Any) -> None:
    try:
        page_of(tmp_path, **{kind: changed(RECORDS[kind], path, value)})
    except EdgecompError as error:
        assert isinstance(error, CheckpointError)


def test_some_of_all_records_make_a_page_or_a_message(tmp_path: Path) -> None:
    for kind, path, value in random.Random(0).sample(CASES, 40):
        try:
            page_of(tmp_path, **{kind: changed(RECORDS[kind], path, value)})
        except EdgecompError as error:
            assert isinstance(error, CheckpointError)


def test_whole_records_make_a_page(tmp_path: Path) -> None:
    assert "m.onnx" in page_of(tmp_path)
