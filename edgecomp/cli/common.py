"""Arguments and output that several verbs share."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
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


def parse_dims(assignments: Sequence[str]) -> dict[str, tuple[int | str, ...]]:
    """Sizes of inputs by name, of INPUT=SIZE,SIZE,...: numbers, or names of dynamic sizes; of a scalar, INPUT=.

    Raises:
        ConfigError: an assignment of another form.

    """
    from edgecomp.errors import ConfigError

    dims: dict[str, tuple[int | str, ...]] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        sizes = [size.strip() for size in value.split(",")] if value else []
        if not name or not equals or not all(size.isidentifier() or (size.isdecimal() and int(size) > 0) for size in sizes):
            raise ConfigError(
                f"--dim must be INPUT=SIZE,SIZE,... with positive numbers and names, such as x=batch,128, got {assignment!r}"
            )
        dims[name] = tuple(int(size) if size.isdecimal() else size for size in sizes)
    return dims


def parse_sizes(assignments: Sequence[str]) -> dict[str, int]:
    """Sizes by name, of NAME=VALUE.

    Raises:
        ConfigError: an assignment of another form.

    """
    from edgecomp.errors import ConfigError

    sizes = {}
    for assignment in assignments:
        name, _, value = assignment.rpartition("=")  # a name may be an expression with signs of its own
        if not name or not value.isdecimal():
            raise ConfigError(f"a size must be NAME=VALUE with a whole number, got {assignment!r}")
        sizes[name] = int(value)
    return sizes
