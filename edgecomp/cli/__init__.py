"""The command line: parse, call the library, print. Results go to stdout, progress and messages to stderr."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module

import edgecomp
from edgecomp.cli.common import require_utf8
from edgecomp.cli.interrupts import interruptible, orderly
from edgecomp.cli.streams import drop, standard_streams
from edgecomp.errors import EdgecompError, OutputError, RuntimeUnavailableError, first_line, is_out_of_memory, visible

# Each a module with `add_arguments(parser)` and `run(arguments)`; its docstring's first line is the verb's help.
VERBS = (
    *("compress", "export", "generate", "verify", "bench", "inspect", "report"),
    *("recipe", "requirements", "device-bundle", "doctor"),
)

INTERRUPTED = 130  # 128 + SIGINT, as shells report it
# Extras by the packages that they bring, for those that are imported where a command needs them.
_EXTRAS = {
    "torch": "torch",
    "transformers": "transformers",
    "accelerate": "transformers",
    "onnx": "onnx",
    "onnxruntime": "bench",
    "executorch": "executorch",
    "tokenizers": "generate",
    "plotly": "report",
    "jinja2": "report",
}


def build_parser() -> argparse.ArgumentParser:
    """The parser of all verbs."""
    parser = argparse.ArgumentParser(
        prog="edgecomp", description="Compress PyTorch models and run them packed on ONNX Runtime and ExecuTorch."
    )
    parser.add_argument("--version", action="version", version=f"edgecomp {edgecomp.__version__}")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name in VERBS:
        module = import_module(f"edgecomp.cli.{name.replace('-', '_')}")
        summary = (module.__doc__ or "").splitlines()[0]
        verb = verbs.add_parser(name, help=summary, description=summary)
        module.add_arguments(verb)
        verb.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, the error's own, 2 for wrong usage, 130 when interrupted."""
    try:
        with standard_streams() as messages:
            code = _run(argv)
    except OutputError as error:
        print(visible(f"edgecomp: error: {error}"), file=sys.stderr or open(os.devnull, "w"))  # noqa: PTH123, SIM115
        return error.exit_code
    return OutputError.exit_code if code == 0 and messages.failure is not None else code


def _run(argv: Sequence[str] | None) -> int:
    """The same, with streams that can be written to."""
    try:
        arguments = build_parser().parse_args(argv)
    except SystemExit:
        sys.stdout.flush()  # of --help
        raise
    try:
        require_utf8(vars(arguments))
        with orderly(), interruptible():
            arguments.run(arguments)
            sys.stdout.flush()
    except EdgecompError as error:
        if arguments.debug:
            traceback.print_exc()
        print(visible(f"edgecomp {arguments.verb}: error: {error}"), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as interrupt:
        print("; ".join([f"edgecomp {arguments.verb}: interrupted", *map(str, interrupt.args)]), file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output (head, less) has gone: say nothing.
        drop(sys.stdout)
        return 1
    except Exception as error:  # noqa: BLE001  (a mistake of ours: still one line, and the way to report it)
        if arguments.debug:
            traceback.print_exc()
        extra = _extra_of(error)
        if extra is not None:
            print(f"edgecomp {arguments.verb}: error: {error}; pip install 'edgecomp[{extra}]'", file=sys.stderr)
            return RuntimeUnavailableError.exit_code
        if is_out_of_memory(error):
            print(
                f"edgecomp {arguments.verb}: error: there must be more memory than there is: {first_line(error)}", file=sys.stderr
            )
            return 1
        print(
            f"edgecomp {arguments.verb}: internal error: {type(error).__name__}: {error}; this is a bug: please report it with the "
            f"traceback that `edgecomp --debug {arguments.verb} ...` shows",
            file=sys.stderr,
        )
        return 1
    return 0


def _extra_of(error: Exception) -> str | None:
    """The extra that brings the package whose absence the error is; None for any other error."""
    if not isinstance(error, ModuleNotFoundError):
        return None
    return _EXTRAS.get((error.name or "").split(".")[0])
