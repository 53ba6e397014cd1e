"""Show what this machine, or a device, can run, what is missing, and the command that installs it."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgecomp.cli.common import add_json, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `edgecomp doctor`."""
    parser.add_argument(
        "--device", metavar="URL", help="look at a device instead: ssh://[USER@]HOST[:PORT], adb://[SERIAL], qemu://CPU"
    )
    parser.add_argument(
        "--bundle", type=Path, metavar="FOLDER", help="what `edgecomp device-bundle` made, if not in its default place"
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> None:
    """Print the diagnosis, and fail where the base does not work."""
    from edgecomp.device_doctor import diagnose_device
    from edgecomp.doctor import diagnose, raise_on_problems

    if arguments.device is not None:
        found = diagnose_device(arguments.device, arguments.bundle)
        if arguments.json:
            print_json(found.to_json())
        else:
            print(found.to_text(), end="")
        return
    diagnosis = diagnose()
    if arguments.json:
        print_json(diagnosis.to_json())
    else:
        print(diagnosis.to_text(), end="")
    raise_on_problems(diagnosis)
