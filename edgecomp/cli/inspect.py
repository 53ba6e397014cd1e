"""Show what a checkpoint or an exported model is made of: formats, bits per weight, bytes, errors."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from edgecomp.cli.common import add_json, add_trust, print_json, trust_of

if TYPE_CHECKING:
    from edgecomp.inspect.result import ExecutorchInspection, Inspection, OnnxInspection


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `edgecomp inspect`."""
    parser.add_argument("checkpoint", type=Path, metavar="PATH", help="a checkpoint folder, or an exported .onnx, .ort or .pte")
    parser.add_argument("--model", metavar="MODEL", help="what was compressed: check too that the checkpoint makes it up whole")
    add_trust(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> None:
    """Inspect and print."""
    found: Inspection | OnnxInspection | ExecutorchInspection
    if arguments.checkpoint.suffix in (".onnx", ".ort"):
        from edgecomp.inspect.exported import inspect_onnx

        found = inspect_onnx(arguments.checkpoint)
    elif arguments.checkpoint.suffix == ".pte":
        from edgecomp.inspect.exported import inspect_executorch

        found = inspect_executorch(arguments.checkpoint)
    else:
        from edgecomp.inspect.model import inspect_checkpoint

        if arguments.model is not None:
            from edgecomp.checkpoint import load

            load(arguments.checkpoint, model=arguments.model, trust=trust_of(arguments))
        found = inspect_checkpoint(arguments.checkpoint)
    if arguments.json:
        print_json(found.to_json())
    else:
        print(found.to_markdown(), end="")
