"""Write one self-contained HTML page about what was measured."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgecomp.cli.common import add_output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `edgecomp report`."""
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders with bench*.json, verify*.json, inspect*.json")
    parser.add_argument("--baseline", type=Path, metavar="RUN", help="folder of an earlier run to compare with")
    add_output(parser, "the page, such as report.html")


def run(arguments: argparse.Namespace) -> None:
    """Write the page and print where it is."""
    from edgecomp.report import write_report

    baseline = [] if arguments.baseline is None else [arguments.baseline]
    print(write_report(arguments.runs, arguments.output, baseline=baseline, overwrite=arguments.force))
