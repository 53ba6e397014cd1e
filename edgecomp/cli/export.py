"""Export a checkpoint to the file of a runtime, its weights still packed."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgecomp.cli.common import add_json, add_model, add_output, add_quiet, add_sizes, add_trust, parse_sizes, print_json, trust_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `edgecomp export`."""
    parser.add_argument("checkpoint", type=Path, metavar="MODEL.ec", help="a folder that edgecomp compress wrote")
    parser.add_argument("-t", "--target", default="onnx", help="onnx (default) or executorch")
    add_output(
        parser,
        "the file: model.onnx, whose weights go beside it, or model.pte; a folder (no suffix) for a language model with cache",
    )
    parser.add_argument(
        "--max-size",
        dest="max_sizes",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="executorch: the largest value of a dynamic size, for which memory is planned (default: batch=1, sequence=512)",
    )
    parser.add_argument("--external-weights", action="store_true", help="executorch: constants in a .ptd file beside the program")
    parser.add_argument(
        "--golden",
        type=int,
        default=0,
        metavar="N",
        help="also run N inputs here and keep outputs beside the file, for `edgecomp selftest` (made up, or of --golden-inputs)",
    )
    parser.add_argument("--golden-inputs", type=Path, metavar="FILE.npz", help="an array for each input, whose first axis counts")
    add_sizes(parser, "a dynamic size of golden inputs that are made up, as the model names it")
    language = parser.add_argument_group("language models with a cache (the output a folder)")
    language.add_argument(
        "--attention",
        default="fused",
        help="fused: by our operators (default); gqa: by ONNX Runtime's GroupQueryAttention; portable: by standard operators",
    )
    language.add_argument(
        "--cache", default="float32", help="what keys and values are kept as: float32 (default), float16, or int8 with scales"
    )
    language.add_argument(
        "--last-logits", action="store_true", help="logits of the last token alone: lm-eval needs all (executorch: always)"
    )
    language.add_argument("--context", type=int, metavar="TOKENS", help="tokens of a text at most (default: what the model takes)")
    language.add_argument(
        "--for",
        dest="machine",
        metavar="MACHINE",
        help="whose library of our operators is copied in: x86_64, aarch64, or none (default: this machine's)",
    )
    language.add_argument(
        "--bundle", type=Path, metavar="FOLDER", help="what `edgecomp device-bundle` made, if not in its default place"
    )
    add_model(parser)
    add_trust(parser)
    add_json(parser)
    add_quiet(parser)


def run(arguments: argparse.Namespace) -> None:
    """Export, and print the files."""
    from edgecomp.acceptance.golden import golden_path, write_golden
    from edgecomp.checkpoint import load
    from edgecomp.exported.read import require_exported
    from edgecomp.exporters import ExportOptions, export
    from edgecomp.files import require_writable_target
    from edgecomp.size import shipped

    golden = golden_path(arguments.output) if arguments.golden else None
    if golden is not None:
        require_exported(arguments.output)  # golden data is of one file: not of a language model's folder
        require_writable_target(golden, overwrite=arguments.force)
    options = ExportOptions(
        max_sizes=parse_sizes(arguments.max_sizes),
        external_weights=arguments.external_weights,
        attention=arguments.attention,
        cache=arguments.cache,
        last_logits=arguments.last_logits,
        context=arguments.context,
        machine=arguments.machine,
        bundle=arguments.bundle,
    )
    model = load(arguments.checkpoint, model=arguments.model, trust=trust_of(arguments))
    result = export(model, arguments.target, arguments.output, options=options, overwrite=arguments.force, quiet=arguments.quiet)
    if golden is not None:
        sizes = parse_sizes(arguments.sizes)
        write_golden(arguments.output, arguments.golden, inputs=arguments.golden_inputs, sizes=sizes, overwrite=arguments.force)
    if arguments.json:
        files = [str(path) for path in (*result.files, *([] if golden is None else [golden]))]
        print_json({"files": files, "total_bytes": result.total_bytes, "parameters": result.parameters})
    else:
        for path in result.files:
            print(f"{path}  {path.stat().st_size:,} bytes")
        if golden is not None:
            share = golden.stat().st_size / result.total_bytes
            print(f"{golden}  {golden.stat().st_size:,} bytes of golden data, {100 * share:.2f} % of the model")
        print(shipped(result.total_bytes, result.parameters))
