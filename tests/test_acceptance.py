from __future__ import annotations

import json
from pathlib import Path

import pytest
from onnx_models import embedding_table, save_encoder

from edgecomp.acceptance import FIGURES, Evidence, Requirements, judge, raise_on_failure, read_requirements, requirements_schema
from edgecomp.acceptance.evidence import evidence_of
from edgecomp.cli import main
from edgecomp.cli.requirements import EXAMPLE
from edgecomp.config import parse
from edgecomp.errors import ConfigError, RequirementError
from edgecomp.verify import Comparison, Flips, Judgement, OutputDifference, Score, VerifyResult


def requirements(*limits: dict[str, object], **more: object) -> Requirements:
    return parse(Requirements, {"version": 1, "limits": list(limits), **more}, "the requirements")


def evidence(figure: str, value: float | None, **more: object) -> Evidence:
    return Evidence(figure, "m.onnx", "local", value, **more)  # type: ignore[arg-type]


def test_each_line_is_passed_failed_or_not_judged() -> None:
    asked = requirements(
        {"figure": "p90_ms", "max": 40},
        {"figure": "p90_ms", "max": 10},
        {"figure": "p90_ms", "max": 40, "device": "ssh://*"},
        {"figure": "joules", "max": 1.0},
        {"figure": "quality", "min": 0.9},
        name="camera",
    )
    verdict = judge(asked, [evidence("p90_ms", 20.0), evidence("quality", None, why="3 examples are too few to judge")])
    assert [line.outcome for line in verdict.lines] == ["passed", "failed", "not judged", "not judged", "not judged"]
    assert verdict.outcome == "failed"
    assert verdict.summary == "FAILED: camera, 1 passed, 1 failed, 3 not judged"
    assert verdict.lines[2].why.startswith("measured on local alone")
    assert "a meter" in verdict.lines[3].why
    assert verdict.lines[4].why == "3 examples are too few to judge"
    with pytest.raises(RequirementError, match=r"1 of 5 requirements do not: p90_ms <= 10: failed, 20$") as caught:
        raise_on_failure(verdict)
    assert caught.value.exit_code == 13
    with pytest.raises(RequirementError, match="4 of 5"):
        raise_on_failure(verdict, complete=True)


def test_a_limit_that_is_reached_but_for_rounding_holds() -> None:
    asked = requirements({"figure": "quality_loss", "max": 0.05})
    assert judge(asked, [evidence("quality_loss", 0.35 - 0.3)]).outcome == "passed"
    assert judge(asked, [evidence("quality_loss", 0.0501)]).outcome == "failed"
    assert judge(asked, [evidence("quality_loss", float("nan"))]).outcome == "failed"


def test_the_worst_of_several_devices_decides() -> None:
    found = [
        Evidence("p90_ms", "m.onnx", "ssh://a", 10.0),
        Evidence("p90_ms", "m.onnx", "ssh://b", 30.0),
        Evidence("p90_ms", "float.onnx", "ssh://b", 90.0, own=False),
    ]
    (line,) = judge(requirements({"figure": "p90_ms", "max": 40}), found).lines
    assert (line.outcome, line.value, line.where) == ("passed", 30.0, "m.onnx on ssh://b")
    (line,) = judge(requirements({"figure": "p90_ms", "max": 40}, artifact="*"), found).lines
    assert (line.outcome, line.where) == ("failed", "float.onnx on ssh://b")
    (line,) = judge(requirements({"figure": "p90_ms", "max": 40}), [found[0], Evidence("p90_ms", "m.onnx", "ssh://b", None)]).lines
    assert line.outcome == "not judged"


def test_a_certain_limit_holds_at_the_worse_end_of_the_interval() -> None:
    found = [evidence("quality_loss", 0.005, worst=0.02)]
    assert judge(requirements({"figure": "quality_loss", "max": 0.01}), found).outcome == "passed"
    (line,) = judge(requirements({"figure": "quality_loss", "max": 0.01, "certain": True}), found).lines
    assert (line.outcome, line.value) == ("failed", 0.02)
    assert "worse end" in line.why


def test_nan_never_passes() -> None:
    for limit in ({"figure": "p90_ms", "max": 40}, {"figure": "quality", "min": 0.5}):
        assert judge(requirements(limit), [evidence(str(limit["figure"]), float("nan"))]).outcome == "failed"


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ({"figure": "speed", "max": 1}, "figure must be one of quality"),
        ({"figure": "p90_ms", "min": 1}, "p90_ms must have max"),
        ({"figure": "p90_ms"}, "p90_ms must have max"),
        ({"figure": "quality", "min": 1, "max": 2}, "quality must have min"),
        ({"figure": "p90_ms", "max": float("nan")}, "finite"),
        ({"figure": "p90_ms", "max": 1, "on": "local"}, "on: unknown key"),
    ],
)
def test_limits_that_make_no_sense_are_refused(limit: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        requirements(limit)


def test_the_example_is_valid_and_the_schema_has_every_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "r.toml").write_text(EXAMPLE)
    assert [str(limit) for limit in read_requirements(tmp_path / "r.toml").limits] == [
        "quality_loss <= 0.01, certainly",
        "p90_ms <= 40 on ssh://pi@*",
        "peak_memory_bytes <= 60,000,000 on ssh://pi@*",
    ]
    assert requirements_schema()["$defs"]["Limit"]["properties"]["figure"]["enum"] == list(FIGURES)
    assert main(["requirements"]) == 0
    assert all(name in capsys.readouterr().out for name in ["quality_loss"])
    assert main(["requirements", str(tmp_path / "r.toml")]) == 0
    assert main(["requirements", "--schema"]) == 0
    assert main(["requirements", str(tmp_path / "none.toml")]) == 3
    assert "the requirements" in capsys.readouterr().err


def test_evidence_of_a_judgement() -> None:
    def score(name: str, value: float, original: float, *, judged: bool = True) -> Score:
        return Score(
            name, 50, value, value - 0.1, value + 0.1, original, value - original, value - original - 0.1, 0.0, None, judged
        )

    overall = Score("all", 100, 0.8, 0.7, 0.9, 0.9, -0.1, -0.2, 0.0, Flips(100, 15, 12, 2))
    slices = (score("dark", 0.5, 0.8), score("day", 0.9, 0.9), score("fog", 0.0, 1.0, judged=False))
    judgement = Judgement("accuracy", "library", overall, slices, (score("noise:0.1", 0.7, 0.85),))
    result = VerifyResult("m.onnx", (), "libedgecomp.so", 1, (), None, "2026-01-01", judgement=judgement)
    told = evidence_of([], [result])
    found = {entry.figure: entry for entry in reversed(told)}  # slices come worst first
    assert {name: round(entry.value, 6) for name, entry in found.items() if entry.value is not None} == {
        "bytes": 0,
        "quality": 0.8,
        "quality_loss": 0.1,
        "flips": 0.14,
        "worst_slice": 0.5,
        "worst_slice_loss": 0.3,
        "perturbed_loss": 0.15,
    }
    assert found["quality_loss"].worst == 0.2
    assert found["worst_slice"].why == "slice dark; too small to judge: fog"
    assert "12 right to wrong" in found["flips"].why
    limits = [{"figure": "worst_slice", "min": 0.45, "certain": certain} for certain in (False, True)]
    assert [(line.outcome, line.value) for line in judge(requirements(*limits), told).lines] == [("passed", 0.5), ("failed", 0.4)]


def test_the_slice_whose_interval_is_worst_decides_what_is_certain() -> None:
    slices = [
        Score(name, 50, value, low, 1.0, 1.0, value - 1, low - 1, 0.0) for name, value, low in [("a", 0.8, 0.79), ("b", 0.9, 0.6)]
    ]
    overall = Score("all", 100, 0.9, 0.8, 1.0, 1.0, -0.1, -0.2, 0.0)
    result = VerifyResult(
        "m.onnx", (), None, 1, (), None, "2026-01-01", judgement=Judgement("f1", "library", overall, tuple(slices))
    )
    limits = [{"figure": "worst_slice_loss", "max": 0.3, "certain": certain} for certain in (False, True)]
    plain, certain = judge(requirements(*limits), evidence_of([], [result])).lines
    assert (plain.outcome, plain.value, plain.why) == ("passed", pytest.approx(0.2), "slice a")
    assert (certain.outcome, certain.value) == ("failed", pytest.approx(0.4))
    assert certain.why.startswith("slice b")


def test_every_output_must_be_close() -> None:
    outputs = tuple(OutputDifference(name, 0.0, 0.0, cosine, 1, None, 0) for name, cosine in (("x", 0.99), ("y", 0.1)))
    result = VerifyResult("m.onnx", (), None, 1, (Comparison("library", "reference", outputs),), None, "2026-01-01")
    (line,) = judge(requirements({"figure": "cosine", "min": 0.9}), evidence_of([], [result])).lines
    assert (line.outcome, line.value, line.why) == ("failed", 0.1, "output y")


def test_bench_and_report_end_with_13(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    save_encoder(tmp_path / "m.onnx", embedding_table())
    (tmp_path / "run").mkdir()
    Path("fails.toml").write_text('version = 1\nlimits = [{figure = "bytes", max = 10}, {figure = "joules", max = 1}]\n')
    Path("passes.toml").write_text('version = 1\nlimits = [{figure = "bytes", max = 100000}]\n')
    quick = ("--rounds", "1", "--min-iterations", "2", "--min-duration", "0", "-s", "4", "--quiet", "--save", "run/bench.json")
    assert main(["bench", "m.onnx", *quick, "--requirements", "passes.toml"]) == 0
    assert "PASSED: requirements, 1 passed" in capsys.readouterr().out
    assert main(["bench", "m.onnx", *quick, "--json", "--requirements", "fails.toml"]) == 13
    captured = capsys.readouterr()
    assert json.loads(captured.out)[0]["artifact"]["name"] == "m.onnx"
    assert "FAILED: requirements, 1 failed, 1 not judged" in captured.err
    assert main(["report", "run", "-o", "r.html", "--requirements", "fails.toml"]) == 13
    assert '<p class="verdict failed" id="verdict">FAILED: requirements, 1 failed, 1 not judged</p>' in Path("r.html").read_text()
    assert main(["report", "run", "-o", "r.html", "--force", "--requirements", "passes.toml"]) == 0
    assert "PASSED" in capsys.readouterr().out
