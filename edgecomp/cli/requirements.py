"""Show what a file of requirements may hold, or check one."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgecomp.cli.common import print_json

EXAMPLE = """\
version = 1
name = "door camera"

[[limits]]
figure = "quality_loss"     # of the metric that edgecomp verify measures
max = 0.01
certain = true              # the worse end of its 95 % interval must hold too

[[limits]]
figure = "p90_ms"
max = 40
device = "ssh://pi@*"       # by default every device that was measured

[[limits]]
figure = "peak_memory_bytes"
max = 60_000_000
device = "ssh://pi@*"
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `edgecomp requirements`."""
    parser.add_argument("file", type=Path, nargs="?", metavar="FILE", help="a file to check; without one an example is printed")
    parser.add_argument("--schema", action="store_true", help="print the JSON schema")


def run(arguments: argparse.Namespace) -> None:
    """Print the schema, the limits of a file, or an example with every figure."""
    from edgecomp.acceptance import FIGURES, read_requirements, requirements_schema

    if arguments.schema:
        print_json(requirements_schema())
    elif arguments.file is not None:
        for limit in read_requirements(arguments.file).limits:
            print(limit)
    else:
        print(EXAMPLE)
        for name, figure in FIGURES.items():
            print(f"# {name} ({figure.bound}): {figure.what}")
