"""Tables made of records: what they show, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import readme_tables
from readme_tables import Record, TableError, read_records, rendered, unrecorded

RECORD: dict[str, Any] = {
    "benchmark": "kernels",
    "date": "2026-11-28",
    "commit": "8bd30e6",
    "machine": {"cpu": "AMD EPYC", "cores": 2, "variant": "avx2", "system": "Linux"},
    "command": "python benchmarks/kernels.py",
    "rows": [
        {"n": 8192, "k": 2048, "side": "lut 4/32", "us": 560.125, "bytes": 8946992, "ratio": 1.4},
        {"n": 8192, "k": 2048, "side": "fp32", "us": None, "bytes": 67109888, "ratio": 1},
    ],
}


def records(**changes: Any) -> dict[str, Record]:
    name = changes.pop("name", "kernels-avx2")
    return {name: Record(name, RECORD | changes)}


def table(head: str, of: dict[str, Record] | None = None) -> list[str]:
    made = rendered(f"Before.\n\n<!-- table {head} -->\n<!-- end -->\n\nAfter.\n", of or records())
    assert made.startswith(f"Before.\n\n<!-- table {head} -->\n\n")
    assert made.endswith("\n\n<!-- end -->\n\nAfter.\n")
    return [line for line in made.splitlines() if line.startswith("|")]


def test_columns_are_texts_with_fields() -> None:
    columns = "N x K: {n} x {k} | MB: {bytes/1e6:.2f} | us: {us:.1f}\n"
    columns += "bytes: {bytes:,} | ratio: {ratio:.2f} | of: {record} {machine.variant}"
    assert table(f"kernels-avx2\n{columns}\n") == [
        "| N x K | MB | us | bytes | ratio | of |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
        "| 8192 x 2048 | 8.95 | 560.1 | 8,946,992 | 1.40 | avx2 avx2 |",
        "| 8192 x 2048 | 67.11 | - | 67,109,888 | 1 | avx2 avx2 |",
    ]


def test_without_columns_a_table_has_all_fields() -> None:
    assert table("kernels-avx2")[0] == "| n | k | side | us | bytes | ratio |"
    assert table("kernels-avx2")[2] == "| 8192 | 2048 | lut 4/32 | 560.1 | 8946992 | 1.4 |"


def test_conditions_choose_rows_and_bold_ones() -> None:
    assert [line.split(" | ")[2] for line in table("kernels-avx2 side=lut*")[2:]] == ["lut 4/32"]
    assert [line.split(" | ")[2] for line in table("kernels-avx2 'side=lut 4/32'")[2:]] == ["lut 4/32"]
    assert table("kernels-avx2 bold:side=fp* side=fp32\nside: {side} | us: {us:.1f}\n")[2:] == ["| **fp32** | - |"]


def test_a_table_takes_several_records_and_says_where_each_is_from_once() -> None:
    both = records() | records(name="kernels-amx", machine={"cpu": "Xeon", "cores": None}, note="Quiet.", command="not recorded")
    text = "<!-- table kernels-avx2 -->\n<!-- end -->\n<!-- table kernels-avx2 kernels-amx -->\n<!-- end -->\n"
    made = rendered(text, both)
    first = "    python benchmarks/kernels.py\n\n[kernels-avx2](results/kernels-avx2.json): 2026-11-28, commit 8bd30e6; "
    first += "AMD EPYC, 2 cores, variant avx2."
    second = "[kernels-amx](results/kernels-amx.json): 2026-11-28, commit 8bd30e6; Xeon. Command not recorded. Quiet."
    assert made.count(first) == made.count(second) == 1
    assert made.index(first) < made.index("| n |") < made.index(second)
    assert len(re.findall(r"^\| \d", made, re.MULTILINE)) == 6
    assert rendered(made, both) == made


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- table kernels-amx -->\n<!-- end -->", "a table must name records of results/, got kernels-amx"),
        ("Nothing.", "every record must have a table (<!-- table NAME -->), got none of kernels-avx2"),
        ("<!-- table kernels-avx2 -->\n<!-- end -->\n\n| 1 |\n", "tables must be made of records, between"),
        ("<!-- table kernels-avx2 -->\n", "tables must be made of records, between"),
        (2 * "<!-- table kernels-avx2 -->\nBy hand.\n" + "<!-- end -->", "tables must be made of records, between"),
        ("<!-- table kernels-avx2\nus: {ns}\n-->\n<!-- end -->", "must be of its rows' fields, got ns"),
        ("<!-- table kernels-avx2 rows=1 -->\n<!-- end -->", "must be of its rows' fields, got rows"),
        ("<!-- table kernels-avx2 side=dense -->\n<!-- end -->", "some row must fulfil the conditions, got none"),
        ("<!-- table kernels-avx2\nus\n-->\n<!-- end -->", "a column must be `HEADING: text with {FIELD}`, got us"),
    ],
)
def test_refused_texts(text: str, message: str) -> None:
    with pytest.raises(TableError, match=re.escape(message)):
        rendered(text, records())


def without(field: str) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.pop(field)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("machine"), "got none of machine"),
        (lambda content: content.update(rows=[]), "got none of rows"),
        (lambda content: content.update(machine="AMD EPYC"), "machine must be what records.py writes, got 'AMD EPYC'"),
        (lambda content: content.update(rows=[1]), "rows must be objects, got 1"),
        (lambda content: content.update(date="28.11."), 'date must be like 2026-11-28 or "not recorded", got 28.11.'),
        (
            lambda content: content.update(benchmark="memory"),
            "the name must be that of its benchmark, or that and a hyphen, got memory",
        ),
        (lambda content: content["rows"][0].update(us=[1, 2]), "rows must be flat, got us with more than one value"),
        (lambda content: content["rows"][0].update(us=float("nan")), "figures must be finite, got NaN"),
    ],
)
def test_refused_records(tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str) -> None:
    content = json.loads(json.dumps(RECORD))
    change(content)
    (tmp_path / "kernels-avx2.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(TableError, match=re.escape(message)):
        read_records(tmp_path)


def test_what_is_not_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kernels.json").write_text("", encoding="utf-8")
    with pytest.raises(TableError, match=r"kernels.json: a record must be JSON"):
        read_records(tmp_path)


def test_benchmarks_without_a_record_are_found(tmp_path: Path) -> None:
    (tmp_path / "scale.py").write_text('print_rows("scale", rows, as_json=True)\n', encoding="utf-8")
    (tmp_path / "kernels.py").write_text('print_rows("kernels", rows, as_json=True)\n', encoding="utf-8")
    assert unrecorded(tmp_path, records()) == ["scale"]


def test_the_tables_of_the_checkout_are_those_of_its_records() -> None:
    text = readme_tables.README.read_text(encoding="utf-8")
    assert rendered(text, read_records(readme_tables.RESULTS)) == text
