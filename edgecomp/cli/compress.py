"""Compress a model into a checkpoint folder of packed weights."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgecomp.cli.common import add_json, add_output, add_quiet, add_trust, parse_dims, print_json, trust_of
from edgecomp.cli.interrupts import interruptible

RECIPE = "lut-4bit"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `edgecomp compress`."""
    parser.add_argument(
        "model", metavar="MODEL", help="Hugging Face folder or hub id, .gguf or .pt2 file, or package.module:factory"
    )
    parser.add_argument("-r", "--recipe", help=f"built-in name, .toml or .json file (default: {RECIPE})")
    parser.add_argument(
        "--like",
        type=Path,
        metavar="OLD.ec",
        help="repeat the recipe of an earlier checkpoint, on its calibration file where none is given, and say what moved",
    )
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a setting, such as passes.0.bits=3",
    )
    parser.add_argument(
        "--calibration",
        metavar="FILE",
        help="text (.txt, .txt.gz), .npz, package.module:factory, or self: a language model writes its own text",
    )
    parser.add_argument(
        "--self-share",
        type=float,
        metavar="SHARE",
        help="part of the samples that a language model writes itself, beside those of --calibration, such as 0.5",
    )
    parser.add_argument("--self-seed", type=int, default=0, metavar="N", help="of what it writes (default: %(default)s)")
    parser.add_argument(
        "--written",
        type=Path,
        metavar="FOLDER",
        help="keep what the model writes here, for other recipes (default: beside the output, until that is saved)",
    )
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
    parser.add_argument(
        "--strict", action="store_true", help="refuse a model of which more than 10 %% stays float (default: it is said)"
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

    recipe, calibration = _like(arguments) if arguments.like is not None else (arguments.recipe or RECIPE, arguments.calibration)
    # Before the work, not after it.
    require_checkpoint_target(arguments.output, overwrite=arguments.force)
    work_folder = arguments.output.parent / f".{arguments.output.name}.work"
    written = arguments.written or arguments.output.parent / f".{arguments.output.name}.written"
    try:
        with interruptible():
            model = compress(
                arguments.model,
                recipe,
                calibration,
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
                self_share=arguments.self_share,
                self_seed=arguments.self_seed,
                written_folder=written,
                strict=arguments.strict,
            )
            model.save(arguments.output, overwrite=arguments.force)
    except KeyboardInterrupt as interrupt:
        if not work_folder.is_dir():
            raise
        raise KeyboardInterrupt(f"what is finished is in {work_folder}: run the same command again to continue") from interrupt
    discard(work_folder)
    if arguments.written is None:
        discard(written)
    inspection = inspect_model(model, arguments.output.name, arguments.output)
    if arguments.json:
        print_json(inspection.to_json())
    else:
        print(inspection.summary())
        if arguments.like is not None:
            from edgecomp.inspect.difference import compare

            print(compare(arguments.like, arguments.output).to_markdown(), end="")


def _like(arguments: argparse.Namespace) -> tuple[Mapping[str, Any], str | None]:
    """The recipe of an earlier checkpoint, and what it was calibrated on.

    Raises:
        ConfigError: a recipe is given too, or the earlier one names code.
        CalibrationError: what it was calibrated on is not here any more, and nothing else is given.

    """
    from edgecomp.checkpoint_file import read_manifest
    from edgecomp.compression import require_no_code
    from edgecomp.errors import CalibrationError, ConfigError
    from edgecomp.recipe import load_recipe
    from edgecomp.written import SELF

    if arguments.recipe is not None:
        raise ConfigError(f"--like repeats the recipe of {arguments.like}: leave --recipe out, and change settings by --set")
    manifest = read_manifest(arguments.like)
    recipe = manifest.get("recipe", {})
    if not arguments.trust_code:
        require_no_code(load_recipe(recipe, arguments.overrides), arguments.overrides, str(arguments.like))
    told = manifest.get("provenance", {}).get("calibration") or {}
    source = told.get("source")
    if arguments.calibration is None and told.get("samples"):
        if arguments.self_share is None:
            arguments.self_share, arguments.self_seed = told.get("self_share"), told.get("self_seed", arguments.self_seed)
        if source == SELF:
            return recipe, SELF
        if source is None or not Path(source).is_file():
            raise CalibrationError(
                f"{arguments.like} was calibrated on {source or 'samples in memory'}, which is not here: give --calibration FILE"
            )
        return recipe, str(source)
    return recipe, arguments.calibration
