from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx_models import VOCABULARY, embedding_table, save_encoder, save_with_our_node

from edgecomp.errors import CalibrationError, ModelError, VerificationError
from edgecomp.verify import Reference, Tolerance, VerifyOptions, raise_on_failure, verify
from edgecomp.verify.metrics import DifferenceSum, cosine, divergence, log_softmax, masked_mean, negative_log_likelihood

IDS = np.random.default_rng(1).integers(0, VOCABULARY, (3, 6))
MASK = np.array([[1] * 6, [1, 1, 1, 1, 0, 0], [1, 0, 0, 0, 0, 0]])


def reference_of(table: np.ndarray, output: str = "last_hidden_state") -> Reference:
    def run(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {output: table[inputs["input_ids"]]}

    return run


def test_metrics_equal_numpy_over_several_batches(tmp_path: Path) -> None:
    table = embedding_table()
    other = table + 0.1 * np.random.default_rng(2).standard_normal(table.shape).astype(np.float32)
    model = save_encoder(tmp_path / "m.onnx", other)
    batches = [{"input_ids": IDS[i : i + 1], "attention_mask": MASK[i : i + 1]} for i in range(3)]
    result = verify(model, reference_of(table), batches, VerifyOptions())
    (comparison,) = result.comparisons
    assert (comparison.left, comparison.right, result.batches) == ("stock runtime", "reference", 3)
    (output,) = comparison.outputs

    a, b = other[IDS].astype(np.float64), table[IDS].astype(np.float64)
    rows_a, rows_b = a[MASK == 1], b[MASK == 1]
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)  # noqa: E731
    assert output.max_absolute == pytest.approx(np.abs(rows_a - rows_b).max())
    assert output.relative == pytest.approx(np.linalg.norm(rows_a - rows_b) / np.linalg.norm(rows_b))
    assert output.cosine == pytest.approx((unit(rows_a) * unit(rows_b)).sum(axis=1).mean())
    mean = lambda x: np.stack([x[i, : MASK[i].sum()].mean(axis=0) for i in range(3)])  # noqa: E731
    assert output.sentence_cosine == pytest.approx((unit(mean(a)) * unit(mean(b))).sum(axis=1).mean())
    assert (output.rows, output.sentences) == (int(MASK.sum()), 3)


def test_padding_does_not_count_even_if_it_is_nan() -> None:
    values = np.ones((1, 2, 4), np.float32)
    values[0, 1] = np.nan
    total = DifferenceSum("y")
    total.add(values, np.ones_like(values), np.array([[1, 0]]))
    result = total.result()
    assert (result.max_absolute, result.relative) == (0, 0)
    assert result.cosine == pytest.approx(1)
    assert result.sentence_cosine == pytest.approx(1)


def test_nan_in_a_counted_position_fails_every_tolerance(tmp_path: Path) -> None:
    table = embedding_table()
    broken = table.copy()
    broken[IDS[0, 0]] = np.nan
    inputs = [{"input_ids": IDS[:1], "attention_mask": MASK[:1]}, {"input_ids": IDS[1:], "attention_mask": MASK[1:]}]
    options = VerifyOptions(tolerance=Tolerance(max_absolute=1e9, relative=1e9, cosine=-1))
    result = verify(save_encoder(tmp_path / "m.onnx", broken), reference_of(table), inputs, options)
    assert len(result.failures) == 4


def test_nan_where_the_reference_has_none_fails_without_a_tolerance(tmp_path: Path) -> None:
    table = embedding_table()
    broken = table.copy()
    broken[IDS[0, 0], :2] = np.nan, np.inf
    inputs = [{"input_ids": IDS[:1, :1], "attention_mask": MASK[:1, :1]}]
    result = verify(save_encoder(tmp_path / "m.onnx", broken), reference_of(table), inputs, VerifyOptions())
    (failure,) = result.failures
    assert failure.endswith("output last_hidden_state: 2 values are NaN or infinite, and the reference's are not")


def test_nan_in_both_is_no_pass(tmp_path: Path) -> None:
    table = embedding_table()
    table[IDS[0, 0], :2] = np.nan
    inputs = [{"input_ids": IDS[:1, :1], "attention_mask": MASK[:1, :1]}]
    result = verify(save_encoder(tmp_path / "m.onnx", table), reference_of(table), inputs, VerifyOptions())
    (failure,) = result.failures
    assert "2 values of the reference are NaN or infinite, so that nothing is verified" in failure


def test_equal_infinities_are_no_difference() -> None:
    """As in scores that a model rules out."""
    a, b = np.array([[-np.inf, 1.0, 2.0]]), np.array([[-np.inf, 1.0, 4.0]])
    total = DifferenceSum("y")
    total.add(a, b, None)
    result = total.result()
    assert (result.max_absolute, result.relative, result.not_finite) == (2, pytest.approx(2 / 17**0.5), 0)
    assert result.cosine == pytest.approx(9 / 85**0.5)


def test_cosine_of_zero_vectors() -> None:
    assert cosine(np.zeros((1, 3)), np.zeros((1, 3))).tolist() == [1]
    assert cosine(np.zeros((1, 3)), np.ones((1, 3))).tolist() == [0]


def test_mean_of_a_sentence_without_tokens_is_zero() -> None:
    assert masked_mean(np.ones((1, 2, 3)), np.zeros((1, 2))).tolist() == [[0, 0, 0]]


def test_negative_log_likelihood_by_hand() -> None:
    # Three tokens of a vocabulary of two; the first token is given, the last row of logits predicts beyond the window.
    logits = np.array([[0.0, math.log(3)], [math.log(4), 0.0], [9.0, 9.0]], np.float32)
    tokens = np.array([0, 1, 0])
    expected = -math.log(3 / 4) - math.log(4 / 5)
    assert negative_log_likelihood(log_softmax(logits), tokens) == pytest.approx(expected)
    assert negative_log_likelihood(log_softmax(logits + 1e4), tokens) == pytest.approx(expected, abs=1e-3)


def test_divergence_by_hand() -> None:
    # Probabilities (1/4, 3/4) against (1/2, 1/2); the last row predicts beyond the window.
    reference = np.log(np.array([[0.25, 0.75], [0.9, 0.1]]))
    flat = np.log(np.full((2, 2), 0.5))
    assert divergence(reference, flat) == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5))
    assert divergence(reference, reference) == 0


def test_perplexity_of_windows_from_the_start(tmp_path: Path) -> None:
    # Logits depend on the current token only: row i of the table scores what follows token i.
    table = np.random.default_rng(3).standard_normal((5, 5)).astype(np.float32)
    model = save_encoder(tmp_path / "lm.onnx", table, output="logits")
    tokens = np.array([0, 1, 2, 3, 4, 0, 2, 4, 1])
    flat = np.zeros_like(table)
    result = verify(model, reference_of(flat, "logits"), [], VerifyOptions(window=4, windows=2), tokens=tokens)
    assert result.perplexity is not None
    pairs = [(0, 1), (1, 2), (2, 3), (4, 0), (0, 2), (2, 4)]
    probabilities = np.exp(table) / np.exp(table).sum(axis=1, keepdims=True)
    expected = math.exp(-sum(math.log(probabilities[i, j]) for i, j in pairs) / 6)
    assert result.perplexity.values["stock runtime"] == pytest.approx(expected, rel=1e-6)
    assert result.perplexity.values["reference"] == pytest.approx(5)
    # The reference is flat: KL is -log 5 - mean log p, of the rows that predict.
    rows = [i for i, _ in pairs]
    kl = np.mean([-math.log(5) - np.log(probabilities[i]).mean() for i in rows])
    assert result.perplexity.divergences == {"stock runtime": pytest.approx(kl, rel=1e-5)}
    assert (result.perplexity.tokens, result.comparisons) == (6, ())


def test_perplexity_needs_enough_tokens_and_logits(tmp_path: Path) -> None:
    model = save_encoder(tmp_path / "m.onnx", embedding_table())
    options = VerifyOptions(window=4, windows=2)
    with pytest.raises(CalibrationError, match="8 tokens"):
        verify(model, reference_of(embedding_table()), [], options, tokens=np.arange(7))
    with pytest.raises(ModelError, match="logits"):
        verify(model, reference_of(embedding_table()), [], options, tokens=np.arange(8))


def test_what_is_no_exported_model_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"must be a file \*\.onnx or \*\.ort or \*\.pte, got .*m\.ec"):
        verify(tmp_path / "m.ec", reference_of(embedding_table()), [], VerifyOptions())


def test_neither_inputs_nor_tokens_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="neither"):
        verify(save_encoder(tmp_path / "m.onnx", embedding_table()), reference_of(embedding_table()), [], VerifyOptions())


def test_beyond_the_tolerance_ends_with_exit_code_11(tmp_path: Path) -> None:
    table = embedding_table()
    inputs = [{"input_ids": IDS, "attention_mask": MASK}]
    model = save_encoder(tmp_path / "m.onnx", table * 1.5)
    result = verify(model, reference_of(table), inputs, VerifyOptions(tolerance=Tolerance(relative=0.4, cosine=0.99)))
    assert len(result.failures) == 1
    with pytest.raises(VerificationError, match=r"relative error 5\.000e-01 above 0\.4") as caught:
        raise_on_failure(result)
    assert caught.value.exit_code == 11
    raise_on_failure(verify(model, reference_of(table), inputs, VerifyOptions(tolerance=Tolerance(relative=0.6))))


def test_shapes_that_differ_are_an_error(tmp_path: Path) -> None:
    table = embedding_table()
    with pytest.raises(ModelError, match=r"has shape \[3, 6, 64\] and its reference \[3, 6, 32\]"):
        inputs = [{"input_ids": IDS, "attention_mask": MASK}]
        verify(save_encoder(tmp_path / "m.onnx", table), reference_of(table[:, :32]), inputs, VerifyOptions())


def test_library_stock_runtime_and_reference_are_compared_in_pairs(tmp_path: Path, empty_library: Path) -> None:
    model = save_with_our_node(tmp_path / "ours.onnx")
    options = VerifyOptions(library=str(empty_library), tolerance=Tolerance(max_absolute=0.5))
    inputs = [{"x": np.ones((1, 4), np.float32)}]
    result = verify(model, lambda batch: {"y": batch["x"] * 3}, inputs, options)
    errors = {(pair.left, pair.right): pair.outputs[0].max_absolute for pair in result.comparisons}
    assert errors == {("library", "stock runtime"): 0, ("library", "reference"): 1, ("stock runtime", "reference"): 1}
    assert [failure.split(",")[0] for failure in result.failures] == ["library", "stock runtime"]
    quick = verify(model, lambda batch: {"y": batch["x"] * 2}, inputs, replace(options, stock=False))
    assert [(pair.left, pair.right) for pair in quick.comparisons] == [("library", "reference")]


def test_stock_runtime_runs_a_model_with_our_nodes(tmp_path: Path) -> None:
    model = save_with_our_node(tmp_path / "ours.onnx")
    x = np.ones((1, 4), np.float32)
    result = verify(model, lambda inputs: {"y": 2 * inputs["x"]}, [{"x": x}], VerifyOptions(library="none"))
    assert result.comparisons[0].outputs[0].max_absolute == 0
    assert "stock runtime against reference | y" in result.to_markdown()
