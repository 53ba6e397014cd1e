"""Show what this machine can run, what is missing, and the command that installs it."""

from __future__ import annotations

import argparse

from edgecomp.cli.common import add_json, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `edgecomp doctor`."""
    add_json(parser)


def run(arguments: argparse.Namespace) -> None:
    """Print the diagnosis, and fail where the base does not work."""
    from edgecomp.doctor import diagnose, raise_on_problems

    diagnosis = diagnose()
    if arguments.json:
        print_json(diagnosis.to_json())
    else:
        print(diagnosis.to_text(), end="")
    raise_on_problems(diagnosis)
