"""Measure latency and memory of exported models, each in fresh processes."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from edgecomp.cli.common import add_quiet, parse_sizes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `edgecomp bench`."""
    parser.add_argument(
        "artifacts", type=Path, nargs="+", metavar="MODEL.onnx", help="exported models; several alternate, round by round"
    )
    parser.add_argument("-t", "--threads", type=int, default=1, metavar="N", help="intra-op threads (default: %(default)s)")
    parser.add_argument("-b", "--batch", type=int, default=1, metavar="N", help="batch size (default: %(default)s)")
    parser.add_argument("-s", "--sequence", type=int, default=128, metavar="N", help="sequence length (default: %(default)s)")
    parser.add_argument(
        "--size",
        dest="sizes",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="another dynamic size, as the model names it",
    )
    parser.add_argument("--inputs", type=Path, metavar="FILE.npz", help="inputs to run on, instead of made ones")
    parser.add_argument("--library", default="auto", metavar="PATH", help="auto (default), none, or a custom-op library")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="fresh processes per model (default: %(default)s)")
    parser.add_argument("--warmup", type=int, default=5, metavar="N", help="uncounted inferences (default: %(default)s)")
    parser.add_argument("--min-iterations", type=int, default=50, metavar="N", help="samples per round (default: %(default)s)")
    parser.add_argument("--min-duration", type=float, default=1.0, metavar="S", help="seconds per round (default: %(default)s)")
    parser.add_argument(
        "-o", "--format", default="md", choices=["md", "csv", "json", "jsonl"], help="what to print (default: %(default)s)"
    )
    parser.add_argument("--json", dest="format", action="store_const", const="json", help="the same as --format json")
    add_quiet(parser)
    parser.add_argument("--save", type=Path, metavar="FILE.json", help="also write the records here, for edgecomp report")


def run(arguments: argparse.Namespace) -> None:
    """Bench, print, and save where asked."""
    from edgecomp.bench.options import BenchOptions
    from edgecomp.bench.output import format_records
    from edgecomp.bench.runner import run_benches
    from edgecomp.files import replace_file

    options = BenchOptions(
        threads=arguments.threads,
        batch=arguments.batch,
        sequence=arguments.sequence,
        sizes=parse_sizes(arguments.sizes),
        inputs=arguments.inputs,
        library=arguments.library,
        rounds=arguments.rounds,
        warmup=arguments.warmup,
        min_iterations=arguments.min_iterations,
        min_duration_s=arguments.min_duration,
        max_duration_s=max(60.0, 2 * arguments.min_duration),
    )
    records = run_benches(arguments.artifacts, options, command=["edgecomp", *sys.argv[1:]], quiet=arguments.quiet)
    for record in records:
        if not record.artifact.uses_edgecomp:
            print(f"edgecomp bench: {record.artifact.name} has no nodes of ours: ONNX Runtime's own kernels ran", file=sys.stderr)
    if arguments.save is not None:
        with replace_file(arguments.save, overwrite=True) as temporary:
            temporary.write_text(json.dumps([record.model_dump(mode="json") for record in records]) + "\n", encoding="utf-8")
    print(format_records(records, arguments.format), end="")
