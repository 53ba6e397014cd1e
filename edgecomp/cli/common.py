"""Arguments and output that several verbs share."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def add_output(parser: argparse.ArgumentParser, what: str) -> None:
    """`-o/--output` and `--force`."""
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="PATH", help=what)
    parser.add_argument("--force", action="store_true", help="replace the output if it exists")


def add_model(parser: argparse.ArgumentParser) -> None:
    """`--model`."""
    parser.add_argument(
        "--model", metavar="MODEL", help="what was compressed, where it is a .pt2 or a factory: a checkpoint holds no code"
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json`."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """`--quiet`."""
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def print_json(value: Any) -> None:
    """One JSON value on stdout."""
    print(json.dumps(value, indent=1))
