"""Compress a model into a checkpoint folder of packed weights."""

from __future__ import annotations

import argparse

from edgecomp.cli.common import add_json, add_output, add_quiet, add_trust, parse_dims, print_json, trust_of
from edgecomp.cli.interrupts import interruptible


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `edgecomp compress`."""
    parser.add_argument(
        "model", metavar="MODEL", help="Hugging Face folder or hub id, .gguf or .pt2 file, or package.module:factory"
    )
    parser.add_argument("-r", "--recipe", default="lut-4bit", help="built-in name, .toml or .json file (default: %(default)s)")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a setting, such as passes.0.bits=3",
    )
    parser.add_argument("--calibration", metavar="FILE", help="text (.txt, .txt.gz), .npz, or package.module:factory")
    parser.add_argument("--samples", type=int, default=128, metavar="N", help="calibration samples at most (default: %(default)s)")
    parser.add_argument(
        "--sequence-length",
        type=int,
        default=512,
        metavar="N",
        help="tokens of a calibration sample at most (default: %(default)s)",
    )
    parser.add_argument("--device", default="cpu", help="where methods that learn do so: cpu, cuda, cuda:1 (default: %(default)s)")
    parser.add_argument(
        "--dim",
        dest="dims",
        action="append",
        default=[],
        metavar="INPUT=SIZES",
        help="sizes of an input, such as x=batch,3,height,width: numbers are fixed, names dynamic (default: what samples vary)",
    )
    parser.add_argument(
        "--no-export-check",
        action="store_true",
        help="compress a model that may not be exportable: do not trace it first",
    )
    parser.add_argument(
        "-t",
        "--target",
        dest="targets",
        action="append",
        default=[],
        choices=["onnx", "executorch"],
        help="refuse a model that this target has no operators for, before the work; may be repeated (default: it is said)",
    )
    parser.add_argument(
        "--state",
        action="store_true",
        help="make buffers that the model changes inputs of their names and outputs NAME_out, to be handed from run to run",
    )
    add_trust(parser)
    add_output(parser, "the checkpoint folder, such as model.ec")
    add_json(parser)
    add_quiet(parser)


def run(arguments: argparse.Namespace) -> None:
    """Compress, save, and print what it came to."""
    from edgecomp.checkpoint import require_checkpoint_target
    from edgecomp.compression import compress
    from edgecomp.inspect.model import inspect_model
    from edgecomp.resume import discard

    # Before the work, not after it.
    require_checkpoint_target(arguments.output, overwrite=arguments.force)
    work_folder = arguments.output.parent / f".{arguments.output.name}.work"
    try:
        with interruptible():
            model = compress(
                arguments.model,
                arguments.recipe,
                arguments.calibration,
                overrides=arguments.overrides,
                samples=arguments.samples,
                sequence_length=arguments.sequence_length,
                quiet=arguments.quiet,
                work_folder=work_folder,
                device=arguments.device,
                sizes=parse_dims(arguments.dims),
                exportable=not arguments.no_export_check,
                state=arguments.state,
                targets=arguments.targets,
                trust=trust_of(arguments),
            )
            model.save(arguments.output, overwrite=arguments.force)
    except KeyboardInterrupt as interrupt:
        if not work_folder.is_dir():
            raise
        raise KeyboardInterrupt(f"what is finished is in {work_folder}: run the same command again to continue") from interrupt
    discard(work_folder)
    inspection = inspect_model(model, arguments.output.name, arguments.output)
    if arguments.json:
        print_json(inspection.to_json())
    else:
        print(inspection.summary())
