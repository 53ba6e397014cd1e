"""Show what is another in the second of two checkpoints or exported models: layers, bits, codebooks, bytes, errors."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgecomp.cli.common import add_json, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `edgecomp diff`."""
    parser.add_argument("before", type=Path, metavar="A", help="a checkpoint folder, or an exported .onnx, .ort or .pte")
    parser.add_argument("after", type=Path, metavar="B", help="another one (`edgecomp verify B A` compares their answers)")
    add_json(parser)


def run(arguments: argparse.Namespace) -> None:
    """Compare and print."""
    from edgecomp.inspect.difference import compare

    found = compare(arguments.before, arguments.after)
    if arguments.json:
        print_json(found.to_json())
    else:
        print(found.to_markdown(), end="")
