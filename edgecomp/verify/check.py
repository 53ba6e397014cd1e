"""Runs the artifact and its reference on the same inputs."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path

import numpy as np

from edgecomp.errors import CalibrationError, ConfigError, ModelError, VerificationError
from edgecomp.exported.executorch_session import ExecutorchModel
from edgecomp.exported.files import hash_files
from edgecomp.exported.inputs import InputSizes, make_inputs
from edgecomp.exported.library import AUTO, NONE
from edgecomp.exported.onnx_process import OnnxProcess
from edgecomp.exported.read import require_exported
from edgecomp.progress import ProgressBar
from edgecomp.text import token_windows
from edgecomp.verify.labelled import Examples, judge
from edgecomp.verify.metrics import DifferenceSum, divergence, log_softmax, negative_log_likelihood
from edgecomp.verify.result import LIBRARY, REFERENCE, STOCK, Comparison, Perplexity, VerifyResult
from edgecomp.verify.scores import Metric

Arrays = Mapping[str, np.ndarray]
Reference = Callable[[Arrays], Arrays]

LOGITS = "logits"


@dataclass(frozen=True)
class Tolerance:
    """Bounds of every artifact-against-reference comparison; None is no bound.

    Args:
        max_absolute: upper bound of the max abs error.
        relative: upper bound of the relative error.
        cosine: lower bound of the cosine: of sentences where there are sentences, else of rows.
        perplexity_ratio: upper bound of perplexity / reference's perplexity.

    """

    max_absolute: float | None = None
    relative: float | None = None
    cosine: float | None = None
    perplexity_ratio: float | None = None


@dataclass(frozen=True)
class VerifyOptions:
    """Options of a verification.

    Args:
        library: `auto` (ours, if the model has nodes of ours), `none`, or the path of a custom-op library.
        stock: also run an ONNX model without the library; slow where it has nodes of ours.
        threads: intra-op threads.
        tolerance: what counts as a failure.
        window: tokens of a perplexity window.
        windows: how many windows, from the text's start.

    Raises:
        ConfigError: a value is out of range.

    """

    library: str = AUTO
    stock: bool = True
    threads: int = 1
    tolerance: Tolerance = field(default_factory=Tolerance)
    window: int = 512
    windows: int = 16

    def __post_init__(self) -> None:
        for name, least in {"threads": 1, "window": 2, "windows": 1}.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be at least {least}, got {getattr(self, name)}")


def verify(
    artifact: Path,
    reference: Reference,
    inputs: Iterable[Arrays],
    options: VerifyOptions,
    *,
    tokens: np.ndarray | None = None,
    examples: Examples | None = None,
    metric: Metric | None = None,
    reference_name: str = REFERENCE,
    quiet: bool = True,
) -> VerifyResult:
    """Compare an exported model with its reference.

    Args:
        artifact: the `.onnx` or `.pte` file.
        reference: computes the outputs by name from the inputs by name; outputs that only one side has are not compared.
        inputs: batches; `attention_mask [batch, sequence]`, where present, tells which positions count.
        options: how to run and what to tolerate.
        tokens: a text's token ids `[length]`, for the perplexity of a language model with the output `logits`.
        examples: labelled inputs to judge both by,
        metric: and what by.
        reference_name: what the reference is, where it is another artifact.
        quiet: no progress bars.

    Returns:
        The result, which names in `failures` what exceeds the tolerance; see `raise_on_failure`.

    Raises:
        ModelError: no such file, or the model does not run on the inputs, or shares no output with the reference.
        CheckpointError: the artifact is incomplete or refused.
        RuntimeUnavailableError: the runtime or the library does not load.
        CalibrationError: neither inputs nor tokens, or too few tokens for the windows.

    """
    require_exported(artifact)
    if artifact.suffix == ".pte":
        with ExecutorchModel(artifact, options.library, options.threads) as program:
            runners = {STOCK if program.library is None else LIBRARY: program.run, REFERENCE: reference}
            found = _verify(program, runners, inputs, options, tokens, examples, metric, quiet=quiet)
            return replace(found, against=reference_name)
    session = OnnxProcess(artifact, options.library, options.threads)
    runners = {}
    if session.library is not None:
        runners[LIBRARY] = session.run
    if session.library is not None and options.stock and session.file.needs_library:
        ProgressBar(quiet).say(f"notice: {artifact} has no functions for a stock runtime: it is run with the library alone")
    elif session.library is None or options.stock:
        runners[STOCK] = session.run if session.library is None else OnnxProcess(artifact, NONE, options.threads).run
    runners[REFERENCE] = reference
    found = _verify(session, runners, inputs, options, tokens, examples, metric, quiet=quiet)
    return replace(found, against=reference_name)


def _verify(
    artifact: OnnxProcess | ExecutorchModel,
    runners: Mapping[str, Reference],
    inputs: Iterable[Arrays],
    options: VerifyOptions,
    tokens: np.ndarray | None,
    examples: Examples | None,
    metric: Metric | None,
    *,
    quiet: bool,
) -> VerifyResult:
    progress = ProgressBar(quiet)
    total = len(inputs) if isinstance(inputs, Sized) else None
    batches, comparisons = _compare(runners, progress(inputs, total=total, label="verify", unit="input"))
    if not batches and tokens is None and metric is None:
        raise CalibrationError(
            "a verification needs inputs or tokens, and got neither: give --inputs FILE, or for a language model --perplexity FILE"
        )
    judgement = None
    if examples is not None and metric is not None:
        compared = next(iter(runners))
        judgement = judge(runners[compared], runners[REFERENCE], examples, metric, compared, progress)
    perplexity = None if tokens is None else _perplexity(artifact, runners, tokens, options, progress)
    return VerifyResult(
        artifact=artifact.file.path.name,
        files=hash_files(artifact.file),
        library=None if artifact.library is None else artifact.library.name,
        batches=batches,
        comparisons=comparisons,
        perplexity=perplexity,
        judgement=judgement,
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        failures=tuple(_failures(comparisons, perplexity, options.tolerance)),
    )


@contextlib.contextmanager
def open_artifact(path: Path, library: str = AUTO, threads: int = 1) -> Iterator[Reference]:
    """Another artifact, to compare with.

    Raises:
        ModelError: no such file.
        CheckpointError: the artifact is incomplete or refused.
        RuntimeUnavailableError: the runtime or the library does not load.

    """
    require_exported(path)
    if path.suffix != ".pte":
        yield OnnxProcess(path, library, threads).run
        return
    with ExecutorchModel(path, library, threads) as program:
        yield program.run


def raise_on_failure(result: VerifyResult) -> None:
    """End a verification whose figures exceed the tolerance.

    Raises:
        VerificationError: naming each figure and its bound.

    """
    if result.failures:
        raise VerificationError(
            f"{result.artifact} differs from its reference by more than the tolerance: " + "; ".join(result.failures)
        )


def _compare(runners: Mapping[str, Reference], inputs: Iterable[Arrays]) -> tuple[int, tuple[Comparison, ...]]:
    """Batches one at a time, so that memory holds the outputs of one batch only."""
    sums: dict[tuple[str, str], dict[str, DifferenceSum]] = {pair: {} for pair in combinations(runners, 2)}
    batches = 0
    for batch in inputs:
        batches += 1
        outputs = {name: run(batch) for name, run in runners.items()}
        for (left, right), pair_sums in sums.items():
            shared = [name for name in outputs[left] if name in outputs[right]]
            if not shared:
                raise ModelError(f"{left} and {right} share no output: {list(outputs[left])} and {list(outputs[right])}")
            for name in shared:
                total = pair_sums.setdefault(name, DifferenceSum(name))
                try:
                    total.add(outputs[left][name], outputs[right][name], batch.get("attention_mask"))
                except ValueError as error:
                    raise ModelError(f"{left} and {right} do not compute the same thing: {error}") from error
    if not batches:
        return 0, ()
    return batches, tuple(
        Comparison(left, right, tuple(total.result() for total in pair_sums.values())) for (left, right), pair_sums in sums.items()
    )


def _perplexity(
    artifact: OnnxProcess | ExecutorchModel,
    runners: Mapping[str, Reference],
    tokens: np.ndarray,
    options: VerifyOptions,
    progress: ProgressBar,
) -> Perplexity:
    needed = options.window * options.windows
    if tokens.ndim != 1 or len(tokens) < needed:
        raise CalibrationError(
            f"{options.windows} windows of {options.window} tokens need a text of {needed} tokens, got shape {list(tokens.shape)}: "
            "give more text, or fewer or shorter windows (--windows, --window)"
        )
    # Masks, positions and the empty past are as the model declares them; only the tokens are the text's.
    sizes = InputSizes(batch=1, sequence=options.window)
    template = make_inputs(artifact.inputs, sizes)
    totals, divergences = dict.fromkeys(runners, 0.0), {name: 0.0 for name in runners if name != REFERENCE}
    windows = token_windows(tokens, options.window, options.windows)
    for window in progress(windows, total=options.windows, label="perplexity", unit="window"):
        batch = {**template, "input_ids": window[None]}
        reference: np.ndarray | None = None
        for name in (REFERENCE, *divergences):
            outputs = runners[name](batch)
            if LOGITS not in outputs:
                raise ModelError(f"perplexity needs an output named {LOGITS}; {name} has {', '.join(outputs)}")
            scores = log_softmax(outputs[LOGITS][0])
            totals[name] += negative_log_likelihood(scores, window)
            if reference is None:
                reference = scores
            else:
                divergences[name] += divergence(reference, scores)
    count = (options.window - 1) * options.windows
    values = {name: math.exp(total / count) for name, total in totals.items()}
    mean_divergences = {name: total / count for name, total in divergences.items()}
    return Perplexity(options.window, options.windows, count, values, mean_divergences)


def _failures(comparisons: Iterable[Comparison], perplexity: Perplexity | None, tolerance: Tolerance) -> list[str]:
    """Comparisons are written so that NaN fails."""
    failures = []
    for comparison in comparisons:
        if comparison.right != REFERENCE:
            continue
        for output in comparison.outputs:
            where = f"{comparison.left}, output {output.name}"
            if output.not_finite:
                failures.append(f"{where}: {output.not_finite} values are NaN or infinite, and the reference's are not")
            cosine = output.cosine if output.sentence_cosine is None else output.sentence_cosine
            if tolerance.max_absolute is not None and not output.max_absolute <= tolerance.max_absolute:
                failures.append(f"{where}: max abs error {output.max_absolute:.3e} above {tolerance.max_absolute}")
            if tolerance.relative is not None and not output.relative <= tolerance.relative:
                failures.append(f"{where}: relative error {output.relative:.3e} above {tolerance.relative}")
            if tolerance.cosine is not None and not cosine >= tolerance.cosine:
                failures.append(f"{where}: cosine {cosine:.6f} below {tolerance.cosine}")
    if perplexity is not None and tolerance.perplexity_ratio is not None:
        for name in (LIBRARY, STOCK):
            ratio = perplexity.values[name] / perplexity.values[REFERENCE] if name in perplexity.values else 0.0
            if not ratio <= tolerance.perplexity_ratio:
                failures.append(f"{name}: perplexity is {ratio:.4f} times the reference's, above {tolerance.perplexity_ratio}")
    return failures
