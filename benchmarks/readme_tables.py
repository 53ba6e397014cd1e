"""The tables of README.md, made from the records of results/.

    python benchmarks/readme_tables.py            # writes the tables
    python benchmarks/readme_tables.py --check    # says where README.md is not what would be written (`make check`)

A comment in README.md names the records of a table and chooses its columns. What lies between it and `<!-- end -->` is made of
them; everything else, the reading of the figures, is written by hand:

    <!-- table kernels-avx2 kernels-amx rows=1 bold:bits=4
    N x K: {n} x {k} | lut MB: {lut_bytes/1e6:.2f}
    lut us: {lut_us:.1f} | variant: {machine.variant}
    -->
    <!-- end -->

A table has a line for each row of its records for which every condition FIELD=PATTERN (as of a shell) holds; those of
`bold:FIELD=PATTERN` are printed bold. A column is a heading and a text with {FIELD}, {FIELD:FORMAT} (of Python) or
{FIELD/DIVISOR:FORMAT}; new lines and ` | ` part columns. Besides the row's fields there are {date}, {commit}, {machine.KEY} of its
record and {record}, its name without the benchmark's. "-" stands where a field has no value, and a whole number keeps its digits
whatever the format. Without columns a table has all fields. Above it stand command, date, commit, machine and note of each record
that was not named before.

Refused are records that no table names, tables written by hand, and benchmarks without a record.
"""

from __future__ import annotations

import argparse
import difflib
import json
import re
import shlex
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from records import FOLDER, RESULTS, cell, columns_of, markdown

README = FOLDER / "README.md"
FIELDS = ("benchmark", "date", "commit", "machine", "command", "rows")
UNKNOWN = "not recorded"  # stands for what was not written down
BLOCK = re.compile(
    r"<!-- table (?P<choice>[^\n]*?)(?:\n(?P<columns>(?:(?!-->).)*?)\n)? ?-->\n(?P<made>(?:(?!<!-- table ).)*?)<!-- end -->",
    re.DOTALL,
)
FIELD = re.compile(r"\{([\w.-]+)(?:/([\d.e]+))?(?::([^}]*))?\}")
WIDTH = 150  # of the lines that are made


class TableError(Exception):
    """A record or a table that cannot be used; the message says which, and what must hold."""


@dataclass(frozen=True)
class Record:
    """One file of results/."""

    name: str
    content: Mapping[str, Any]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Its rows, with what a column may show of the record itself; a row's own fields come first."""
        about = {"record": self.name.removeprefix(self.content["benchmark"]).removeprefix("-")}
        about |= {"date": self.content["date"], "commit": self.content["commit"]}
        about |= {f"machine.{key}": value for key, value in self.content["machine"].items()}
        return [about | row for row in self.content["rows"]]

    def origin(self) -> str:
        """Command, date, commit, machine and note, as Markdown."""
        of = {key: value for key, value in self.content["machine"].items() if value is not None and key != "system"}  # that is long
        told = [str(of.pop("cpu", UNKNOWN)), f"{of.pop('cores')} cores" if "cores" in of else ""]
        told += [f"{key.replace('_', ' ')} {value}" for key, value in of.items()]
        line = f"[{self.name}](results/{self.name}.json): {self.content['date']}, commit {self.content['commit']}; "
        line += ", ".join(part for part in told if part) + "."
        if self.content["command"] == UNKNOWN:
            line += " Command not recorded."
        if "note" in self.content:
            line += f" {self.content['note']}"
        wrapped = "\n".join(textwrap.wrap(line, WIDTH, break_long_words=False, break_on_hyphens=False))
        if self.content["command"] == UNKNOWN:
            return wrapped
        return textwrap.indent(self.content["command"], "    ") + "\n\n" + wrapped


def read_records(folder: Path) -> dict[str, Record]:
    """All records by name.

    Raises:
        TableError: one lacks a field, or is not what records.py writes.

    """
    return {path.stem: Record(path.stem, _checked(path)) for path in sorted(folder.glob("*.json"))}


def _checked(path: Path) -> Mapping[str, Any]:
    def refuse_constant(value: str) -> None:
        raise TableError(f"{path.name}: figures must be finite, got {value}")

    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse_constant)
    except json.JSONDecodeError as error:
        raise TableError(f"{path.name}: a record must be JSON (see records.py), got {error}") from None
    missing = [field for field in FIELDS if not isinstance(content, dict) or not content.get(field)]
    if missing:
        raise TableError(f"{path.name}: a record must have {', '.join(FIELDS)} (see records.py), got none of {', '.join(missing)}")
    kinds = {"machine": dict, "rows": list, **dict.fromkeys(("benchmark", "date", "commit", "command"), str)}
    for field, kind in kinds.items():
        if not isinstance(content[field], kind):
            raise TableError(f"{path.name}: {field} must be what records.py writes, got {content[field]!r}")
    if not re.fullmatch(r"\d{4}-\d\d-\d\d|" + UNKNOWN, content["date"]):
        raise TableError(f'{path.name}: date must be like 2026-11-28 or "{UNKNOWN}", got {content["date"]}')
    if path.stem != content["benchmark"] and not path.stem.startswith(content["benchmark"] + "-"):
        raise TableError(f"{path.name}: the name must be that of its benchmark, or that and a hyphen, got {content['benchmark']}")
    for row in content["rows"]:
        if not isinstance(row, dict):
            raise TableError(f"{path.name}: rows must be objects, got {row!r}")
        deep = [key for key, value in row.items() if isinstance(value, list | dict)]
        if deep:
            raise TableError(f"{path.name}: rows must be flat, got {', '.join(deep)} with more than one value")
    return content  # type: ignore[no-any-return]


def rendered(text: str, records: Mapping[str, Record]) -> str:
    """README.md with its tables made anew.

    Raises:
        TableError: a table names what is not there, a record has no table, or a table was written by hand.

    """
    named: set[str] = set()

    def block(match: re.Match[str]) -> str:
        head = match[0][: match.start("made") - match.start()]
        words = shlex.split(match["choice"])
        names = [word for word in words if "=" not in word]
        for name in names:
            if name not in records:
                raise TableError(f"README.md: a table must name records of results/, got {name}")
        origins = [records[name].origin() for name in names if name not in named]
        named.update(names)
        table = _table([records[name] for name in names], [word for word in words if "=" in word], match["columns"])
        return head + "\n" + "\n\n".join([*origins, table]) + "\n\n<!-- end -->"

    made = BLOCK.sub(block, text)
    by_hand = [line for line in BLOCK.sub("", text).splitlines() if line.startswith(("|", "<!-- table", "<!-- end"))]
    if by_hand:
        raise TableError(f"README.md: tables must be made of records, between `<!-- table` and `<!-- end -->`, got {by_hand[0]}")
    unnamed = [name for name in records if name not in named]
    if unnamed:
        raise TableError(f"README.md: every record must have a table (<!-- table NAME -->), got none of {', '.join(unnamed)}")
    return made


def _table(records: Sequence[Record], words: Sequence[str], chosen: str | None) -> str:
    conditions = [word.split("=", 1) for word in words if not word.startswith("bold:")]
    bold = [word.removeprefix("bold:").split("=", 1) for word in words if word.startswith("bold:")]
    title = ", ".join(record.name for record in records)
    rows = [row for record in records for row in record.rows]
    known = set(columns_of(rows))
    if chosen is None:
        columns = [(name, f"{{{name}}}") for name in columns_of(row for record in records for row in record.content["rows"])]
    else:
        columns = list(_columns(chosen, title))
    asked = [field for field, _ in [*conditions, *bold]] + [field[0] for _, text in columns for field in FIELD.findall(text)]
    unknown = [field for field in asked if field not in known]
    if unknown:
        raise TableError(f"README.md, table {title}: columns and conditions must be of its rows' fields, got {', '.join(unknown)}")
    rows = [row for row in rows if _holds(row, conditions)]
    if not rows:
        raise TableError(f"README.md, table {title}: some row must fulfil the conditions, got none")
    lines = []
    for row in rows:
        cells = [_filled(text, row) for _, text in columns]
        strong = bool(bold) and _holds(row, bold)
        lines.append([f"**{text}**" if strong and text != "-" else text for text in cells])
    return markdown([heading for heading, _ in columns], lines)


def _columns(chosen: str, title: str) -> Iterator[tuple[str, str]]:
    for column in chosen.replace("\n", " | ").split(" | "):
        heading, colon, text = column.strip().partition(": ")
        if not colon or not FIELD.search(text):
            raise TableError(f"README.md, table {title}: a column must be `HEADING: text with {{FIELD}}`, got {column}")
        yield heading, text


def _holds(row: Mapping[str, Any], conditions: Sequence[Sequence[str]]) -> bool:
    return all(fnmatchcase(str(row.get(field)), pattern) for field, pattern in conditions)


def _filled(text: str, row: Mapping[str, Any]) -> str:
    """A cell: "-" where one of its fields has no value."""
    if any(row.get(name) is None or row[name] == "" for name, _, _ in FIELD.findall(text)):
        return "-"

    def value(match: re.Match[str]) -> str:
        of = row[match[1]]
        if match[2]:
            of = of / float(match[2])
        if not match[3]:
            return cell(of)
        return str(of) if isinstance(of, int) and match[3][-1] in "fge%" else format(of, match[3])

    return FIELD.sub(value, text)


def unrecorded(folder: Path, records: Mapping[str, Record]) -> list[str]:
    """Benchmarks whose scripts print records, and of which none is kept."""
    scripts = [path for path in sorted(folder.glob("*.py")) if path.name not in ("records.py", Path(__file__).name)]
    printed = {name for path in scripts for name in re.findall(r'print_rows\(\s*"([\w-]+)"', path.read_text(encoding="utf-8"))}
    return sorted(printed - {record.content["benchmark"] for record in records.values()})


def main() -> None:
    """Write README.md, or say where it differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 where README.md would change")
    arguments = parser.parse_args()
    before = README.read_text(encoding="utf-8")
    try:
        records = read_records(RESULTS)
        after = rendered(before, records)
        without = unrecorded(FOLDER, records)
        if without:
            raise TableError(f"results/: every benchmark must have a record (its `--json`), got none of {', '.join(without)}")
    except TableError as error:
        sys.exit(str(error))
    if not arguments.check:
        README.write_text(after, encoding="utf-8")
    elif before != after:
        sys.stdout.writelines(
            difflib.unified_diff(before.splitlines(True), after.splitlines(True), "README.md", "from results/", n=0)
        )
        sys.exit("the tables of benchmarks/README.md must be those of results/: run python benchmarks/readme_tables.py")


if __name__ == "__main__":
    main()
