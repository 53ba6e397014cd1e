"""Show what a checkpoint or an exported model is made of: formats, bits per weight, bytes, errors."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from edgecomp.cli.common import add_json, add_model, add_trust, print_json, trust_of

if TYPE_CHECKING:
    from edgecomp.inspect.result import ExecutorchInspection, Inspection, OnnxInspection


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `edgecomp inspect`."""
    parser.add_argument("checkpoint", type=Path, metavar="PATH", help="a checkpoint folder, or an exported .onnx or .pte")
    add_model(parser)
    add_trust(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> None:
    """Inspect and print."""
    found: Inspection | OnnxInspection | ExecutorchInspection
    if arguments.checkpoint.suffix == ".onnx":
        from edgecomp.inspect.exported import inspect_onnx

        found = inspect_onnx(arguments.checkpoint)
    elif arguments.checkpoint.suffix == ".pte":
        from edgecomp.inspect.exported import inspect_executorch

        found = inspect_executorch(arguments.checkpoint)
    else:
        from edgecomp.checkpoint import load
        from edgecomp.inspect.model import inspect_model

        model = load(arguments.checkpoint, model=arguments.model, trust=trust_of(arguments))
        found = inspect_model(model, arguments.checkpoint.name)
    if arguments.json:
        print_json(found.to_json())
    else:
        print(found.to_markdown(), end="")
