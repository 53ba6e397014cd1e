"""Export a checkpoint to the file of a runtime, its weights still packed."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgecomp.cli.common import add_json, add_model, add_output, add_quiet, add_trust, parse_sizes, print_json, trust_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `edgecomp export`."""
    parser.add_argument("checkpoint", type=Path, metavar="MODEL.ec", help="a folder that edgecomp compress wrote")
    parser.add_argument("-t", "--target", default="onnx", help="onnx (default) or executorch")
    add_output(parser, "the file: model.onnx, whose weights go beside it, or model.pte")
    parser.add_argument(
        "--max-size",
        dest="max_sizes",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="executorch: the largest value of a dynamic size, for which memory is planned (default: batch=1, sequence=512)",
    )
    parser.add_argument("--external-weights", action="store_true", help="executorch: constants in a .ptd file beside the program")
    add_model(parser)
    add_trust(parser)
    add_json(parser)
    add_quiet(parser)


def run(arguments: argparse.Namespace) -> None:
    """Export, and print the files."""
    from edgecomp.checkpoint import load
    from edgecomp.exporters import ExportOptions, export
    from edgecomp.size import shipped

    options = ExportOptions(max_sizes=parse_sizes(arguments.max_sizes), external_weights=arguments.external_weights)
    model = load(arguments.checkpoint, model=arguments.model, trust=trust_of(arguments))
    result = export(model, arguments.target, arguments.output, options=options, overwrite=arguments.force, quiet=arguments.quiet)
    if arguments.json:
        files = [str(path) for path in result.files]
        print_json({"files": files, "total_bytes": result.total_bytes, "parameters": result.parameters})
    else:
        for path in result.files:
            print(f"{path}  {path.stat().st_size:,} bytes")
        print(shipped(result.total_bytes, result.parameters))
