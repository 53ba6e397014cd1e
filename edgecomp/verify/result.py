"""What a verification found, as JSON and as tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edgecomp.exported.files import FileInfo
from edgecomp.verify.labelled import Judgement, Score
from edgecomp.verify.metrics import OutputDifference

SCHEMA_VERSION = 1
REFERENCE, LIBRARY, STOCK = "reference", "library", "stock runtime"


@dataclass(frozen=True)
class Comparison:
    """`left` against `right`, each one of `library`, `stock runtime`, `reference`, over the same inputs."""

    left: str
    right: str
    outputs: tuple[OutputDifference, ...]


@dataclass(frozen=True)
class Perplexity:
    """Quality of a language model on a text, over tokens 2..window of each window, by who computed it.

    Args:
        window: tokens of a window.
        windows: how many.
        tokens: how many were predicted.
        values: exp(mean negative log-likelihood).
        divergences: mean Kullback-Leibler divergence of the next-token distribution from the reference's, in nats: how far the
            model is from the original, where perplexity also falls by adapting to a text.

    """

    window: int
    windows: int
    tokens: int
    values: Mapping[str, float]
    divergences: Mapping[str, float]


@dataclass(frozen=True)
class VerifyResult:
    """A verification.

    Args:
        artifact: file name.
        files: the artifact's files.
        library: file name of our library, or None where only the stock runtime ran.
        batches: number of input batches.
        comparisons: every pair that ran.
        perplexity: for language models.
        created_utc: when.
        failures: what exceeded the tolerance.
        judgement: what a metric says of labelled examples.
        against: `reference`, or the name of the artifact that was compared with.

    """

    artifact: str
    files: tuple[FileInfo, ...]
    library: str | None
    batches: int
    comparisons: tuple[Comparison, ...]
    perplexity: Perplexity | None
    created_utc: str
    failures: tuple[str, ...] = ()
    judgement: Judgement | None = None
    against: str = REFERENCE

    def to_json(self) -> dict[str, Any]:
        """The result as JSON values; `verify*.json` of a run folder."""
        return {"kind": "verify", "schema_version": SCHEMA_VERSION, **asdict(self)}

    def to_markdown(self) -> str:
        """A table of the comparisons, and of the perplexities."""
        lines = []
        if self.comparisons:
            lines += [
                "| compared | output | max abs error | relative error | cosine (rows) | cosine (sentences) |",
                "| --- | --- | ---: | ---: | ---: | ---: |",
            ]
        for comparison in self.comparisons:
            for output in comparison.outputs:
                sentence = "" if output.sentence_cosine is None else f"{output.sentence_cosine:.6f} ({output.sentences})"
                lines.append(
                    f"| {comparison.left} against {comparison.right} | {output.name} | {output.max_absolute:.3e} "
                    f"| {output.relative:.3e} | {output.cosine:.6f} ({output.rows}) | {sentence} |"
                )
        if self.perplexity is not None:
            lines += [
                "",
                f"| {self.perplexity.windows} windows of {self.perplexity.window} tokens | perplexity | KL to the reference |",
                "| --- | ---: | ---: |",
            ]
            for name, value in self.perplexity.values.items():
                divergence = self.perplexity.divergences.get(name)
                lines.append(f"| {name} | {value:.4f} | {'' if divergence is None else f'{divergence:.4f}'} |")
        if self.judgement is not None:
            lines += [*([""] if lines else []), *_judgement_lines(self.judgement)]
        lines += [f"! {failure}" for failure in self.failures]
        return "\n".join(lines) + "\n"


def _judgement_lines(judgement: Judgement) -> list[str]:
    """A row for everything, each slice and each perturbation."""
    lines = [
        f"| {judgement.metric}, {judgement.compared} against original | examples | artifact | original | difference | changed "
        "| right to wrong | wrong to right |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [_score_line("all", judgement.overall)]
    lines += [_score_line(f"slice {score.name}", score) for score in judgement.slices]
    lines += [_score_line(f"{score.name}, beyond the original's loss", score) for score in judgement.perturbations]
    return [
        *lines,
        "",
        f"in brackets: {100 * judgement.confidence:.0f} % by {judgement.resamples} paired resamples of the examples; a slice too "
        "small to judge has none",
    ]


def _score_line(name: str, score: Score) -> str:
    flips = score.flips
    counts = ("", "", "") if flips is None else (flips.changed, flips.to_wrong, flips.to_right)
    difference = bracketed(score.difference_low, score.difference_high, sign="+")
    cells = [
        name if score.judged else f"{name} (too small to judge)",
        str(score.examples),
        "-" if score.value is None else f"{score.value:.4f}{bracketed(score.low, score.high)}",
        "-" if score.original is None else f"{score.original:.4f}",
        "-" if score.difference is None else f"{score.difference:+.4f}{difference}",
        *("" if count is None else str(count) for count in counts),
    ]
    return "| " + " | ".join(cells) + " |"


def bracketed(low: float | None, high: float | None, *, sign: str = "") -> str:
    """An interval behind its figure; nothing where there is none."""
    return "" if low is None or high is None else f" [{low:{sign}.4f}, {high:{sign}.4f}]"
