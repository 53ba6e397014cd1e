"""What every benchmark prints: its rows as a table or, with --json, as one record.

    parser = argparse.ArgumentParser(...)
    add_json_option(parser)
    ...
    print_rows("kernels", rows, as_json=arguments.json)

A record says what was measured, when, of which code, where and how:

    {"benchmark": "kernels", "date": "2026-11-28", "commit": "8bd30e6", "machine": {"cpu": ..., "cores": 2, ...},
     "command": "python benchmarks/kernels.py --threads 1", "rows": [{"n": 8192, "k": 2048, "lut_us": 733.1, ...}, ...]}

Rows are flat: a field is a number, a text, a truth value, or None where nothing was measured, and ends with its unit (`_us`,
`_seconds`, `_bytes`, `_mb`). What did not vary in a run but matters (threads, tokens) is a field all the same.

The last record of each benchmark is kept as `results/NAME.json`; NAME is the benchmark's, or that and what sets the record apart
(`kernels-avx2`), where one run does not tell all:

    PYTHONPATH=benchmarks python benchmarks/kernels.py --json > benchmarks/results/kernels.json

readme_tables.py makes the tables of README.md from them. A record may have a "note", for what its other fields cannot tell; it says
`"digits": "as printed"` where its figures are those of a printed table, rounder than a script gives them.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"
PACKAGES = ("onnxruntime", "executorch", "torch")  # whose versions figures depend on
FIGURE = re.compile(r"\**([-+]?[\d.,]+(e[-+]\d+)?( %)?|-)\**")  # as a table shows it, bold or not
ENVIRONMENT = ("EDGECOMP_FORCE_ISA", "HIDE", "LD_PRELOAD")  # which change what is measured

Row = Mapping[str, Any]


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """The option `--json`, the same in every benchmark."""
    parser.add_argument("--json", action="store_true", help="print a record (see records.py) in place of the table")


def print_rows(benchmark: str, rows: Iterable[Any], *, as_json: bool, on: Mapping[str, Any] | None = None) -> None:
    """Print rows (mappings or data classes) as a table under a line on the machine and the commit, or as a record; six digits.

    `on` is the machine where that is not the one that runs the script, but an emulator say.
    """
    plain = [asdict(row) if is_dataclass(row) and not isinstance(row, type) else dict(row) for row in rows]
    flat = [{key: float(f"{value:.6g}") if isinstance(value, float) else value for key, value in row.items()} for row in plain]
    record = {
        "benchmark": benchmark,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit(),
        "machine": dict(on or machine()),
        "command": command(sys.argv),
        "rows": flat,
    }
    if as_json:
        print(to_json(record))
    else:
        print(", ".join(f"{key}: {value}" for key, value in record["machine"].items()) + f", commit: {record['commit']}\n")
        columns = columns_of(flat)
        print(markdown(columns, [[cell(row.get(column)) for column in columns] for row in flat]))


def to_json(record: Mapping[str, Any]) -> str:
    """A record as JSON, a line for each row, so that a difference between two records can be read."""
    head = [f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in record.items() if key != "rows"]
    rows = ",\n  ".join(json.dumps(row, ensure_ascii=False) for row in record["rows"])
    return "{" + ",\n ".join([*head, f'"rows": [\n  {rows}\n ]']) + "}"


def machine() -> dict[str, Any]:
    """What the numbers depend on of this machine: what it is, and what runs on it."""
    from edgecomp import native  # not above: tables are made where the package is not installed

    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    description: dict[str, Any] = {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "cache_mib": largest_cache_mib(),
        "system": platform.platform(),
    }
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        description["gpu"] = torch.cuda.get_device_name()
    description["variant"] = native.selected_variant()
    for package in PACKAGES:
        try:
            description[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return description


def largest_cache_mib() -> int | None:
    """Of one cache of the first core; None where the system tells nothing."""
    sizes = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")  # like "32768K"
    return max((int(size.read_text().rstrip("K\n")) // 1024 for size in sizes), default=None)


def commit() -> str:
    """The checkout's commit, with "-dirty" where it was changed since but for records and their tables; "unknown" outside one."""

    def git(*arguments: str) -> str:
        result = subprocess.run(["git", "-C", str(FOLDER), *arguments], capture_output=True, text=True, check=False)
        return result.stdout.strip()

    head = git("rev-parse", "--short", "HEAD")
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(exclude)results", ":(exclude)README.md")
    return f"{head}-dirty" if changed else head or "unknown"


def command(arguments: Sequence[str]) -> str:
    """The command line, without folders that are this machine's own."""

    def short(text: str) -> str:
        head, equals, tail = text.rpartition("=")
        return head + equals + (Path(tail).name if tail.startswith("/") else tail)

    settings = [f"{name}={short(os.environ[name])}" for name in ENVIRONMENT if name in os.environ]
    script = f"benchmarks/{Path(arguments[0]).name}"
    words = [short(argument) for argument in arguments[1:] if argument != "--json"]
    return " ".join([*settings, "python", script, shlex.join(words)]).rstrip()


def columns_of(rows: Iterable[Row]) -> list[str]:
    """The fields of all rows, in their order."""
    return list(dict.fromkeys(key for row in rows for key in row))


def cell(value: object) -> str:
    """A value as a table shows it that chooses no format: four digits at least, and "-" for what was not measured."""
    if value is None or value == "":
        return "-"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)


def markdown(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A table; a column that has figures only is aligned to the right."""
    figures = [all(FIGURE.fullmatch(row[i]) for row in cells) for i in range(len(columns))]
    rule = ["---:" if right else "---" for right in figures]
    return "\n".join("| " + " | ".join(line) + " |" for line in [columns, rule, *cells])
