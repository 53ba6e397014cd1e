"""Write one self-contained HTML page about what was measured."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgecomp.cli.common import add_output, add_requirements
from edgecomp.errors import visible


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `edgecomp report`."""
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders with bench*.json, verify*.json, inspect*.json")
    parser.add_argument("--baseline", type=Path, metavar="RUN", help="folder of an earlier run to compare with")
    add_requirements(parser)
    add_output(parser, "the page, such as report.html")


def run(arguments: argparse.Namespace) -> None:
    """Write the page and print where it is, and the verdict on requirements; fail where one does not hold, or was not judged."""
    from edgecomp.acceptance import read_requirements
    from edgecomp.acceptance.verdict import raise_on_failure
    from edgecomp.report import load_runs, verdict_on, write_report

    requirements = None if arguments.requirements is None else read_requirements(arguments.requirements)
    baseline = [] if arguments.baseline is None else [arguments.baseline]
    runs = load_runs(arguments.runs)
    page = write_report(runs, arguments.output, baseline=baseline, requirements=requirements, overwrite=arguments.force)
    print(page)
    if requirements is not None:
        verdict = verdict_on(requirements, runs)
        print(visible(verdict.to_markdown()), end="")
        raise_on_failure(verdict, complete=True)
