"""Compare an exported model with its reference: error, cosine and perplexity, with the library and on the stock runtime."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from edgecomp.cli.common import add_json, add_model, add_quiet, add_trust, print_json, trust_of

if TYPE_CHECKING:
    from edgecomp.models import LoadedModel
    from edgecomp.progress import ProgressBar
    from edgecomp.trust import Trust


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `edgecomp verify`."""
    parser.add_argument("artifact", type=Path, metavar="MODEL", help="an exported model, .onnx, .ort or .pte")
    parser.add_argument(
        "--against",
        required=True,
        metavar="MODEL",
        help="the original (as for compress), or MODEL.ec: the packed weights in PyTorch, all else as before float16",
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
    add_trust(parser)
    add_json(parser)
    add_quiet(parser)


def run(arguments: argparse.Namespace) -> None:
    """Verify, print, and fail where a tolerance is exceeded."""
    import numpy as np

    from edgecomp.calibration import read_text
    from edgecomp.errors import CalibrationError
    from edgecomp.progress import ProgressBar
    from edgecomp.verify import Tolerance, VerifyOptions, raise_on_failure, verify

    options = VerifyOptions(
        library=arguments.library,
        stock=not arguments.no_stock,
        threads=arguments.threads,
        tolerance=Tolerance(arguments.max_absolute, arguments.max_relative, arguments.min_cosine, arguments.max_perplexity_ratio),
        window=arguments.window,
        windows=arguments.windows,
    )
    reference = _reference(arguments.against, arguments.model, trust_of(arguments), ProgressBar(arguments.quiet))
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


def _reference(spec: str, model: str | None, trust: Trust, progress: ProgressBar) -> LoadedModel:
    from edgecomp.checkpoint import MANIFEST, load, unround
    from edgecomp.models import load_model, local_source

    if not (Path(spec) / MANIFEST).is_file():
        return load_model(spec, trust)
    compressed = load(spec, model=model, trust=trust)
    if compressed.recipe["dense_dtype"] == "float16":
        original = model or local_source(compressed.source)
        if original is None or not unround(compressed, load_model(original, trust).module):
            progress.say(
                f"notice: {spec} has dense tensors in float16, and the model that they were rounded from is not at hand: what that "
                "rounding did is not in these figures. Give the original as --against for figures that hold everything"
            )
    return compressed
