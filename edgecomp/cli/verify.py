"""Compare an exported model with its reference: error, cosine and perplexity, with the library and on the stock runtime."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from edgecomp.cli.common import add_json, add_model, add_quiet, print_json

if TYPE_CHECKING:
    from edgecomp.models import LoadedModel


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `edgecomp verify`."""
    parser.add_argument("artifact", type=Path, metavar="MODEL", help="an exported model, .onnx or .pte")
    parser.add_argument(
        "--against",
        required=True,
        metavar="MODEL",
        help="the original (as for compress), or MODEL.ec: the packed weights in PyTorch",
    )
    parser.add_argument("--inputs", metavar="FILE", help="text, .npz, or package.module:factory, to compare the outputs on")
    parser.add_argument("--samples", type=int, default=32, metavar="N", help="inputs at most (default: %(default)s)")
    parser.add_argument("--sequence-length", type=int, default=128, metavar="N", help="tokens of an input (default: %(default)s)")
    parser.add_argument("--perplexity", type=Path, metavar="FILE", help="text to measure a language model's perplexity on")
    parser.add_argument("--window", type=int, default=512, metavar="N", help="tokens of a perplexity window (default: %(default)s)")
    parser.add_argument("--windows", type=int, default=16, metavar="N", help="perplexity windows (default: %(default)s)")
    parser.add_argument("--library", default="auto", metavar="PATH", help="auto (default), none, or a library of operators")
    parser.add_argument("--no-stock", action="store_true", help="do not run an ONNX model without the library, which is slow")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="intra-op threads (default: %(default)s)")
    parser.add_argument("--max-absolute", type=float, metavar="X", help="fail if an absolute error is larger")
    parser.add_argument("--max-relative", type=float, metavar="X", help="fail if a relative error is larger")
    parser.add_argument("--min-cosine", type=float, metavar="X", help="fail if a mean cosine is smaller")
    parser.add_argument(
        "--max-perplexity-ratio", type=float, metavar="X", help="fail if the perplexity grows by more than this factor"
    )
    add_model(parser)
    add_json(parser)
    add_quiet(parser)


def run(arguments: argparse.Namespace) -> None:
    """Verify, print, and fail where a tolerance is exceeded."""
    import numpy as np

    from edgecomp.calibration import read_text
    from edgecomp.errors import CalibrationError
    from edgecomp.verify import Tolerance, VerifyOptions, raise_on_failure, verify

    options = VerifyOptions(
        library=arguments.library,
        stock=not arguments.no_stock,
        threads=arguments.threads,
        tolerance=Tolerance(arguments.max_absolute, arguments.max_relative, arguments.min_cosine, arguments.max_perplexity_ratio),
        window=arguments.window,
        windows=arguments.windows,
    )
    reference = _reference(arguments.against, arguments.model)
    inputs = []
    if arguments.inputs is not None:
        inputs = reference.samples(arguments.inputs, count=arguments.samples, sequence_length=arguments.sequence_length)
        reference = reference.described(inputs)
    tokens = None
    if arguments.perplexity is not None:
        if reference.tokenizer is None:
            raise CalibrationError("perplexity needs a language model with a tokenizer, and this reference has none")
        tokens = np.asarray(reference.tokenizer(read_text(arguments.perplexity), verbose=False)["input_ids"], np.int64)
    result = verify(arguments.artifact, reference.run, inputs, options, tokens=tokens, quiet=arguments.quiet)
    if arguments.json:
        print_json(result.to_json())
    else:
        print(result.to_markdown(), end="")
    raise_on_failure(result)


def _reference(spec: str, model: str | None) -> LoadedModel:
    from edgecomp.checkpoint import MANIFEST, load
    from edgecomp.models import load_model

    return load(spec, model=model) if (Path(spec) / MANIFEST).is_file() else load_model(spec)
