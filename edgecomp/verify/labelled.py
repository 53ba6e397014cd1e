"""A metric of labelled examples, of an artifact and its original on the same inputs: intervals, flips, slices, perturbations."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgecomp.errors import CalibrationError
from edgecomp.progress import ProgressBar
from edgecomp.verify import bootstrap
from edgecomp.verify.label_files import LABELS
from edgecomp.verify.perturbations import Perturbation
from edgecomp.verify.scores import IGNORED, Answered, Metric

Arrays = Mapping[str, np.ndarray]
Runner = Callable[[Arrays], Arrays]
_Side = list[Any]  # what a metric keeps of each example's outputs of one model

_IMAGINED = 2  # examples; see bootstrap.py
LEAST_EXAMPLES = 30  # of a slice that is judged: an interval of fewer says little, and the bootstrap's is too short


@dataclass(frozen=True)
class Flips:
    """Answers of the artifact that are not the original's.

    Args:
        answers: that were compared: one an example, or one for each of its positions that count.
        changed: of these; known where the metric knows answers.
        to_wrong: right in the original and wrong in the artifact.
        to_right: the other way.

    """

    answers: int
    changed: int | None
    to_wrong: int
    to_right: int

    @property
    def rate(self) -> float:
        """Answers that went from right to wrong or back, as a part of all."""
        return (self.to_wrong + self.to_right) / max(self.answers, 1)


@dataclass(frozen=True)
class Score:
    """A metric of both sides over some examples; intervals hold 95 % of the resampled values, and are None where it is not judged.

    Args:
        name: `all`, a slice's, or a perturbation's with its strength.
        examples: how many.
        value: the artifact's; `low` and `high` bound it. None where nothing counts, as of a class that no example has.
        original: the original's.
        difference: value - original; `difference_low` and `difference_high` bound it. Of a perturbation it is the loss beyond the
            original's own: how much more the difference is than without it.
        flips: None where the metric knows no right and wrong.
        judged: whether there are enough examples that count to say anything.

    """

    name: str
    examples: int
    value: float | None
    low: float | None
    high: float | None
    original: float | None
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    flips: Flips | None = None
    judged: bool = True


@dataclass(frozen=True)
class Judgement:
    """What a metric says of an artifact.

    Args:
        metric: its name.
        compared: which run of the artifact.
        overall: of all examples.
        slices: of each slice, the worst difference first, those too small to judge at the end.
        perturbations: each against the unperturbed.
        resamples: of the bootstrap, and `confidence` and `seed`.

    """

    metric: str
    compared: str
    overall: Score
    slices: tuple[Score, ...] = ()
    perturbations: tuple[Score, ...] = ()
    resamples: int = bootstrap.RESAMPLES
    confidence: float = bootstrap.CONFIDENCE
    seed: int = bootstrap.SEED

    @property
    def worst_slice(self) -> Score | None:
        """Of those that are judged."""
        return next((score for score in self.slices if score.judged), None)


@dataclass(frozen=True)
class Examples:
    """Labelled inputs.

    Args:
        samples: batches of inputs by name; an array `labels` in them is no input.
        labels: one for each example of all batches; None where the samples have them, or the metric needs none.
        slices: the names of each example's slices.
        perturbed: the same inputs changed, by what was done to them.

    """

    samples: Sequence[Arrays]
    labels: Sequence[np.ndarray] | None = None
    slices: Sequence[Sequence[str]] = ()
    perturbed: Mapping[Perturbation, Iterable[Arrays]] = field(default_factory=dict)


def judge(
    artifact: Runner, original: Runner, examples: Examples, metric: Metric, compared: str, progress: ProgressBar
) -> Judgement:
    """Run both on the examples, and on the perturbed ones.

    Raises:
        CalibrationError: labels, slices and examples are not of one number, or labels do not fit.
        ModelError: a model does not run on an example.

    """
    labels = _labels_of(examples)
    if examples.slices and len(examples.slices) != len(labels):
        raise CalibrationError(f"slices must have a line for each of {len(labels)} examples, got {len(examples.slices)}")
    clean = _run(artifact, original, examples.samples, labels, metric, progress, metric.name)
    overall = _score("all", clean, labels, metric)
    if overall.value is None or overall.original is None:
        raise CalibrationError(f"{metric.name} needs examples that count, and every label is {IGNORED}, or of another class")
    slices = [
        _score(name, ([clean[0][i] for i in chosen], [clean[1][i] for i in chosen]), [labels[i] for i in chosen], metric)
        for name, chosen in _members(examples.slices).items()
    ]
    perturbations = []
    for perturbation, samples in examples.perturbed.items():
        name = str(perturbation)
        sides = _run(artifact, original, samples, labels, metric, progress, name)
        perturbations.append(_beyond(name, clean, sides, labels, metric))
    return Judgement(
        metric.name,
        compared,
        overall,
        tuple(sorted(slices, key=lambda score: (not score.judged, score.difference or 0.0))),
        tuple(perturbations),
    )


def _labels_of(examples: Examples) -> list[np.ndarray]:
    """A label for each example; an empty array where there are none."""
    count = sum(_batch(sample) for sample in examples.samples)
    within = [LABELS in sample for sample in examples.samples]
    if examples.labels is not None:
        labels = [np.asarray(label) for label in examples.labels]
    elif any(within):
        if not all(within):
            raise CalibrationError("every sample must have labels, or none; some have them")
        labels = [np.asarray(label) for sample in examples.samples for label in np.atleast_1d(sample[LABELS])]
    else:
        return [np.empty(0)] * count
    if len(labels) != count:
        raise CalibrationError(f"labels must be one for each of {count} examples, got {len(labels)}")
    return labels


def _batch(sample: Arrays) -> int:
    first = next(np.asarray(value) for name, value in sample.items() if name != LABELS)
    return first.shape[0] if first.ndim else 1


def _members(slices: Sequence[Sequence[str]]) -> dict[str, list[int]]:
    members: dict[str, list[int]] = {}
    for position, names in enumerate(slices):
        for name in names:
            members.setdefault(name, []).append(position)
    return members


def _run(
    artifact: Runner,
    original: Runner,
    samples: Iterable[Arrays],
    labels: Sequence[np.ndarray],
    metric: Metric,
    progress: ProgressBar,
    what: str,
) -> tuple[_Side, _Side]:
    """A batch at a time; kept is what the metric asks for."""
    sides: tuple[_Side, _Side] = [], []
    position = itertools.count()
    for sample in progress(samples, total=None, label=what, unit="input"):
        inputs = {name: np.asarray(value) for name, value in sample.items() if name != LABELS}
        batch, outputs = _batch(inputs), [artifact(inputs), original(inputs)]
        for example in range(batch):
            number = next(position)
            label = labels[number] if number < len(labels) and labels[number].shape != (0,) else None
            own_inputs = {name: value[example] for name, value in inputs.items() if value.ndim and value.shape[0] == batch}
            for side, computed in zip(sides, outputs, strict=True):
                own = {
                    name: value[example]
                    for name, value in ((name, np.asarray(value)) for name, value in computed.items())
                    if value.ndim and value.shape[0] == batch
                }
                side.append(metric.digest(own, own_inputs, label))
    if next(position) != len(labels):
        raise CalibrationError(f"perturbed inputs must be as many as the others, {len(labels)}")
    return sides


def _score(name: str, sides: tuple[_Side, _Side], labels: Sequence[np.ndarray], metric: Metric) -> Score:
    """Both sides' metric over some examples."""
    drawn = _values(sides, labels, metric)
    return _scored(name, drawn, np.array([1, -1]), _flips(*sides, labels, metric), len(labels))


def _beyond(
    name: str, clean: tuple[_Side, _Side], sides: tuple[_Side, _Side], labels: Sequence[np.ndarray], metric: Metric
) -> Score:
    """The perturbed metric, and how much more was lost than without, all four by the same resamples."""
    drawn = _values([*sides, *clean], labels, metric)
    return _scored(name, drawn, np.array([1, -1, -1, 1]), _flips(*sides, labels, metric), len(labels))


@dataclass(frozen=True)
class _Drawn:
    """The metric of each side, `values [sides]`, and in every resample, `draws [resamples, sides]`.

    `short` says whether percentiles of the draws hold too little, since nobody was imagined among them.
    """

    values: np.ndarray
    draws: np.ndarray
    short: bool


def _scored(name: str, drawn: _Drawn, signs: np.ndarray, flips: Flips | None, examples: int) -> Score:
    """A score; the difference is the sum of the sides by their signs. No intervals where examples are few, or nothing counts."""
    numbers = (drawn.values[0], drawn.values[1], drawn.values @ signs)
    artifact, original, between = (float(value) if np.isfinite(value) else None for value in numbers)
    judged = examples >= LEAST_EXAMPLES and between is not None
    behind = examples if drawn.short else None
    low, high = bootstrap.interval(drawn.draws[:, 0], behind) if judged else (None, None)
    below, above = bootstrap.interval(drawn.draws @ signs, behind) if judged else (None, None)
    return Score(name, examples, artifact, low, high, original, between, below, above, flips, judged)


def _values(sides: Sequence[Sequence[Any]], labels: Sequence[np.ndarray], metric: Metric) -> _Drawn:
    """The metric of all sides by the same resamples."""
    rows = [metric.rows(digests, labels) for digests in sides]
    if any(row.ndim == 0 for row in rows):

        def chosen_values(chosen: np.ndarray) -> np.ndarray:
            picked = [labels[i] for i in chosen]
            return np.array([float(metric.rows([digests[i] for i in chosen], picked)) for digests in sides])

        return _Drawn(np.array([float(row) for row in rows]), bootstrap.resampled_values(chosen_values, len(labels)), short=True)
    together = np.concatenate(rows, axis=1)
    columns = together.shape[1] // len(sides)

    def value(sums: np.ndarray) -> np.ndarray:
        return np.stack([metric.value(sums[..., i * columns : (i + 1) * columns]) for i in range(len(sides))], axis=-1)

    imagined = _imagined([metric.answered(digests, row) for digests, row in zip(sides, rows, strict=True)])
    draws = value(bootstrap.resampled_sums(together, imagined=imagined))
    return _Drawn(value(together.sum(axis=0)), draws, short=imagined is None)


def _imagined(sides: Sequence[Answered | None]) -> bootstrap.Imagined | None:
    """Examples for every way in which the sides may be right and wrong, two in all; None where answers are not known."""
    known = [side for side in sides if side is not None]
    if len(known) < len(sides):
        return None
    ways = list(itertools.product((True, False), repeat=len(known)))
    rows = [
        np.concatenate([side.right if right else side.wrong for side, right in zip(known, way, strict=True)], axis=1)
        for way in ways
    ]
    return bootstrap.Imagined(np.concatenate(rows), np.tile(known[0].part, len(ways)) * (_IMAGINED / len(ways)))


def _flips(artifact: Sequence[Any], original: Sequence[Any], labels: Sequence[np.ndarray], metric: Metric) -> Flips | None:
    answered = [
        (metric.answers(ours, label), metric.answers(theirs, label))
        for ours, theirs, label in zip(artifact, original, labels, strict=True)
    ]
    pairs = [(ours, theirs) for ours, theirs in answered if ours is not None and theirs is not None]
    if not pairs:
        return _flips_of_numbers(metric.rows(artifact, labels), metric.rows(original, labels))
    answers = sum(len(ours[0]) for ours, _ in pairs)
    changed = sum(int((ours[0] != theirs[0]).sum()) for ours, theirs in pairs)
    to_wrong = sum(int((theirs[1] & ~ours[1]).sum()) for ours, theirs in pairs)
    to_right = sum(int((ours[1] & ~theirs[1]).sum()) for ours, theirs in pairs)
    return Flips(answers, changed, to_wrong, to_right)


def _flips_of_numbers(ours: np.ndarray, theirs: np.ndarray) -> Flips | None:
    """Of a user's metric whose numbers are all 0 or 1, which are wrong and right."""
    if ours.ndim == 0 or theirs.ndim == 0 or not np.isin([ours[:, 0], theirs[:, 0]], (0, 1)).all():
        return None
    after, before = ours[:, 0] == 1, theirs[:, 0] == 1
    return Flips(len(after), None, int((before & ~after).sum()), int((after & ~before).sum()))
