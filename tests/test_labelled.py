from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from onnx_models import embedding_table, save_encoder

from edgecomp.cli import main
from edgecomp.errors import CalibrationError, ConfigError
from edgecomp.progress import ProgressBar
from edgecomp.verify import (
    Classes,
    Examples,
    Own,
    VerifyOptions,
    parse_perturbations,
    perturbed_arrays,
    read_labels,
    read_slices,
    typos,
    verify,
)
from edgecomp.verify.bootstrap import interval, resampled_sums, resampled_values
from edgecomp.verify.labelled import LEAST_EXAMPLES, Judgement, judge
from edgecomp.verify.perturbations import STRENGTHS, Perturbation, blur, jpeg
from edgecomp.verify.scores import IGNORED, Metric

RANDOM = np.random.default_rng(5)


def one_hot(answers: np.ndarray, classes: int = 3) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[answers]


def judged(ours: np.ndarray, theirs: np.ndarray, labels: np.ndarray, metric: Metric, **more: object) -> Judgement:
    """Judge two tables of answers: sample i asks for row i."""
    samples = [{"x": np.array([i])} for i in range(len(labels))]
    examples = Examples(samples, list(labels), **more)  # type: ignore[arg-type]
    sides = [lambda sample, table=table: {"logits": table[sample["x"]]} for table in (ours, theirs)]
    return judge(sides[0], sides[1], examples, metric, "library", ProgressBar(quiet=True))


def test_accuracy_flips_and_intervals_by_hand() -> None:
    labels = np.array([0, 1, 2, 0] * 25)
    theirs = labels.copy()
    theirs[:10] = (labels[:10] + 1) % 3  # ten wrong answers
    ours = theirs.copy()
    ours[:4] = labels[:4]  # four of them mended,
    ours[50:58] = (labels[50:58] + 1) % 3  # eight right ones lost,
    ours[5] = (labels[5] + 2) % 3  # and one wrong answer is another
    found = judged(one_hot(ours), one_hot(theirs), labels, Classes("accuracy")).overall
    assert (found.value, found.original, found.examples) == (0.86, 0.9, 100)
    assert found.flips is not None
    assert (found.flips.answers, found.flips.changed, found.flips.to_wrong, found.flips.to_right) == (100, 13, 8, 4)
    assert found.flips.rate == 0.12
    # The normal approximation: paired differences have variance (12 - 16 / 100) / 100.
    error = 1.96 * ((0.12 - 0.04**2) / 100) ** 0.5
    assert found.difference_low == pytest.approx(-0.04 - error, abs=0.012)
    assert found.difference_high == pytest.approx(-0.04 + error, abs=0.012)


def test_f1_and_iou_equal_their_definitions() -> None:
    labels, answers = RANDOM.integers(3, size=60), RANDOM.integers(3, size=60)
    tables = one_hot(answers), one_hot(labels)
    counts = [
        (((answers == c) & (labels == c)).sum(), ((answers == c) & (labels != c)).sum(), ((answers != c) & (labels == c)).sum())
        for c in range(3)
    ]
    f1 = [2 * tp / (2 * tp + fp + fn) for tp, fp, fn in counts]
    iou = [tp / (tp + fp + fn) for tp, fp, fn in counts]
    expected = {"f1": np.mean(f1), "f1:2": f1[2], "iou": np.mean(iou), "iou:0": iou[0]}
    for name, value in expected.items():
        found = judged(*tables, labels, Classes(name)).overall
        assert found.value == pytest.approx(value)
        assert found.original == 1
        assert found.low is not None
        assert found.high is not None
        assert found.low < value < found.high


def test_positions_that_do_not_count_and_images_with_classes_first() -> None:
    labels = RANDOM.integers(3, size=(40, 4, 5))
    scores = np.moveaxis(one_hot(labels), -1, 1).copy()  # [40, 3, 4, 5]
    scores[:, :, 0] = 0  # answers 0 there
    ignored = labels.copy()
    ignored[:, 0] = IGNORED
    assert judged(scores, scores, ignored, Classes("iou")).overall.value == 1
    assert judged(scores, scores, labels, Classes("accuracy")).overall.value < 1


def test_next_token_takes_its_labels_from_the_inputs() -> None:
    ids = RANDOM.integers(5, size=(40, 8))
    table = one_hot(np.roll(np.arange(5), -1), 5)  # always answers the id after this one

    def run(sample: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"logits": table[sample["input_ids"]]}

    samples = [{"input_ids": row[None], "attention_mask": np.array([[1] * 6 + [0] * 2])} for row in ids]
    found = judge(run, run, Examples(samples), Classes("next-token"), "library", ProgressBar(quiet=True)).overall
    expected = ((ids[:, :-1] + 1) % 5 == ids[:, 1:])[:, :5].mean()
    assert found.value == pytest.approx(expected)
    assert found.flips is not None
    assert found.flips.answers == 40 * 5


def test_own_metrics_of_one_number_and_of_one_for_each() -> None:
    labels, answers = RANDOM.integers(3, size=60), RANDOM.integers(3, size=60)
    each = Own("a:b", lambda outputs, truth: [float(o["logits"].argmax() == t) for o, t in zip(outputs, truth, strict=True)])
    whole = Own("a:b", lambda outputs, truth: np.mean([o["logits"].argmax() == t for o, t in zip(outputs, truth, strict=True)]))
    first = judged(one_hot(answers), one_hot(labels), labels, each).overall
    second = judged(one_hot(answers), one_hot(labels), labels, whole).overall
    plain = judged(one_hot(answers), one_hot(labels), labels, Classes("accuracy")).overall
    assert first.value == second.value == plain.value
    assert (first.low, first.flips is not None, second.flips) == (plain.low, True, None)
    assert second.low == pytest.approx(plain.low, abs=0.05)


@pytest.mark.parametrize("returned", [[1.0, 2.0], float("nan"), "many"])
def test_what_an_own_metric_must_return(returned: object) -> None:
    with pytest.raises(ConfigError, match="the metric a:b"):
        judged(one_hot(np.zeros(40, int)), one_hot(np.zeros(40, int)), np.zeros(40, int), Own("a:b", lambda o, t: returned))


def test_slices_worst_first_and_small_ones_not_judged() -> None:
    labels = np.zeros(100, int)
    ours = labels.copy()
    ours[40:60] = 1
    slices = [("even",) if i % 2 else ("late", "odd") if i >= 40 else ("odd",) for i in range(100)]
    slices[0] = ("rare",)
    found = judged(one_hot(ours), one_hot(labels), labels, Classes("accuracy"), slices=slices)
    assert [(score.name, score.judged) for score in found.slices] == [
        ("late", True),
        ("odd", True),
        ("even", True),
        ("rare", False),
    ]
    assert found.worst_slice is not None
    assert (found.worst_slice.name, found.worst_slice.examples) == ("late", LEAST_EXAMPLES)
    assert found.worst_slice.difference == pytest.approx(-10 / 30)
    assert (found.slices[-1].low, found.slices[-1].difference_low) == (None, None)


def test_resampled_sums_are_those_of_drawn_examples() -> None:
    rows = RANDOM.integers(3, size=(50, 2)).astype(float)
    sums = resampled_sums(rows, resamples=4000)
    draws = resampled_values(lambda chosen: rows[chosen].sum(axis=0), 50, resamples=4000)
    assert sums.mean(axis=0) == pytest.approx(rows.sum(axis=0), rel=0.02)
    assert np.cov(sums.T) == pytest.approx(np.cov(draws.T), rel=0.15, abs=2)
    assert (resampled_sums(rows) == resampled_sums(rows)).all()
    assert interval(np.array([np.nan, np.nan]), 50)[0] != interval(np.array([1.0]), 50)[0]


def test_intervals_cover_what_they_say() -> None:
    """Of 400 draws of 200 examples: 95 % give or take three standard errors; benchmarks/acceptance.py has many more."""
    random = np.random.default_rng(1)
    cells = np.array([[1, 1], [1, 0], [0, 1], [0, 0]], float)  # artifact and original right
    chances = np.array([0.7, 0.05, 0.1, 0.15])
    covered = 0
    for _ in range(400):
        draws = resampled_sums(cells[random.choice(4, 200, p=chances)], resamples=500)
        low, high = interval((draws[:, 0] - draws[:, 1]) / 200)
        covered += low <= -0.05 <= high
    assert 0.917 <= covered / 400 <= 0.983


@pytest.mark.parametrize("metric", [Classes("accuracy"), Classes("f1"), Own("own", lambda outputs, labels: [1.0] * len(outputs))])
def test_no_flip_of_few_examples_is_no_proof(metric: Classes | Own) -> None:
    """An interval of nothing would hold the truth but rarely: a model that flips 5 % of the answers often shows none of 40."""
    labels = np.arange(40) % 3
    found = judged(one_hot(labels), one_hot(labels), labels, metric)
    assert (found.overall.value, found.overall.difference) == (1, 0)
    assert found.overall.low is not None
    assert found.overall.low <= 0.95
    assert found.overall.difference_low is not None
    assert found.overall.difference_high is not None
    assert -0.11 < found.overall.difference_low < -0.03
    assert 0.03 < found.overall.difference_high < 0.11


def test_few_examples_have_wider_intervals() -> None:
    values = np.random.default_rng(0).standard_normal(100_000)
    plain, few = interval(values), interval(values, 10)
    assert plain[1] == pytest.approx(1.96, abs=0.03)
    assert few[1] == pytest.approx(2.262 * (10 / 9) ** 0.5, abs=0.05)  # Student's t of 9 degrees


def test_labels_and_slices_from_files(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("1\n-100\n0\n")
    assert [int(label) for label in read_labels(tmp_path / "labels.txt")] == [1, -100, 0]
    np.save(tmp_path / "labels.npy", np.ones((2, 3), np.int64))
    np.savez(tmp_path / "labels.npz", labels=np.arange(2))
    assert [label.shape for label in read_labels(tmp_path / "labels.npy")] == [(3,), (3,)]
    assert [int(label) for label in read_labels(tmp_path / "labels.npz")] == [0, 1]
    (tmp_path / "slices.txt").write_text("a, b\n\nb\n")
    assert read_slices(tmp_path / "slices.txt") == [("a", "b"), (), ("b",)]
    for text in ("good\n", "", "9" * 5000):
        (tmp_path / "labels.txt").write_text(text)
        with pytest.raises(CalibrationError, match=r"labels\.txt must hold"):
            read_labels(tmp_path / "labels.txt")
    np.savez(tmp_path / "labels.npz", others=np.arange(2))
    with pytest.raises(CalibrationError, match="the array labels"):
        read_labels(tmp_path / "labels.npz")
    with pytest.raises(CalibrationError, match="name a slice"):
        read_slices(tmp_path / "labels.txt") if (tmp_path / "labels.txt").write_text("\n") else None


def test_a_class_that_no_example_has_is_not_judged() -> None:
    labels = np.array([0, 1] * 40)
    slices = [("with",)] * 2 + [("with", "without") if i % 2 == 0 else ("with",) for i in range(78)]
    found = judged(one_hot(labels), one_hot(labels), labels, Classes("f1:1"), slices=slices)
    assert [(score.name, score.value, score.judged) for score in found.slices] == [("with", 1, True), ("without", None, False)]
    with pytest.raises(CalibrationError, match="needs examples that count"):
        judged(one_hot(labels), one_hot(labels), np.full(80, IGNORED), Classes("accuracy"))


def test_labels_that_do_not_fit_are_refused() -> None:
    table = one_hot(np.zeros(40, int))
    with pytest.raises(CalibrationError, match="one for each of 40 examples, got 3"):
        judge_with = Examples([{"x": np.arange(40)}], [np.asarray(0)] * 3)
        judge(lambda s: {"y": table}, lambda s: {"y": table}, judge_with, Classes("accuracy"), "library", ProgressBar(quiet=True))
    with pytest.raises(CalibrationError, match="classes from 0 to 2"):
        judged(table, table, np.full(40, 3), Classes("accuracy"))
    with pytest.raises(CalibrationError, match="labels must fit the output"):
        judged(table, table, np.zeros((40, 2), int), Classes("accuracy"))
    with pytest.raises(ConfigError, match="a metric must be"):
        Classes("accuracy:3")


def test_strengths_of_perturbations() -> None:
    found = parse_perturbations("noise, blur:2,typos:0.5")
    assert found == [Perturbation("noise", 0.1), Perturbation("blur", 2), Perturbation("typos", 0.5)]
    assert [str(item) for item in found] == ["noise:0.1", "blur:2", "typos:0.5"]
    for name, (_, _, most, unit) in STRENGTHS.items():
        with pytest.raises(ConfigError, match=re.escape(unit)):
            parse_perturbations(f"{name}:{2 * most}")
    with pytest.raises(CalibrationError, match="typos are of a text"):
        perturbed_arrays([{"image": np.zeros((1, 3, 8, 8))}], Perturbation("typos", 0.1))
    for wrong in ("rain", "typos:2", "jpeg:0", "noise:x", "noise:nan"):
        with pytest.raises(ConfigError, match=r"a perturbation must|the strength of"):
            parse_perturbations(wrong)


def test_noise_blur_and_jpeg_do_what_they_say() -> None:
    images = RANDOM.uniform(-1, 1, (4, 3, 21, 30)).astype(np.float32)
    samples = [{"image": image[None], "id": np.array([3])} for image in images]
    for name, least in (("noise:0.5", 0.2), ("blur:1", 0.2), ("jpeg:10", 0.1)):
        (perturbation,) = parse_perturbations(name)
        changed = list(perturbed_arrays(samples, perturbation))
        again = list(perturbed_arrays(samples, perturbation))
        assert [sample["id"] for sample in changed] == [np.array([3])] * 4
        error = np.std(np.stack([c["image"] - s["image"] for c, s in zip(changed, samples, strict=True)]))
        assert least < error < 1
        assert changed[0]["image"].dtype == np.float32
        assert all((c["image"] == a["image"]).all() for c, a in zip(changed, again, strict=True))
    assert blur(np.ones((2, 9, 9)), 1.5) == pytest.approx(np.ones((2, 9, 9)))
    point = np.zeros((1, 15, 15))
    point[0, 7, 7] = 1
    spread = blur(point, 1.0)[0]
    assert spread.sum() == pytest.approx(1, abs=1e-9)
    assert (spread.sum(axis=0) * np.square(np.arange(15) - 7)).sum() == pytest.approx(1, abs=0.1)  # its variance
    with pytest.raises(CalibrationError, match="needs an input of floats"):
        perturbed_arrays([{"input_ids": np.array([[1, 2]])}], Perturbation("noise", 0.1))


def test_jpeg_keeps_what_is_flat_and_rounds_to_its_tables() -> None:
    assert (jpeg(np.full((1, 8, 8), 77.0), 100) == 77).all()
    block = np.clip(np.round(128 + 40 * np.cos(np.pi * (2 * np.arange(8) + 1) / 16))[None, None] * np.ones((1, 8, 1)), 0, 255)
    assert np.abs(jpeg(block, 100) - block).max() <= 1
    # At quality 50 the wave of 113 (its coefficient) is rounded to a multiple of 11.
    coarse = jpeg(block, 50) - 128
    wave = coarse[0, 0] @ np.cos(np.pi * (2 * np.arange(8) + 1) / 16) / 2 * np.sqrt(8)
    assert abs(wave / 11 - round(wave / 11)) < 0.15


def test_typos_are_seeded_and_of_the_stated_part() -> None:
    text = "\n".join(["several plain words stand here now"] * 200)
    changed = typos(text, 0.25)
    assert changed == typos(text, 0.25)
    assert len(changed.splitlines()) == 200
    words = zip(text.split(), changed.split(), strict=True)
    assert np.mean([before != after for before, after in words]) == pytest.approx(0.25, abs=0.04)
    assert typos(text, 0) == text


def test_verify_by_the_command_line_with_two_artifacts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = embedding_table()[:, :8]
    other = table + 0.3 * np.random.default_rng(2).standard_normal(table.shape).astype(np.float32)
    model, old = save_encoder(tmp_path / "new.onnx", other), save_encoder(tmp_path / "old.onnx", table)
    ids = np.arange(80)[:, None]
    np.savez(tmp_path / "inputs.npz", input_ids=ids, attention_mask=np.ones_like(ids), labels=table[ids].argmax(axis=-1))
    command = ["verify", str(model), str(old), "--inputs", str(tmp_path / "inputs.npz"), "--quiet", "--samples", "80"]
    assert main([*command, "--metric", "accuracy"]) == 0
    printed = capsys.readouterr().out
    assert "| all | 80 | 0." in printed
    assert "| 1.0000 |" in printed
    assert main([*command, "--perturb", "noise"]) == 3
    assert "--perturb is of a metric" in capsys.readouterr().err
    assert main([*command, "--metric", "accuracy", "--perturb", "noise"]) == 5
    assert main(["verify", str(model), "--inputs", str(tmp_path / "inputs.npz")]) == 3
    assert "give --against MODEL, or another artifact" in capsys.readouterr().err


def test_a_result_holds_the_judgement(tmp_path: Path) -> None:
    table = embedding_table()[:, :8]
    model = save_encoder(tmp_path / "m.onnx", table)
    samples = [{"input_ids": np.array([[i]]), "attention_mask": np.array([[1]])} for i in range(40)]
    labels = [table[[i]].argmax(axis=-1) for i in range(40)]
    reference = lambda batch: {"last_hidden_state": table[batch["input_ids"]]}  # noqa: E731
    result = verify(
        model,
        reference,
        samples,
        VerifyOptions(),
        examples=Examples(samples, labels),
        metric=Classes("accuracy"),
        reference_name="b",
    )
    assert result.judgement is not None
    assert (result.judgement.overall.value, result.judgement.compared, result.against) == (1, "stock runtime", "b")
    assert "| all | 40 | 1.0000 [0.9250, 1.0000] | 1.0000 | +0.0000 [-0.0500, +0.0500] | 0 | 0 | 0 |" in result.to_markdown()
    assert result.to_json()["judgement"]["overall"]["flips"]["changed"] == 0
