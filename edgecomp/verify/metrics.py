"""Differences between two models' outputs, summed over batches, and perplexity."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class OutputDifference:
    """One output against its reference; padded positions (attention mask 0) are left out.

    Args:
        name: the output.
        max_absolute: max |a - b|.
        relative: ||a - b|| / ||b|| over everything, b the reference.
        cosine: mean over rows (vectors along the last axis).
        rows: number of rows.
        sentence_cosine: mean over sentences of the cosine of the masked mean over positions; None for an output that is not
            `[batch, sequence, features]` of masked inputs.
        sentences: number of sentences.
        not_finite: values that are NaN or infinite where the reference's are finite; any makes a verification fail.
        undefined: values of the reference that are NaN, or infinite where the other is not: with them nothing is verified.

    """

    name: str
    max_absolute: float
    relative: float
    cosine: float
    rows: int
    sentence_cosine: float | None
    sentences: int
    not_finite: int = 0
    undefined: int = 0


class DifferenceSum:
    """Adds up the differences of one output over batches.

    Args:
        name: of the output.

    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._max_absolute = 0.0
        self._squared_difference = 0.0
        self._squared_reference = 0.0
        self._not_finite = 0
        self._undefined = 0
        self._cosines: list[np.ndarray] = []
        self._sentence_cosines: list[np.ndarray] = []

    def add(self, value: np.ndarray, reference: np.ndarray, mask: np.ndarray | None) -> None:
        """Add a batch; `mask` is `[batch, sequence]` with 1 for real positions, or None.

        Raises:
            ValueError: the shapes differ.

        """
        if value.shape != reference.shape:
            raise ValueError(f"output {self._name} has shape {list(value.shape)} and its reference {list(reference.shape)}")
        a, b = value.astype(np.float64), reference.astype(np.float64)
        infinite = np.isinf(a) & (a == b)  # such as scores that a model rules out: no difference, which inf - inf is not
        a[infinite] = b[infinite] = 0
        if mask is not None and a.ndim == 3 and a.shape[:2] == mask.shape:
            self._sentence_cosines.append(cosine(masked_mean(a, mask), masked_mean(b, mask)))
            a, b = a[mask != 0], b[mask != 0]
        self._not_finite += int((~np.isfinite(a) & np.isfinite(b)).sum())
        self._undefined += int((~np.isfinite(b)).sum())
        # NaN must win: np.max keeps it, and max() would lose it.
        self._max_absolute = float(np.max([self._max_absolute, np.abs(a - b).max(initial=0.0)]))
        self._squared_difference += float(np.square(a - b).sum())
        self._squared_reference += float(np.square(b).sum())
        self._cosines.append(cosine(a, b))

    def result(self) -> OutputDifference:
        """The figures over all batches so far."""
        cosines = np.concatenate(self._cosines)
        sentences = np.concatenate(self._sentence_cosines) if self._sentence_cosines else None
        difference, reference = math.sqrt(self._squared_difference), math.sqrt(self._squared_reference)
        return OutputDifference(
            name=self._name,
            max_absolute=self._max_absolute,
            relative=difference / reference if reference else (0.0 if difference == 0 else math.inf),
            cosine=float(cosines.mean()),
            rows=len(cosines),
            sentence_cosine=None if sentences is None else float(sentences.mean()),
            sentences=0 if sentences is None else len(sentences),
            not_finite=self._not_finite,
            undefined=self._undefined,
        )


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of the vectors along the last axis, one per row; 1 for two zero vectors, 0 for a zero vector and another."""
    a, b = np.atleast_1d(a), np.atleast_1d(b)
    a, b = a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1])
    norm_a, norm_b = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    product = norm_a * norm_b
    both_zero = ((norm_a == 0) & (norm_b == 0)).astype(np.float64)
    result: np.ndarray = np.where(product == 0, both_zero, (a * b).sum(axis=1) / np.where(product == 0, 1.0, product))
    return result


def masked_mean(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Mean of `[batch, sequence, features]` over the positions whose mask is 1: `[batch, features]`, zeros where none is."""
    weights = (mask != 0).astype(values.dtype)[:, :, None]
    # np.where, since a padded position may hold NaN and NaN * 0 is NaN.
    mean: np.ndarray = np.where(weights != 0, values, 0).sum(axis=1) / np.maximum(weights.sum(axis=1), 1)
    return mean


def negative_log_likelihood(log_probabilities: np.ndarray, tokens: np.ndarray) -> float:
    """Sum over tokens 2..T of -log p(token | tokens before it), natural logarithm.

    Args:
        log_probabilities: `[T, vocabulary]`, of the token after each.
        tokens: `[T]`.

    """
    return -float(log_probabilities[np.arange(len(tokens) - 1), tokens[1:]].sum())


def divergence(reference: np.ndarray, other: np.ndarray) -> float:
    """Sum over positions 1..T-1 of the Kullback-Leibler divergence KL(reference || other) in nats, of log-probabilities."""
    return float((np.exp(reference[:-1]) * (reference[:-1] - other[:-1])).sum())


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logarithms of the probabilities along the last axis, float64."""
    scores = logits.astype(np.float64)
    scores -= scores.max(axis=-1, keepdims=True)
    scores -= np.log(np.exp(scores).sum(axis=-1, keepdims=True))
    return scores
