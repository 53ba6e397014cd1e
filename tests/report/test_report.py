from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from onnx_models import embedding_table, save_encoder

from edgecomp.bench.options import BenchOptions
from edgecomp.bench.output import format_records
from edgecomp.bench.record import OperatorTime, OperatorTimes, Record, Validity
from edgecomp.bench.runner import run_benches
from edgecomp.bench.stats import summarize
from edgecomp.errors import CheckpointError, ModelError, OutputError
from edgecomp.formats import lut
from edgecomp.inspect.model import inspect_layers
from edgecomp.inspect.result import Inspection
from edgecomp.report import write_report
from edgecomp.report.comparison import compare_records
from edgecomp.size import count_bytes
from edgecomp.tensor import LayerPlan, Stage
from edgecomp.verify import VerifyOptions, VerifyResult, verify


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    table = embedding_table()
    models = [
        save_encoder(folder / "small.onnx", table + np.float32(0.01)),
        save_encoder(folder / "<b>odd & name.onnx", np.vstack([table, table])),
    ]
    records = run_benches(models, BenchOptions(sequence=8, rounds=1, min_iterations=5, min_duration_s=0, max_spread=0))
    (folder / "bench-all.json").write_text(format_records(records, "json"), encoding="utf-8")
    ids = np.arange(12).reshape(2, 6)
    inputs = [{"input_ids": ids, "attention_mask": np.ones_like(ids)}]
    result = verify(models[0], lambda batch: {"last_hidden_state": table[batch["input_ids"]]}, inputs, VerifyOptions())
    (folder / "verify-small.json").write_text(json.dumps(result.to_json()), encoding="utf-8")
    factor = lut.pack(
        np.zeros((100, 64), np.uint8), np.zeros((1, 16), np.int8), np.ones((100, 2), np.int8), np.ones(100, np.float32),
        bits=4, block_size=32,
    )  # fmt: skip
    layers = inspect_layers(
        {"table": LayerPlan(((Stage("w", "gather"),),))},
        {"w": factor},
        {"table": factor.shape[0] * factor.shape[1]},
        {"w": {"relative_error": 0.5}},
    )
    inspection = Inspection("small.ec", "toy model", {"name": "lut-4bit"}, layers, 0, 0, count_bytes({"w": factor}, {}, 6400))
    (folder / "inspect.json").write_text(json.dumps(inspection.to_json()), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def page(run_folder: Path) -> str:
    return write_report([run_folder], run_folder / "report.html").read_text(encoding="utf-8")


def records_of(folder: Path) -> list[Record]:
    return [Record.model_validate(value) for value in json.loads((folder / "bench-all.json").read_text(encoding="utf-8"))]


def test_the_page_loads_nothing_from_elsewhere(page: str) -> None:
    assert not re.search(r"""<(script|img|iframe|link|source)[^>]+(src|href)\s*=\s*["']?(https?:)?//""", page)
    assert not re.search(r"@import|url\(\s*[\"']?https?:", page.split("<script>")[0])
    assert page.count("<script>/**\n* plotly.js") == 1


def test_a_policy_allows_the_pages_own_scripts_and_nothing_else(page: str) -> None:
    policy = html.unescape(re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', page)[0])
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", page, re.DOTALL)
    digests = {base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts}
    assert len(scripts) > 5
    assert set(re.findall(r"'sha256-([^']+)'", policy)) == digests
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == rules["base-uri"] == "'none'"
    assert "unsafe" not in rules["script-src"]
    assert page.index("Content-Security-Policy") < page.index("<script")


def test_the_table_holds_the_records_numbers(page: str, run_folder: Path) -> None:
    table = page[page.index('id="artifacts"') :].split("</table>")[0]
    values = re.findall(r'data-value="([^"]+)">([^<]+)<', table)
    for record in records_of(run_folder):
        latency, above = record.summary.latency, record.summary.above_empty_session
        for number in (latency.p50_ns, latency.p90_ns, latency.p99_ns):
            assert (str(number), f"{number / 1e6:.3f}") in values
        for number in (record.artifact.bytes, above.anonymous_bytes, above.peak_resident_bytes):
            assert (str(number), f"{number / 2**20:.2f}") in values
    verification = json.loads((run_folder / "verify-small.json").read_text(encoding="utf-8"))
    cosine = verification["comparisons"][0]["outputs"][0]["sentence_cosine"]
    assert (str(cosine), f"{cosine:.4f}") in values
    inspection = json.loads((run_folder / "inspect.json").read_text(encoding="utf-8"))
    text = page.replace("\n", " ")
    assert f"{inspection['size']['bits_per_weight']:.3f} bits per weight" in text
    for record in records_of(run_folder):
        if record.artifact.name.startswith(inspection["name"].partition(".")[0]):
            bits = 8 * record.artifact.bytes / inspection["size"]["parameters"]
            assert (str(bits), f"{bits:.3f}") in values
            assert f"As {record.artifact.name}, its graph included, {record.artifact.bytes / 2**20:.2f} MiB: " in text


def test_names_are_escaped_and_invalid_records_marked(page: str) -> None:
    assert "&lt;b&gt;odd &amp; name.onnx" in page
    assert "<b>odd" not in page.split("</style>")[1].split("plotly.js")[0]
    assert "spread of the samples" in page


def test_a_button_copies_the_page_as_markdown(page: str, run_folder: Path) -> None:
    assert '<button type="button" id="copy" hidden>' in page  # a script of the page shows it where it works
    text = html.unescape(page.split('<pre id="markdown" hidden>')[1].split("</pre>")[0])
    assert text.startswith("## toy model, compressed\n")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert rows[0].startswith("| artifact | files MiB | bits a weight | cosine |")
    assert {row.count(" | ") for row in rows} == {rows[0].count(" | ")}
    for record in records_of(run_folder):
        assert f"{record.summary.latency.p50_ns / 1e6:.3f}" in text
    assert "- **Speed: " in text


def test_no_table_is_wider_than_a_phone(page: str) -> None:
    """A figure of a card says which it is; without cards there are three columns at most."""
    for kind, table in re.findall(r'<table class="([a-z ]+)"[^>]*>(.*?)</table>', page, re.DOTALL):
        body = table.split("<tbody>")[1]
        if "cards" in kind.split():
            assert not re.search(r"<td(?![^>]*data-label)[^>]*>[^<]", body)
        else:
            assert max(row.count("<t") for row in body.split("</tr>")) <= 4
    assert "overflow-x" not in page.split("</style>")[0]


def luminance(colour: str) -> float:
    """Of W3C's Web Content Accessibility Guidelines 2.2."""
    digits = colour.lstrip("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first: str, second: str) -> float:
    darker, lighter = sorted((luminance(first), luminance(second)))
    return (lighter + 0.05) / (darker + 0.05)


def test_words_are_read_well_in_every_scheme(page: str) -> None:
    schemes = [dict(re.findall(r"--(\w+): (#[0-9a-f]+)", rule)) for rule in re.findall(r":root \{(.*?)\}", page, re.DOTALL)]
    light, dark, printed = schemes[:3]
    for scheme in (light, light | dark, light | printed):
        for word in ("ink", "soft", "warn", "good", "link"):
            for ground in ("page", "panel"):
                assert contrast(scheme[word], scheme[ground]) >= 4.5, (word, ground, scheme)
        for mark in ("anonymous", "own", "other"):  # what is no word needs 3
            assert contrast(scheme[mark], scheme["page"]) >= 3, (mark, scheme)


def test_the_raw_records_can_be_taken_from_the_page(page: str, run_folder: Path) -> None:
    links = dict(re.findall(r'<a download="([^"]+)" href="data:application/json;base64,([^"]+)"', page))
    assert links.keys() == {"bench.json", "verify.json", "inspect.json"}
    assert [Record.model_validate(value) for value in json.loads(base64.b64decode(links["bench.json"]))] == records_of(run_folder)


def test_every_chart_is_there(page: str) -> None:
    for name in (
        "size-chart",
        "latency-chart",
        "quality-size-chart",
        "quality-latency-chart",
        "bits_per_weight-0",
        "relative_error-0",
    ):
        assert f'id="{name}"' in page
    # One chart of memory: a panel for each record, all to the scale of the tallest bar or peak.
    heights = [float(height) for height in re.findall(r'<span class="(?:anonymous|own|other)" style="height: ([0-9.]+)%"', page)]
    peaks = [float(place) for place in re.findall(r'<span class="peak" style="bottom: ([0-9.]+)%"', page)]
    assert (page.count('<ul class="panels">'), page.count('<span class="stack">'), len(heights), len(peaks)) == (1, 10, 30, 2)
    assert max(*peaks, *(sum(heights[start : start + 3]) for start in range(0, 30, 3))) == pytest.approx(100, abs=0.1)


def test_records_alone_make_a_page(run_folder: Path, tmp_path: Path) -> None:
    records = records_of(run_folder)
    text = write_report([*records, *records], tmp_path / "page.html").read_text(encoding="utf-8")
    assert "4 artifacts, measured" in text
    assert "small (2)" in text


def test_an_existing_page_is_kept_unless_told_otherwise(run_folder: Path, page: str) -> None:
    with pytest.raises(OutputError, match="exists already"):
        write_report([run_folder], run_folder / "report.html")
    write_report([run_folder], run_folder / "report.html", overwrite=True)
    assert not list(run_folder.glob("*.partial"))
    with pytest.raises(OutputError, match="create it first"):
        write_report([run_folder], run_folder / "missing" / "report.html")


def test_folders_that_cannot_be_reported(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no run folder"):
        write_report([tmp_path / "none"], tmp_path / "r.html")
    with pytest.raises(ModelError, match="nothing to report"):
        write_report([tmp_path], tmp_path / "r.html")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no json", "not JSON"),
        ('{"kind": "bench", "schema_version": 9}', "version 9"),
        ('{"kind": "verify", "schema_version": 1}', "must hold bench"),
        ('{"kind": "bench", "schema_version": 2}', "not a valid bench record"),
        ("3", "must hold bench"),
    ],
)
def test_a_broken_record_names_its_file(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "bench.json").write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError, match=message) as caught:
        write_report([tmp_path], tmp_path / "r.html")
    assert "bench.json" in str(caught.value)


def test_results_survive_the_way_through_json(run_folder: Path) -> None:
    from edgecomp.report.run_folder import load_runs

    runs = load_runs([run_folder])
    assert isinstance(runs.verifications[0], VerifyResult)
    assert json.loads(json.dumps(runs.verifications[0].to_json())) == json.loads(
        (run_folder / "verify-small.json").read_text(encoding="utf-8")
    )
    assert runs.inspections[0].to_markdown().startswith("| layer |")


def test_bytes_are_shown_by_what_they_are_for(page: str) -> None:
    # 7 tiles of 16 rows, 64 columns of 4 bits: 3584 bytes of 3584 + (224 + 448) + (16 + 14).
    for part, percent in {"codes": "83.6", "scales": "15.7", "codebooks": "0.7"}.items():
        assert f"{part} 0.00 MiB ({percent} %)" in page


@pytest.mark.parametrize(
    ("source", "title"),
    [
        ("org/model", "org/model, compressed"),
        ("package.module:factory", "package.module:factory, compressed"),
        ("/home/someone/model", "small, compressed"),
        ("./model.gguf", "small, compressed"),
        (None, "small, compressed"),
    ],
)
def test_the_title_names_the_model_and_no_folder(source: str | None, title: str, run_folder: Path, tmp_path: Path) -> None:
    inspection = json.loads((run_folder / "inspect.json").read_text(encoding="utf-8"))
    (tmp_path / "inspect.json").write_text(json.dumps({**inspection, "source": source}), encoding="utf-8")
    assert f"<h1>{title}</h1>" in write_report([tmp_path], tmp_path / "r.html").read_text(encoding="utf-8")


def other(record: Record, *, device: str, samples: Sequence[int] = (), failure: str | None = None) -> Record:
    """The record as another device would have made it."""
    rounds = [round_.model_copy(update={"measurement": round_.measurement.model_copy(update={"samples_ns": list(samples)})})
              for round_ in record.rounds]  # fmt: skip
    if failure is not None:
        validity = Validity(valid=False, reasons=[failure], notes=[])
        changed = {"rounds": [], "summary": None, "environment": None, "failure": failure, "validity": validity}
        return record.model_copy(update={"device": device, **changed})
    return record.model_copy(update={"device": device, "rounds": rounds, "summary": summarize(rounds)})


def test_devices_stand_side_by_side_and_one_that_failed_says_why(run_folder: Path, tmp_path: Path) -> None:
    first = records_of(run_folder)[0]
    failed = other(first, device="ssh://pi", failure="ssh://pi is not reached: <no route>")
    text = write_report([first, failed], tmp_path / "page.html").read_text(encoding="utf-8")
    assert "1 artifact, measured on 2 devices" in text
    assert "ssh://pi: not reached" in text
    assert "! small.onnx on ssh://pi: ssh://pi is not reached: &lt;no route&gt;" in text


def test_a_slower_run_is_marked_and_a_noisy_one_is_not(run_folder: Path, tmp_path: Path) -> None:
    first = records_of(run_folder)[0]
    steady = [1000 + step % 7 for step in range(200)]
    before = other(first, device="local", samples=steady)
    for samples, verdict in (
        ([sample * 11 // 10 for sample in steady], "regression"),
        ([sample * 9 // 10 for sample in steady], "improvement"),
        ([sample + step % 2 for step, sample in enumerate(steady)], "no change"),
    ):
        now = other(first, device="local", samples=samples)
        (comparison,) = compare_records([now], [before])
        p50 = comparison.changes[0]
        assert (p50.figure, p50.verdict) == ("p50 ns", verdict)
        assert p50.low is not None
        assert p50.high is not None
        assert p50.low <= p50.ratio <= p50.high
        text = write_report([now], tmp_path / "page.html", baseline=[before], overwrite=True).read_text(encoding="utf-8")
        assert f">{verdict}</td>" in text
    # Rounds that differ by themselves make the interval wide: a change within that is none.
    noisy = first.rounds[0].measurement.model_copy(update={"samples_ns": [2 * sample for sample in steady]})
    rounds = [before.rounds[0], before.rounds[0].model_copy(update={"measurement": noisy})]
    wide = before.model_copy(update={"rounds": rounds, "summary": summarize(rounds)})
    (comparison,) = compare_records([wide], [before])
    assert comparison.changes[0].verdict == "no change"


def test_runs_without_a_common_benchmark_say_so(run_folder: Path, tmp_path: Path) -> None:
    first = records_of(run_folder)[0]
    text = write_report([first], tmp_path / "page.html", baseline=[other(first, device="adb://", samples=[1])])
    assert "No benchmark of the earlier run" in text.read_text(encoding="utf-8")


def test_time_by_operator_is_shown_with_its_bars(run_folder: Path, tmp_path: Path) -> None:
    operators = [OperatorTime(operator=name, nodes=3, calls=30, total_ns=ns) for name, ns in (("Mat<Mul", 7_500_000), ("B", 1_000))]
    record = records_of(run_folder)[0]
    timed = record.model_copy(update={"operators": OperatorTimes(inferences=10, total_ns=10_000_000, operators=operators)})
    text = write_report([timed, record], tmp_path / "page.html").read_text(encoding="utf-8")
    section = text[text.index("<h2>Time by operator</h2>") :].split("<h2>How it was measured")[0]
    assert section.count("<section>") == 1  # none for the record without
    assert re.findall(r'<th scope="row">([^<]+)<', section) == ["Mat&lt;Mul", "1 other", "the runtime itself"]
    assert re.findall(r"width: ([0-9.]+)%", section) == ["75.0", "0.0", "25.0"]
    assert '<td class="number" data-value="0.75">75.0 %</td>' in section
    assert "Time by operator" not in write_report([record], tmp_path / "other.html").read_text(encoding="utf-8")
