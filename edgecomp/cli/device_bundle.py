"""Collect what another machine needs to measure artifacts: the measuring program, our library, ONNX Runtime."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgecomp.cli.common import add_json, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `edgecomp device-bundle`."""
    parser.add_argument("--arch", default="aarch64", help="the device's architecture (default: %(default)s)")
    parser.add_argument(
        "--source", type=Path, default=Path(), metavar="FOLDER", help="checkout of edgecomp to build from (default: this folder)"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FOLDER",
        help="the bundle (default: in ~/.cache/edgecomp, where bench and doctor look)",
    )
    parser.add_argument("--force", action="store_true", help="replace the output if it exists")
    add_json(parser)


def run(arguments: argparse.Namespace) -> None:
    """Build, and print what is in the bundle."""
    from edgecomp.devices.build_bundle import build_bundle
    from edgecomp.devices.bundle import default_folder

    # The default place holds nothing of the user's own: a bundle there is replaced.
    output = arguments.output or default_folder(arguments.arch)
    bundle = build_bundle(arguments.arch, arguments.source, output, overwrite=arguments.force or arguments.output is None)
    sizes = {name: path.stat().st_size for name, path in bundle.files.items()}
    if arguments.json:
        print_json({"architecture": bundle.architecture, "folder": str(output), "files": sizes})
        return
    for name, size in sizes.items():
        print(f"{size:>12,} {name}")
    print(f"{sum(sizes.values()):>12,} bytes in {output}")
