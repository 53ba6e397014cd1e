"""Metrics of labelled examples: accuracy, F1, IoU, next tokens, and the user's own.

A metric turns an example's outputs into what must be kept of it (`digest`), and the kept ones into a number (`value`). Built-in
ones are functions of sums over examples, which makes resampling quick; a user's function may be any.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from edgecomp.errors import CalibrationError, ConfigError, ModelError, first_line

Arrays = Mapping[str, np.ndarray]
Function = Callable[[Sequence[Arrays], Sequence[np.ndarray]], Any]

IGNORED = -100  # a label that does not count, as PyTorch's cross entropy has it
NEXT_TOKEN = "next-token"
BUILT_IN = ("accuracy", "f1", "iou", NEXT_TOKEN)
_LOGITS = "logits"
_LARGEST_CLASSES = 1000  # of F1 and IoU, which count for each class


class Metric(Protocol):
    """A number about a set of examples, larger is better."""

    name: str

    def digest(self, outputs: Arrays, inputs: Arrays, label: np.ndarray | None) -> Any:
        """What is kept of one example's outputs (without their batch axis)."""

    def rows(self, digests: Sequence[Any], labels: Sequence[np.ndarray]) -> np.ndarray:
        """`[examples, columns]` whose sums `value` takes; the one number of a metric that needs the examples themselves."""

    def value(self, sums: np.ndarray) -> np.ndarray:
        """The metric of sums `[..., columns]`, NaN where nothing counts."""

    def answers(self, digest: Any, label: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """One example's answers and whether each is right; None where the metric knows neither."""

    def answered(self, digests: Sequence[Any], rows: np.ndarray) -> Answered | None:
        """Rows of a right and of a wrong answer; None where an example is not one answer, or the metric knows neither."""


@dataclass(frozen=True)
class Answered:
    """Rows that an example may have, by kinds of examples: `right` and `wrong [kinds, columns]`, and each kind's part of all."""

    right: np.ndarray
    wrong: np.ndarray
    part: np.ndarray


class Classes:
    """Metrics of answers, the class of the largest output.

    `accuracy` is the part of the answers that are right; `f1` the mean over classes of 2 tp / (2 tp + fp + fn), and `iou` that of
    tp / (tp + fp + fn), of classes that a label or an answer has; `f1:3` and `iou:3` those of class 3 alone. Labels are positions
    of classes, one for an example or for each of its positions (tokens, pixels), and -100 where none counts. `next-token` is the
    accuracy of a language model's next token, whose labels are its inputs.

    Args:
        name: as above.
        output: the name of the output that has the classes; None for `logits`, or else the first.

    Raises:
        ConfigError: no such metric.

    """

    def __init__(self, name: str, output: str | None = None) -> None:
        kind, colon, which = name.partition(":")
        if kind not in BUILT_IN or (colon and (kind not in ("f1", "iou") or not which.isdecimal())):
            raise ConfigError(
                f"a metric must be {', '.join(BUILT_IN)}, f1:CLASS, iou:CLASS or package.module:function, got {name!r}"
            )
        self.name, self._kind, self._output = name, kind, output
        self._class = int(which) if colon else None

    def digest(self, outputs: Arrays, inputs: Arrays, label: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, int]:
        """Answers and labels, int32 of one shape, and the number of classes.

        Raises:
            ModelError: no such output.
            CalibrationError: labels do not fit the output, or name a class that it does not have.

        """
        name = self._output or (_LOGITS if _LOGITS in outputs else next(iter(outputs)))
        if name not in outputs:
            raise ModelError(f"the metric's output must be one of {', '.join(outputs)}, got {name!r}: give another --output-name")
        scores = outputs[name]
        if self._kind == NEXT_TOKEN:
            ids = inputs.get("input_ids")
            if ids is None or scores.ndim != 2 or scores.shape[0] != ids.shape[0]:
                raise CalibrationError(
                    f"{NEXT_TOKEN} is of language models: input_ids [sequence] and an output [sequence, vocabulary], "
                    f"got {name} {list(scores.shape)} for an example"
                )
            counted = np.where(inputs.get("attention_mask", np.ones_like(ids)) != 0, ids, IGNORED)
            answers, label, classes = scores[:-1].argmax(axis=-1), counted[1:], scores.shape[-1]
        elif label is None:
            raise CalibrationError(f"{self.name} needs labels: give --labels FILE, or inputs with an array `labels`")
        else:
            answers, classes = _answers(scores, label, name)
        label = np.asarray(label)
        wrong = label[(label != IGNORED) & ((label < 0) | (label >= classes))]
        if wrong.size:
            raise CalibrationError(f"labels must be classes from 0 to {classes - 1}, or {IGNORED} for none, got {wrong.flat[0]}")
        return answers.astype(np.int32).reshape(-1), label.astype(np.int32).reshape(-1), classes

    def rows(self, digests: Sequence[tuple[np.ndarray, np.ndarray, int]], labels: Sequence[np.ndarray]) -> np.ndarray:
        """Of accuracy `[right, counted]`; of the others true positives, false positives and false negatives of each class."""
        if self._kind in ("accuracy", NEXT_TOKEN):
            return np.array([[np.sum((a == t) & (t != IGNORED)), np.sum(t != IGNORED)] for a, t, _ in digests], np.float64)
        classes = max(count for _, _, count in digests)
        if classes > _LARGEST_CLASSES:
            raise ConfigError(f"{self._kind} counts for each of {_LARGEST_CLASSES} classes at most, got {classes}: use accuracy")
        return np.stack([_confusion(answers, truth, classes) for answers, truth, _ in digests])

    def value(self, sums: np.ndarray) -> np.ndarray:
        """As the class says."""
        with np.errstate(invalid="ignore", divide="ignore"):
            if self._kind in ("accuracy", NEXT_TOKEN):
                return np.asarray(sums[..., 0] / sums[..., 1])
            positives, false, missed = np.split(sums, 3, axis=-1)
            of_class = (
                2 * positives / (2 * positives + false + missed) if self._kind == "f1" else positives / (positives + false + missed)
            )
            if self._class is not None:
                if self._class >= of_class.shape[-1]:
                    raise ConfigError(f"{self.name} must name a class from 0 to {of_class.shape[-1] - 1}")
                return np.asarray(of_class[..., self._class])
            present = np.isfinite(of_class)
            return np.asarray(np.where(present, of_class, 0).sum(axis=-1) / present.sum(axis=-1))

    def answers(self, digest: tuple[np.ndarray, np.ndarray, int], label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Those that count."""
        answers, truth, _ = digest
        counted = truth != IGNORED
        return answers[counted], answers[counted] == truth[counted]

    def answered(self, digests: Sequence[tuple[np.ndarray, np.ndarray, int]], rows: np.ndarray) -> Answered | None:
        """Of each class that a label has; wrong is the answer of the most frequent other one."""
        if any(len(truth) != 1 for _, truth, _ in digests):
            return None
        classes = max(count for _, _, count in digests)
        labels = Counter(int(truth[0]) for _, truth, _ in digests if truth[0] != IGNORED).most_common()
        if not labels:
            return None

        def row(answer: int, label: int) -> np.ndarray:
            rows: np.ndarray = self.rows([(np.array([answer]), np.array([label]), classes)], [])
            return rows.reshape(-1)

        others = {label: next((other for other, _ in labels if other != label), (label + 1) % classes) for label, _ in labels}
        return Answered(
            np.stack([row(label, label) for label, _ in labels]),
            np.stack([row(others[label], label) for label, _ in labels]),
            np.array([count for _, count in labels]) / sum(count for _, count in labels),
        )


class Own:
    """A user's function of all examples' outputs and labels.

    Args:
        name: `package.module:function`.
        function: called with a list of outputs (a dictionary of name to array for each example, without a batch axis) and the list
            of labels; returns a number for each example, whose mean is the metric, or one number for all, and is called for every
            resample then. Larger is better.

    """

    def __init__(self, name: str, function: Function) -> None:
        self.name, self._function = name, function

    def digest(self, outputs: Arrays, inputs: Arrays, label: np.ndarray | None) -> dict[str, np.ndarray]:
        """The outputs themselves."""
        return {name: np.array(value) for name, value in outputs.items()}

    def rows(self, digests: Sequence[Arrays], labels: Sequence[np.ndarray]) -> np.ndarray:
        """The numbers and ones, so that sums tell the mean; or the function's one number."""
        values = self._call(digests, labels)
        return values if values.ndim == 0 else np.stack([values, np.ones_like(values)], axis=1)

    def value(self, sums: np.ndarray) -> np.ndarray:
        """The mean."""
        return np.asarray(sums[..., 0] / sums[..., 1])

    def answers(self, digest: Arrays, label: np.ndarray) -> None:
        """A number tells neither."""
        return

    def answered(self, digests: Sequence[Arrays], rows: np.ndarray) -> Answered | None:
        """Where all numbers are 0 or 1, which are wrong and right."""
        if not np.isin(rows[:, 0], (0, 1)).all():
            return None
        return Answered(np.array([[1.0, 1.0]]), np.array([[0.0, 1.0]]), np.ones(1))

    def _call(self, digests: Sequence[Arrays], labels: Sequence[np.ndarray]) -> np.ndarray:
        try:
            values = np.asarray(self._function(digests, labels), np.float64)
        except Exception as error:  # a user's code may raise anything
            raise ConfigError(f"the metric {self.name} failed: {type(error).__name__}: {first_line(error)}") from error
        if values.ndim > 1 or (values.ndim == 1 and len(values) != len(digests)):
            raise ConfigError(
                f"the metric {self.name} must return one number, or one for each of {len(digests)} examples, "
                f"got an array {list(values.shape)}"
            )
        if not np.isfinite(values).all():
            raise ConfigError(f"the metric {self.name} must return finite numbers, got {values[~np.isfinite(values)].flat[0]}")
        return values


def _answers(scores: np.ndarray, label: np.ndarray, name: str) -> tuple[np.ndarray, int]:
    """Classes by the largest score: along the last axis, or the first, where images are `[classes, height, width]`."""
    shape = np.shape(label)
    if scores.ndim == len(shape) + 1 and scores.shape[:-1] == shape and scores.shape[-1] > 1:
        return scores.argmax(axis=-1), scores.shape[-1]
    if scores.ndim == len(shape) + 1 and scores.shape[1:] == shape and scores.shape[0] > 1:
        return scores.argmax(axis=0), scores.shape[0]
    if scores.size == np.size(label):  # one score, the logit of the class 1
        return (scores.reshape(shape) > 0).astype(np.int32), 2
    raise CalibrationError(
        f"labels must fit the output: {name} is {list(scores.shape)} for an example, and its labels are {list(shape)}; "
        "the classes are the output's last axis, or its first"
    )


def _confusion(answers: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    counted = truth != IGNORED
    answers, truth = answers[counted], truth[counted]
    right = np.bincount(truth[answers == truth], minlength=classes)
    return np.concatenate([right, np.bincount(answers, minlength=classes) - right, np.bincount(truth, minlength=classes) - right])
