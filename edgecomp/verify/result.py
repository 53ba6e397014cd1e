"""What a verification found, as JSON and as tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edgecomp.exported.files import FileInfo
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

    """

    artifact: str
    files: tuple[FileInfo, ...]
    library: str | None
    batches: int
    comparisons: tuple[Comparison, ...]
    perplexity: Perplexity | None
    created_utc: str
    failures: tuple[str, ...] = ()

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
        lines += [f"! {failure}" for failure in self.failures]
        return "\n".join(lines) + "\n"
