"""Records with zeros, nulls, infinities, markup and missing parts: a page, or a message."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgecomp.errors import CheckpointError, EdgecompError
from edgecomp.report.page import render
from edgecomp.report.run_folder import load_runs

FILE = {"name": "m.onnx", "bytes": 10, "sha256": "0"}
MEMORY = dict.fromkeys(
    ["anonymous_bytes", "file_backed_bytes", "artifact_file_backed_bytes", "resident_bytes", "pss_bytes", "peak_resident_bytes"],
    4096,
)
CONDITIONS = {"temperatures_celsius": {"cpu": 40.0}, "frequencies_hz": [10], "throttling": {}, "load_average_1min": 0.5}
MEASUREMENT = {
    "runtime": "onnxruntime", "versions": {"onnxruntime": "1.32.0"}, "kernels": {"lut_matmul": "avx2"},
    "inputs": {"x": "float32[1]"},
    "outputs": [{"name": "y", "type": "float32", "sha256": "0"}], "batch": 1, "tokens": 8,
    "load": {"cold_ns": 5, "warm_ns": 4, "page_cache_dropped": True, "cached_bytes_before_cold": 0},
    "first_inference_ns": 3, "warmup_ns": [2], "samples_ns": [5, 6, 7], "duration_ns": 18, "frequency_start_hz": 10,
    "frequency_end_hz": 10, "wall_clock_jump_ns": 0, "suspended_ns": 0,
    "memory": dict.fromkeys(("baseline", "empty_session", "loaded", "first_inference", "steady"), MEMORY), "peak_reset": True,
}  # fmt: skip
BENCH = {
    "kind": "bench", "schema_version": 2, "created_utc": "2026-01-01", "command": ["edgecomp"], "device": "local",
    "options": {"threads": 1},
    "artifact": {"name": "m.onnx", "bytes": 10, "files": [FILE], "uses_edgecomp": True,
                 "library": "l.so"},
    "environment": {"cpu_model": "c", "cpu_features": ["avx2"], "cpu_count": 2, "usable_cpus": 2, "memory_bytes": 100,
                    "governor": "g",
                    "board": "b", "system": "s", "kernel": "k", "architecture": "x86_64", "libc": "l", "emulation": "no",
                    "edgecomp_version": "0", "git_commit": None},
    "rounds": [{"started_utc": "2026-01-01", "cooled_s": 0.0, "before": CONDITIONS, "after": CONDITIONS, "measurement": MEASUREMENT,
                "instructions": 100}],
    "summary": {
        "latency": {"count": 3, "min_ns": 5, "p10_ns": 5, "p50_ns": 6, "p90_ns": 7, "p99_ns": 7, "max_ns": 7, "mean_ns": 6.0,
                    "round_p50_ns": [6]},
        "throughput": {"inferences_per_second": 1.0, "items_per_second": 8.0, "item": "token"},
        "cold_load_ns": 5, "warm_load_ns": 4, "first_inference_ns": 3, "steady": MEMORY, "above_empty_session": MEMORY,
        "instructions": 33,
    },
    "parity": {"reference": "local", "identical": False, "relative_difference": 0.1},
    "operators": {"inferences": 2, "total_ns": 100, "operators": [{"operator": "o", "nodes": 1, "calls": 2, "total_ns": 60}]},
    "failure": None, "validity": {"valid": True, "reasons": [], "notes": ["emulated"]},
}  # fmt: skip
OUTPUT = {"name": "y", "max_absolute": 0.1, "relative": 0.1, "cosine": 0.9, "rows": 2, "sentence_cosine": 0.9, "sentences": 2}
VERIFY = {
    "kind": "verify", "schema_version": 1, "artifact": "m.onnx", "files": [FILE],
    "library": "l.so", "batches": 1, "comparisons": [{"left": "library", "right": "reference", "outputs": [OUTPUT]}],
    "perplexity": {"window": 8, "windows": 1, "tokens": 7, "values": {"library": 3.0, "reference": 2.0},
                   "divergences": {"library": 0.1}},
    "created_utc": "2026-01-01", "failures": ["f"],
}  # fmt: skip
INSPECT = {
    "kind": "inspect", "schema_version": 1, "name": "m.ec", "source": "s", "recipe": {"name": "r"},
    "layers": [{"name": "a", "formats": "lut", "shapes": [[2, 2]], "bits": [4], "block_size": [32], "parameters": 4,
                "packed_bytes": 4,
                "bits_per_weight": 8.0, "shared_with": ["b"], "relative_error": 0.1}],
    "dense_tensors": 1, "dense_bytes": 4,
    "size": {"packed_bytes": 8, "parameters": 4, "factor_bytes": {"a": 4}, "array_bytes": {"lut.codes": 4, "dense tensors": 4}},
}  # fmt: skip
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
