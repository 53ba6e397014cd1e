"""Hold an exported model to what it computed where it was exported: its files by their digests, its outputs on a device."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgecomp.cli.common import add_json, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `edgecomp selftest`."""
    parser.add_argument(
        "artifact", type=Path, metavar="MODEL", help="an exported model with golden data beside it, or a checkpoint folder"
    )
    parser.add_argument("--device", default="local", metavar="URL", help="where to run it, as for bench (default: %(default)s)")
    parser.add_argument("--bundle", type=Path, metavar="FOLDER", help="what `edgecomp device-bundle` made, if not in its place")
    add_json(parser)


def run(arguments: argparse.Namespace) -> None:
    """Test, print, and fail where outputs differ."""
    from edgecomp.acceptance.golden import raise_on_difference, selftest
    from edgecomp.checkpoint_file import MANIFEST, read_contents

    if (arguments.artifact / MANIFEST).is_file():
        contents = read_contents(arguments.artifact)
        identity = contents.manifest.get("identity")
        if arguments.json:
            print_json({"kind": "selftest", "artifact": arguments.artifact.name, "identity": identity, "passed": True})
        else:
            print(f"{identity or 'no identity'}\npassed: every file of {arguments.artifact} is as it was written")
        return
    result = selftest(arguments.artifact, device=arguments.device, bundle=arguments.bundle)
    if arguments.json:
        print_json(result.to_json())
    else:
        print(result.to_text(), end="")
    raise_on_difference(result)
