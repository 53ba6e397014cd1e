"""Tests of a language model as llama-bench has them: what is run, what is told of it, and what is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgecomp.acceptance.evidence import evidence_of
from edgecomp.bench.options import BenchOptions
from edgecomp.bench.runner import run_benches
from edgecomp.bench.token_tests import tests_of as folder_tests
from edgecomp.cli import main
from edgecomp.errors import ConfigError, ModelError
from edgecomp.exported.language_folder import DESCRIPTION, TOKENIZER
from edgecomp.generation.session import Session

QUICK = BenchOptions(
    rounds=1, max_spread=1e9, repetitions=2, prompt_tokens=(16,), generate_tokens=(5,), depths=(0, 9), max_start_celsius=1e9
)


@pytest.mark.parametrize("kind", ["fused_folder", "portable_folder"])
def test_the_tokens_go_through_the_model(kind: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(kind)
    records = run_benches([path], QUICK, quiet=True)
    assert [record.test for record in records] == ["pp16", "tg5", "pp16 @ d9", "tg5 @ d9"]
    for record, test in zip(records, folder_tests(path, QUICK), strict=True):
        assert (record.failure, record.validity.reasons) == (None, [])
        assert record.token_test == test.test
        measured = record.rounds[0].measurement
        assert (len(measured.samples_ns), measured.tokens, measured.batch) == (2, test.test.tokens, 1)
        session = Session(test.folder)
        tokens = test.inputs(QUICK.seed)["tokens"].tolist()
        if test.test.depth:
            session.feed(tokens[: test.test.depth])
        rest = tokens[test.test.depth :]
        for part in [rest] if test.test.kind == "pp" else [[token] for token in rest]:
            logits = session.feed(part)
        assert measured.outputs[0].sha256 == hashlib.sha256(np.ascontiguousarray(logits).tobytes()).hexdigest()
        assert measured.cache_bytes == session.cache_bytes
        assert record.summary is not None
        assert record.summary.latency is not None
        assert record.summary.throughput is not None
        rate = test.test.tokens / (record.summary.latency.p50_ns / 1e9)
        assert record.summary.throughput.items_per_second == pytest.approx(rate)


def test_a_row_for_each_test(fused_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["bench", str(fused_folder), "-p", "8,16", "-n", "0", "-d", "0,4", "-r", "2", "--rounds", "2", "--quiet"]
    assert main([*command, "--save", str(tmp_path / "bench.json"), "--operators", "--sessions", "2"]) == 0
    table = [[cell.strip() for cell in line.split("|")] for line in capsys.readouterr().out.splitlines()]
    rows = [dict(zip(table[0], cells, strict=True)) for cells in table[2:6]]
    assert [row["test"] for row in rows] == ["pp8", "pp16", "pp8 @ d4", "pp16 @ d4"]
    assert all(float(row["t/s"]) > 0 and float(row["cache MiB"]) > 0 for row in rows)
    assert {row["model"].removesuffix(" !") for row in rows} == {"fused"}
    saved = json.loads((tmp_path / "bench.json").read_text())
    assert [record["token_test"] for record in saved][3] == {"kind": "pp", "tokens": 16, "depth": 4}
    assert all(record["operators"]["operators"] and record["sessions"]["sessions"] == 2 for record in saved)
    assert main(["report", str(tmp_path), "-o", str(tmp_path / "report.html")]) == 0
    assert "pp16 @ d4" in (tmp_path / "report.html").read_text()


def test_a_slow_board_has_time_for_all_repetitions(fused_folder: Path) -> None:
    """Five of 128 tokens at two a second are more than the minute that other models have."""
    test = next(folder_tests(fused_folder, QUICK))
    assert test.options(replace(QUICK, timeout_s=3000.0)).max_duration_s == 3000
    assert test.options(replace(QUICK, warmup=5)).warmup == 1


def test_limits_of_an_inference_do_not_judge_hundreds_of_tokens(fused_folder: Path) -> None:
    records = run_benches([fused_folder], replace(QUICK, depths=(0,)), quiet=True)
    assert {found.figure for found in evidence_of(records, [])} == {"bytes", "load_ms", "peak_memory_bytes"}


def test_no_tokenizer_is_needed(fused_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(fused_folder, tmp_path / "bare")
    (folder / TOKENIZER).unlink()
    content = json.loads((folder / DESCRIPTION).read_text())
    del content["files"][TOKENIZER]
    (folder / DESCRIPTION).write_text(json.dumps(content))
    (record,) = run_benches([folder], replace(QUICK, generate_tokens=(), depths=(0,)), outputs=tmp_path / "out", quiet=True)
    assert record.failure is None
    assert np.load(tmp_path / "out" / "bare-pp16" / "local.npz")["logits"].shape == (79,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-p", "60", "-d", "5"], "pp60 @ d5 is of 65 tokens"),
        (["-p", "0", "-n", "0"], "must be tested by something"),
        (["-p", "x"], "--prompt-tokens must be whole numbers"),
        (["-d", "-1"], "--depth must be whole numbers"),
        (["-r", "0"], "repetitions must be at least 1"),
    ],
)
def test_refusals(fused_folder: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(fused_folder), "--quiet", "-n", "0", *arguments]) == ConfigError.exit_code
    assert message in capsys.readouterr().err


def test_what_is_no_folder_of_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(tmp_path)]) == ModelError.exit_code
    assert "must be the folder of a language model" in capsys.readouterr().err
