"""Compare an exported model with its reference: error, cosine, perplexity, and your own metric on labelled examples."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgecomp.cli.common import add_json, add_model, add_quiet, add_requirements, add_trust, print_json, require, trust_of

if TYPE_CHECKING:
    import numpy as np

    from edgecomp.models import LoadedModel
    from edgecomp.progress import ProgressBar
    from edgecomp.trust import Trust
    from edgecomp.verify import Examples, Metric, Reference

SAMPLES = 32  # where labels do not tell how many


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `edgecomp verify`."""
    parser.add_argument("artifact", type=Path, metavar="MODEL", help="an exported model, .onnx, .ort or .pte")
    parser.add_argument(
        "other", type=Path, nargs="?", metavar="OTHER", help="another exported model, to compare with in place of the original"
    )
    parser.add_argument(
        "--against",
        metavar="MODEL",
        help="the original (as for compress), or MODEL.ec: the packed weights in PyTorch, all else as before float16; with OTHER "
        "it only makes inputs of text",
    )
    parser.add_argument("--inputs", metavar="FILE", help="text, .npz, or package.module:factory, to compare the outputs on")
    parser.add_argument(
        "--samples", type=int, metavar="N", help=f"inputs at most (default: as many as there are labels, else {SAMPLES})"
    )
    parser.add_argument("--sequence-length", type=int, default=128, metavar="N", help="tokens of an input (default: %(default)s)")
    _add_metric(parser)
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
    add_requirements(parser)
    parser.add_argument(
        "--state", action="store_true", help="buffers that the original of --against changes are inputs, as by compress --state"
    )
    add_model(parser)
    add_trust(parser)
    add_json(parser)
    add_quiet(parser)


def _add_metric(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="a label for each input: .npy, .npz (`labels`), or a text of whole numbers, one a line",
    )
    parser.add_argument(
        "--metric",
        metavar="NAME",
        help="accuracy (default with labels), f1, iou (the mean over classes; f1:CLASS, iou:CLASS of one), next-token, or "
        "package.module:function of the outputs and labels of all examples",
    )
    parser.add_argument("--output-name", metavar="NAME", help="the output that the metric looks at (default: logits, or the first)")
    parser.add_argument("--slices", type=Path, metavar="FILE", help="a text: on each line the slices of that input, by commas")
    parser.add_argument(
        "--perturb",
        default="",
        metavar="LIST",
        help="also on inputs with noise, blur, jpeg, typos, with their strength or the usual, as in noise:0.1,typos",
    )


def run(arguments: argparse.Namespace) -> None:
    """Verify, print, and fail where a tolerance is exceeded."""
    from edgecomp.acceptance import read_requirements
    from edgecomp.errors import ConfigError
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
    if arguments.against is None and arguments.other is None:
        raise ConfigError("an artifact is compared with something: give --against MODEL, or another artifact")
    requirements = None if arguments.requirements is None else read_requirements(arguments.requirements)
    metric, labels = _metric(arguments), _labels(arguments)
    model = None
    if arguments.against is not None:
        model = _reference(arguments.against, arguments.model, trust_of(arguments), ProgressBar(arguments.quiet))
    count = arguments.samples or (SAMPLES if labels is None else len(labels))
    inputs: Sequence[Mapping[str, np.ndarray]] = []
    if arguments.inputs is not None:
        inputs = _samples(arguments, model, count)
        model = None if model is None else model.described(inputs)
        if model is not None and arguments.state:
            model = model.carrying(inputs[0])
            inputs = model.with_state(inputs)
    examples = None if metric is None else _examples(arguments, model, inputs, labels, count)
    tokens = None if arguments.perplexity is None else _tokens(arguments.perplexity, model)
    with _side(arguments, options.library, model) as (name, reference):
        result = verify(
            arguments.artifact,
            reference,
            inputs,
            options,
            tokens=tokens,
            examples=examples,
            metric=metric,
            reference_name=name,
            quiet=arguments.quiet,
        )
    if arguments.json:
        print_json(result.to_json())
    else:
        print(result.to_markdown(), end="")
    raise_on_failure(result)
    if requirements is not None:
        require(requirements, [], [result], quietly=arguments.json)


@contextlib.contextmanager
def _side(arguments: argparse.Namespace, library: str, model: LoadedModel | None) -> Iterator[tuple[str, Reference]]:
    """The name of what the artifact is compared with, and the thing itself."""
    if arguments.other is None:
        assert model is not None  # one of the two is given
        yield "reference", model.run
        return
    from edgecomp.verify import open_artifact

    with open_artifact(arguments.other, library, arguments.threads) as run:
        yield arguments.other.name, run


def _metric(arguments: argparse.Namespace) -> Metric | None:
    from edgecomp.errors import ConfigError
    from edgecomp.verify import Classes, Own

    name = arguments.metric or ("accuracy" if arguments.labels is not None else None)
    if name is None:
        extra = next((option for option in ("slices", "perturb", "output_name") if getattr(arguments, option)), None)
        if extra is not None:
            raise ConfigError(f"--{extra.replace('_', '-')} is of a metric: give --labels FILE, or --metric NAME")
        return None
    if arguments.inputs is None:
        raise ConfigError("a metric needs the inputs that it is measured on: give --inputs FILE")
    module, colon, function = name.partition(":")
    if colon and not (module in ("f1", "iou") and function.isdecimal()):
        from edgecomp.calibration import import_attribute

        found = import_attribute(name, ConfigError)
        if not callable(found):
            raise ConfigError(f"the metric {name} must be a function of outputs and labels, got {type(found).__name__}")
        return Own(name, found)
    return Classes(name, arguments.output_name)


def _labels(arguments: argparse.Namespace) -> list[np.ndarray] | None:
    from edgecomp.verify import read_labels

    return None if arguments.labels is None else read_labels(arguments.labels)


def _samples(arguments: argparse.Namespace, model: LoadedModel | None, count: int) -> Sequence[Mapping[str, np.ndarray]]:
    if model is not None:
        return model.samples(arguments.inputs, count=count, sequence_length=arguments.sequence_length)
    from edgecomp.calibration import factory_samples, npz_samples
    from edgecomp.errors import CalibrationError

    if Path(arguments.inputs).suffix == ".npz":
        return npz_samples(Path(arguments.inputs), (), count)
    if ":" not in arguments.inputs or Path(arguments.inputs).exists():
        raise CalibrationError("inputs of text need the original's tokenizer: give --against MODEL too, or inputs as .npz")
    return factory_samples(arguments.inputs, count)


def _examples(
    arguments: argparse.Namespace,
    model: LoadedModel | None,
    inputs: Sequence[Mapping[str, np.ndarray]],
    labels: list[np.ndarray] | None,
    count: int,
) -> Examples:
    from edgecomp.verify import Examples, parse_perturbations, perturbed_arrays, read_slices

    perturbations = parse_perturbations(arguments.perturb)
    return Examples(
        samples=inputs,
        labels=labels if labels is None else labels[:count],
        slices=() if arguments.slices is None else read_slices(arguments.slices)[:count],
        perturbed={
            perturbation: _mistyped(arguments, model, perturbation.strength, count)
            if perturbation.name == "typos"
            else perturbed_arrays(inputs, perturbation)
            for perturbation in perturbations
        },
    )


def _mistyped(
    arguments: argparse.Namespace, model: LoadedModel | None, strength: float, count: int
) -> Sequence[Mapping[str, np.ndarray]]:
    """The inputs' text with typing mistakes, made into inputs anew."""
    import tempfile

    from edgecomp.calibration import read_text
    from edgecomp.errors import CalibrationError
    from edgecomp.verify import typos

    path = Path(arguments.inputs)
    if model is None or path.suffix == ".npz" or not path.is_file():
        raise CalibrationError(f"typos are of inputs of text, with --against MODEL, got {arguments.inputs}")
    with tempfile.TemporaryDirectory(prefix="edgecomp-") as folder:
        mistyped = Path(folder, "typos.txt")
        mistyped.write_text(typos(read_text(path), strength), encoding="utf-8")
        return model.samples(str(mistyped), count=count, sequence_length=arguments.sequence_length)


def _tokens(path: Path, model: LoadedModel | None) -> np.ndarray:
    import numpy as np

    from edgecomp.calibration import read_text
    from edgecomp.errors import CalibrationError

    if model is None or model.tokenizer is None:
        raise CalibrationError("perplexity needs a language model with a tokenizer (--against MODEL), and this reference has none")
    return np.asarray(model.tokenizer(read_text(path), verbose=False)["input_ids"], np.int64)


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
