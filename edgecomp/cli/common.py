"""Arguments and output that several verbs share."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgecomp.acceptance import Requirements
    from edgecomp.bench.record import Record
    from edgecomp.trust import Trust
    from edgecomp.verify import VerifyResult

from edgecomp.errors import visible
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


def add_trust(parser: argparse.ArgumentParser) -> None:
    """`--trust-remote-code` and `--trust-code`."""
    parser.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="run the Python files beside a Hugging Face model, and fetch what its configuration names",
    )
    parser.add_argument(
        "--trust-code",
        action="store_true",
        help="read .pt2 programs and pickled weights: reading them runs code that they may hold",
    )


def trust_of(arguments: argparse.Namespace) -> Trust:
    """What the two options say."""
    from edgecomp.trust import Trust

    return Trust(remote_code=arguments.trust_remote_code, code=arguments.trust_code)


def add_sizes(parser: argparse.ArgumentParser, what: str) -> None:
    """`--size`, whose values `parse_sizes` reads."""
    parser.add_argument("--size", dest="sizes", action="append", default=[], metavar="NAME=VALUE", help=what)


def add_requirements(parser: argparse.ArgumentParser) -> None:
    """`--requirements`."""
    parser.add_argument(
        "--requirements",
        type=Path,
        metavar="FILE.toml",
        help="limits to hold the figures to (`edgecomp requirements` shows them); the command ends with 13 where one fails",
    )


def require(requirements: Requirements, records: Sequence[Record], results: Sequence[VerifyResult], *, quietly: bool) -> None:
    """Print the verdict on what was measured, on stderr where stdout has other things to say, and fail where a limit does not hold.

    Raises:
        RequirementError: naming the limits.

    """
    from edgecomp.acceptance import evidence_of, judge, raise_on_failure

    verdict = judge(requirements, evidence_of(records, results))
    print(visible(verdict.to_markdown()), end="", file=sys.stderr if quietly else sys.stdout)
    raise_on_failure(verdict)


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json`."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """`--quiet`."""
    parser.add_argument(
        "--quiet", action="store_true", help="no progress bars; notices, such as of what stays dense, are shown all the same"
    )


def print_json(value: Any) -> None:
    """One JSON value on stdout."""
    print(json.dumps(value, indent=1))


def require_utf8(arguments: Mapping[str, Any]) -> None:
    """Refuse names that are not UTF-8: model files hold names in it, and runtimes and safetensors open no others.

    Raises:
        ConfigError: naming the argument, or the current folder; or that is gone.

    """
    from edgecomp.errors import ConfigError

    try:
        here = Path.cwd()
    except FileNotFoundError as error:
        raise ConfigError("the current folder must be there, and has been removed: run in another one") from error
    if not is_utf8(here):
        shown = os.fsencode(here).decode("utf-8", "backslashreplace")
        raise ConfigError(f"the current folder must have a name in UTF-8, got {shown}: run in another one, or rename it")
    for value in arguments.values():
        for item in value if isinstance(value, list) else [value]:
            text = str(item) if isinstance(item, str | Path) else ""
            if not is_utf8(text):
                shown = os.fsencode(text).decode("utf-8", "backslashreplace")
                raise ConfigError(f"names must be UTF-8, got {shown}: rename it, or give a link to it")


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
