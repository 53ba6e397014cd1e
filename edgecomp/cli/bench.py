"""Measure latency and memory of exported models, each in fresh processes."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edgecomp.cli.common import add_quiet, add_requirements, add_sizes, parse_sizes, require

if TYPE_CHECKING:
    from edgecomp.bench.record import Record


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `edgecomp bench`."""
    parser.add_argument(
        "artifacts",
        type=Path,
        nargs="+",
        metavar="MODEL",
        help="exported models (.onnx, .ort, .pte) and folders of language models; several alternate, round by round",
    )
    parser.add_argument("-t", "--threads", type=int, default=1, metavar="N", help="intra-op threads (default: %(default)s)")
    parser.add_argument("-b", "--batch", type=int, default=1, metavar="N", help="batch size (default: %(default)s)")
    parser.add_argument("-s", "--sequence", type=int, default=128, metavar="N", help="sequence length (default: %(default)s)")
    add_sizes(parser, "another dynamic size, as the model names it")
    parser.add_argument("--inputs", type=Path, metavar="FILE.npz", help="inputs to run on, instead of made ones")
    parser.add_argument("--library", default="auto", metavar="PATH", help="auto (default), none, or a custom-op library")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="fresh processes per model (default: %(default)s)")
    parser.add_argument("--warmup", type=int, default=5, metavar="N", help="uncounted inferences (default: %(default)s)")
    parser.add_argument("--min-iterations", type=int, default=50, metavar="N", help="samples per round (default: %(default)s)")
    parser.add_argument("--min-duration", type=float, default=1.0, metavar="S", help="seconds per round (default: %(default)s)")
    _add_token_tests(parser)
    parser.add_argument(
        "-o", "--format", default="md", choices=["md", "csv", "json", "jsonl"], help="what to print (default: %(default)s)"
    )
    parser.add_argument("--json", dest="format", action="store_const", const="json", help="the same as --format json")
    parser.add_argument(
        "--device",
        dest="devices",
        action="append",
        metavar="URL",
        help="local (default), ssh://[USER@]HOST[:PORT], adb://[SERIAL] or qemu://CPU; may be repeated",
    )
    parser.add_argument(
        "--bundle", type=Path, metavar="FOLDER", help="what `edgecomp device-bundle` made, if not in its default place"
    )
    parser.add_argument("--cpus", default="", metavar="N,N", help="processors to run on (default: all)")
    parser.add_argument("--count", choices=["instructions"], help="count the instructions of an inference, on qemu:// devices")
    parser.add_argument(
        "--operators", action="store_true", help="also time each operator, in a process of its own; not on emulated devices"
    )
    parser.add_argument(
        "--for",
        dest="endure",
        default="0",
        metavar="TIME",
        help="also run one session for so long (30m, 90s, 2h): p50, temperature, frequency and memory of every minute",
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with the long run of the records in --save, where a device went down in it"
    )
    parser.add_argument("--sessions", type=int, default=0, metavar="N", help="also open, run once and close so many sessions")
    parser.add_argument(
        "--energy", action="store_true", help="also joules of an inference, by RAPL, an INA sensor or a Raspberry Pi 5's controller"
    )
    parser.add_argument("--energy-duration", type=float, default=20.0, metavar="S", help="seconds of that (default: %(default)s)")
    parser.add_argument(
        "--outputs", type=Path, metavar="FOLDER", help="keep inputs and each device's outputs here, as FOLDER/MODEL/DEVICE.npz"
    )
    parser.add_argument(
        "--max-start-celsius",
        type=float,
        default=70.0,
        metavar="C",
        help="a round waits until the device is no hotter (default: %(default)s)",
    )
    parser.add_argument(
        "--cooldown", type=float, default=120.0, metavar="S", help="seconds to wait for that (default: %(default)s)"
    )
    parser.add_argument("--timeout", type=float, default=600.0, metavar="S", help="seconds a round may take (default: %(default)s)")
    add_requirements(parser)
    add_quiet(parser)
    parser.add_argument("--save", type=Path, metavar="FILE.json", help="also write the records here, for edgecomp report")


def _add_token_tests(parser: argparse.ArgumentParser) -> None:
    """Options of the tests of language models, as llama-bench names them."""
    tests = parser.add_argument_group("language models' folders", "tests named and shaped as llama-bench's; N,N gives several")
    tests.add_argument(
        "-p",
        "--prompt-tokens",
        default="512",
        metavar="N",
        help="ppN: tokens given at once (default: %(default)s; 0 for no such test)",
    )
    tests.add_argument(
        "-n",
        "--generate-tokens",
        default="128",
        metavar="N",
        help="tgN: tokens given one by one (default: %(default)s; 0 for none)",
    )
    tests.add_argument("-d", "--depth", default="0", metavar="N", help="tokens that the cache holds before (default: %(default)s)")
    tests.add_argument(
        "-r", "--repetitions", type=int, default=5, metavar="N", help="of each test in a round (default: %(default)s)"
    )


def run(arguments: argparse.Namespace) -> None:
    """Bench, print, and save where asked."""
    from edgecomp.acceptance import read_requirements
    from edgecomp.bench.options import BenchOptions
    from edgecomp.bench.output import format_records
    from edgecomp.bench.runner import run_benches
    from edgecomp.errors import DeviceError
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
        cpus=_numbers(arguments.cpus, "processors"),
        prompt_tokens=_numbers(arguments.prompt_tokens, "--prompt-tokens"),
        generate_tokens=_numbers(arguments.generate_tokens, "--generate-tokens"),
        depths=_numbers(arguments.depth, "--depth") or (0,),
        repetitions=arguments.repetitions,
        max_start_celsius=arguments.max_start_celsius,
        cooldown_s=arguments.cooldown,
        timeout_s=arguments.timeout,
        count_instructions=arguments.count is not None,
        time_operators=arguments.operators,
        endure_s=_seconds(arguments.endure),
        sessions=arguments.sessions,
        energy_s=arguments.energy_duration if arguments.energy else 0.0,
    )
    requirements = None if arguments.requirements is None else read_requirements(arguments.requirements)
    records = run_benches(
        arguments.artifacts,
        options,
        devices=arguments.devices or ["local"],
        bundle=arguments.bundle,
        outputs=arguments.outputs,
        earlier=_earlier(arguments),
        command=["edgecomp", *sys.argv[1:]],
        quiet=arguments.quiet,
    )
    for artifact in {record.artifact.name: record.artifact for record in records}.values():
        if artifact.unknown_operators:
            unknown = ", ".join(artifact.unknown_operators)
            print(
                f"edgecomp bench: {artifact.name} calls {unknown}, which our library does not have: the runtime ran "
                "their functions, slowly. Tools that prefix names rename functions too: give them their names back",
                file=sys.stderr,
            )
        elif not artifact.uses_edgecomp:
            print(f"edgecomp bench: {artifact.name} has no nodes of ours: the runtime's own kernels ran", file=sys.stderr)
    if arguments.save is not None:
        with replace_file(arguments.save, overwrite=True) as temporary:
            temporary.write_text(json.dumps([record.model_dump(mode="json") for record in records]) + "\n", encoding="utf-8")
    print(format_records(records, arguments.format), end="")
    failures = [record.failure for record in records if record.failure is not None]
    if failures:
        raise DeviceError("; ".join(dict.fromkeys(failures)))
    if requirements is not None:
        require(requirements, records, [], quietly=arguments.format != "md")


def _seconds(text: str) -> float:
    """`30m` in seconds.

    Raises:
        ConfigError: another form.

    """
    from edgecomp.errors import ConfigError

    units = {"s": 1, "m": 60, "h": 3600}
    number, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, "s")
    if not (number.isascii() and number.isdecimal() and len(number) < 9):
        raise ConfigError(f"--for must be a time such as 90s, 30m or 2h, got {text!r}")
    return float(int(number) * units[unit])


def _earlier(arguments: argparse.Namespace) -> list[Record]:
    from edgecomp.errors import ConfigError
    from edgecomp.report.run_folder import read_records

    if not arguments.resume:
        return []
    if arguments.save is None or not arguments.save.is_file() or _seconds(arguments.endure) == 0:
        raise ConfigError("--resume needs the long run that it resumes: give --for and --save FILE.json of the same command")
    return read_records(arguments.save)


def _numbers(text: str, what: str) -> tuple[int, ...]:
    from edgecomp.errors import ConfigError

    parts = [part.strip() for part in text.split(",")] if text else []
    if not all(part.isascii() and part.isdecimal() and len(part) < 9 for part in parts):
        raise ConfigError(f"{what} must be whole numbers separated by commas, got {text!r}")
    return tuple(map(int, parts))
