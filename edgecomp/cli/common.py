"""Arguments and output that several verbs share."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgecomp.files import is_utf8


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


def require_utf8(arguments: Mapping[str, Any]) -> None:
    """Refuse names that are not UTF-8: model files hold names in it, and runtimes and safetensors open no others.

    Raises:
        ConfigError: naming the argument.

    """
    from edgecomp.errors import ConfigError

    for value in arguments.values():
        for item in value if isinstance(value, list) else [value]:
            text = str(item) if isinstance(item, str | Path) else ""
            if not is_utf8(text):
                shown = os.fsencode(text).decode("utf-8", "backslashreplace")
                raise ConfigError(f"names must be UTF-8, got {shown}: rename it, or give a link to it")


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
