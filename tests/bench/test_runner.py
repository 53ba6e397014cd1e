from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx_models import embedding_table, save_encoder, save_images, save_with_our_node

from edgecomp import errors
from edgecomp.bench.options import BenchOptions
from edgecomp.bench.output import format_records
from edgecomp.bench.record import Record
from edgecomp.bench.runner import run_bench, run_benches
from edgecomp.cli import main
from edgecomp.devices import open_device
from edgecomp.devices.session import Session
from edgecomp.errors import CheckpointError, ConfigError, ModelError, RuntimeUnavailableError
from edgecomp.exported.executorch_session import ExecutorchModel

QUICK = BenchOptions(sequence=8, rounds=1, warmup=1, min_iterations=5, min_duration_s=0, max_spread=1e9)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    folder = tmp_path_factory.mktemp("models")
    models = [save_encoder(folder / "a.onnx", embedding_table()), save_with_our_node(folder / "ours.onnx")]
    options = BenchOptions(sequence=8, rounds=2, warmup=1, min_iterations=5, min_duration_s=0, max_spread=1e9, library="none")
    return run_benches(models, options, command=["edgecomp", "bench", "a b.onnx"])


def test_a_record_holds_raw_samples_and_everything_around_them(records: list[Record]) -> None:
    record = records[0]
    assert [len(round_.measurement.samples_ns) for round_ in record.rounds] == [5, 5]
    assert record.summary.latency.count == 10
    assert record.validity.valid
    measurement = record.rounds[0].measurement
    assert measurement.inputs == {"input_ids": "int64[1, 8]", "attention_mask": "int64[1, 8]"}
    assert measurement.tokens == 8
    assert measurement.kernels == {}
    assert measurement.versions.keys() == {"onnxruntime"}
    assert measurement.load.cold_ns > 0
    assert record.environment is not None
    assert record.environment.cpu_features
    assert record.command == ["edgecomp", "bench", "a b.onnx"]
    assert (record.test, record.options["library"]) == ("b1 s8", "none")


def test_rounds_of_several_artifacts_alternate(records: list[Record]) -> None:
    started = [record.rounds[index].started_utc for index in range(2) for record in records]
    assert started == sorted(started)


def test_files_are_listed_with_size_and_digest(tmp_path: Path) -> None:
    model = save_encoder(tmp_path / "m.onnx", embedding_table(), external=True)
    artifact = run_bench(model, QUICK).artifact
    data = (tmp_path / "m.data").read_bytes()
    assert [file.name for file in artifact.files] == ["m.onnx", "m.data"]
    assert (artifact.files[1].bytes, artifact.files[1].sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert artifact.bytes == model.stat().st_size + len(data)


def cached(path: Path, *files: Path) -> Path:
    """The files as a cache of downloads keeps them: links into a folder of digests; returns that of the first."""
    (path / "blobs").mkdir(parents=True)
    (path / "snapshots" / "revision").mkdir(parents=True)
    for file in files:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        file.rename(path / "blobs" / digest)
        (path / "snapshots" / "revision" / file.name).symlink_to(Path("..", "..", "blobs", digest))
    return path / "snapshots" / "revision" / files[0].name


def test_a_model_of_links_is_measured_as_any_other(tmp_path: Path) -> None:
    model = save_encoder(tmp_path / "m.onnx", np.ones((20_000, 256), np.float32), external=True)
    record = run_bench(cached(tmp_path / "cache", model, tmp_path / "m.data"), QUICK)
    assert record.failure is None
    assert [file.name for file in record.artifact.files] == ["m.onnx", "m.data"]
    # Mappings have the names that links lead to.
    assert record.summary.steady.artifact_file_backed_bytes > 0


def test_a_link_without_the_data_beside_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "m.onnx").symlink_to(save_encoder(tmp_path / "m.onnx", embedding_table(), external=True))
    with pytest.raises(CheckpointError, match=rf"m\.data beside it, and there is none.*or give {tmp_path}/m\.onnx"):
        run_bench(tmp_path / "links" / "m.onnx", QUICK)


def test_a_program_of_links_is_measured_and_run(external_program: Path, tmp_path: Path) -> None:
    for suffix in (".pte", ".ptd"):
        shutil.copy(external_program.with_suffix(suffix), tmp_path / f"tied{suffix}")
    path = cached(tmp_path / "cache", tmp_path / "tied.pte", tmp_path / "tied.ptd")
    assert run_bench(path, replace(QUICK, token_ids=8)).failure is None
    with ExecutorchModel(path) as program:
        assert program.run({"ids": np.ones((2, 3), np.int64)})["y"].shape == (2, 3, 200)


def test_external_data_is_file_backed_and_inline_data_is_anonymous(tmp_path: Path) -> None:
    tmp_path = tmp_path / "my models"  # a mapping's path ends its line, spaces and all
    tmp_path.mkdir()
    table = np.ones((20_000, 256), np.float32)
    size = table.nbytes
    options = BenchOptions(sequence=512, token_ids=20_000, rounds=1, min_iterations=50, min_duration_s=0, max_spread=1e9)
    inline, external = run_benches(
        [save_encoder(tmp_path / "inline.onnx", table), save_encoder(tmp_path / "external.onnx", table, external=True)], options
    )
    assert inline.summary.steady.artifact_file_backed_bytes == 0
    assert inline.summary.above_empty_session.anonymous_bytes > 0.9 * size
    assert external.summary.above_empty_session.anonymous_bytes < 0.5 * size
    assert 0 < external.summary.steady.artifact_file_backed_bytes <= size + 2**16


def test_a_model_with_our_nodes_says_so_and_runs_on_the_stock_runtime(records: list[Record]) -> None:
    assert [record.artifact.uses_edgecomp for record in records] == [False, True]
    assert records[1].artifact.library is None
    assert records[1].rounds[0].measurement.tokens is None
    assert records[1].test == "b1"


def test_input_file_is_used(tmp_path: Path) -> None:
    model = save_encoder(tmp_path / "m.onnx", embedding_table())
    np.savez(tmp_path / "in.npz", input_ids=np.ones((2, 5), np.int64), attention_mask=np.ones((2, 5), np.int64))
    record = run_bench(model, BenchOptions(rounds=1, min_iterations=2, min_duration_s=0, inputs=tmp_path / "in.npz"))
    assert record.test == "b2 s5"
    assert record.rounds[0].measurement.inputs["input_ids"] == "int64[2, 5]"
    np.savez(tmp_path / "wrong.npz", ids=np.ones(1))
    with pytest.raises(ConfigError, match="input_ids, attention_mask"):
        run_bench(model, BenchOptions(rounds=1, inputs=tmp_path / "wrong.npz"))


def test_sizes_are_given_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "bench",
        str(save_images(tmp_path / "m.onnx")),
        "--rounds",
        "1",
        "--min-iterations",
        "2",
        "--min-duration",
        "0",
        "--json",
    ]
    assert main(command) == ConfigError.exit_code
    assert "--size height=VALUE" in capsys.readouterr().err
    assert main([*command, "--size", "height=6"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert record["rounds"][0]["measurement"]["inputs"] == {"x": "float32[1, 3, 6, 4]"}
    assert record["options"]["sizes"] == {"height": 6}


@pytest.mark.parametrize("wrong", ["height", "=6", "height=", "height=six", "height=-6", "height=6.5"])
def test_a_size_that_is_no_assignment_is_refused(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "m.onnx", "--size", wrong]) == ConfigError.exit_code
    assert f"NAME=VALUE with a whole number, got {wrong!r}" in capsys.readouterr().err


def test_the_time_limit_ends_a_round_and_makes_the_record_invalid(tmp_path: Path) -> None:
    model = save_encoder(tmp_path / "m.onnx", embedding_table())
    options = BenchOptions(sequence=8, rounds=1, min_iterations=10**9, min_duration_s=0, max_duration_s=0.05, max_spread=1e9)
    validity = run_bench(model, options).validity
    assert not validity.valid
    assert "fewer than 1000000000" in validity.reasons[0]


def test_failures_are_one_clear_error_each(tmp_path: Path) -> None:
    model = save_encoder(tmp_path / "m.onnx", embedding_table(), external=True)
    with pytest.raises(ModelError, match="no ONNX model"):
        run_bench(tmp_path / "none.onnx", QUICK)
    with pytest.raises(ModelError, match=r"must be a file \*\.onnx or \*\.ort or \*\.pte, got .*x\.toml"):
        run_bench(tmp_path / "x.toml", QUICK)

    cut = tmp_path / "cut.onnx"
    cut.write_bytes(model.read_bytes()[:-20])
    with pytest.raises(CheckpointError, match="not a complete ONNX model"):
        run_bench(cut, QUICK)

    data = tmp_path / "m.data"
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"m\.data must hold at least 25600 bytes and holds 25599"):
        run_bench(model, QUICK)
    data.unlink()
    with pytest.raises(CheckpointError, match=r"needs its data file m\.data beside it"):
        run_bench(model, QUICK)


def test_the_runner_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    with open_device("local") as device:
        session = Session(device)
        for lines, message in {
            (("colour", "red"),): "unknown key 'colour'",
            (("threads", "-1"),): "whole number of at least 0, got '-1'",
            (("action", "dance"),): "machine, describe, measure, trace, endure, sessions, energy or generate",
            (("top_p", "much"),): "top_p must be a number, got 'much'",
            (("cpu", "5000"),): "no processor 5000",
        }.items():
            with pytest.raises(ConfigError, match=message):
                session.ask(Path("m.onnx"), lines, 10)
        with pytest.raises(RuntimeUnavailableError, match="must load from"):
            session.ask(Path("m.onnx"), [("runtime", tmp_path / "none.so"), ("artifact", "m.onnx")], 10)
        with pytest.raises(ConfigError, match="line break"):
            session.ask(Path("m.onnx"), [("artifact", "a\nb")], 10)


def test_every_class_of_the_runners_errors_is_one_of_ours() -> None:
    source = (Path(__file__).parents[2] / "runtimes" / "runner" / "fail.cpp").read_text(encoding="utf-8")
    named = dict(re.findall(r'\{"(\w+Error)", (\d+)\}', source))
    assert len(named) == 5
    for name, exit_code in named.items():
        assert getattr(errors, name).exit_code == int(exit_code)


def test_outputs_of_several_devices_are_compared(tmp_path: Path) -> None:
    model = save_encoder(tmp_path / "m.onnx", embedding_table())
    first, second = run_benches([model], QUICK, devices=["local", "local"])
    assert first.parity is None
    assert second.parity is not None
    assert second.parity.identical
    assert second.parity.relative_difference == 0


def test_digests_are_those_of_the_outputs_bytes(tmp_path: Path) -> None:
    table = embedding_table()
    model = save_encoder(tmp_path / "m.onnx", table)
    for tokens in (1, 3, 30):
        ids = np.arange(tokens)[None]
        np.savez(tmp_path / "in.npz", input_ids=ids, attention_mask=np.ones_like(ids))
        outputs = run_bench(model, replace(QUICK, inputs=tmp_path / "in.npz")).rounds[0].measurement.outputs
        expected = {"last_hidden_state": table[ids], "mask_out": np.ones_like(ids)}
        assert {output.name: output.sha256 for output in outputs} == {
            name: hashlib.sha256(value.tobytes()).hexdigest() for name, value in expected.items()
        }
        assert outputs[0].type == f"float32[1, {tokens}, {table.shape[1]}]"


def test_a_library_is_registered_and_recorded(tmp_path: Path, empty_library: Path) -> None:
    record = run_bench(save_with_our_node(tmp_path / "ours.onnx"), replace(QUICK, library=str(empty_library)))
    assert record.artifact.library == empty_library.name
    assert record.backend.endswith(f"+ {empty_library.name}")


def test_a_library_that_does_not_load_is_named(tmp_path: Path) -> None:
    model = save_encoder(tmp_path / "m.onnx", embedding_table())
    with pytest.raises(RuntimeUnavailableError, match="no library of operators at"):
        run_bench(model, BenchOptions(library=str(tmp_path / "none.so")))
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"no library")
    with pytest.raises(RuntimeUnavailableError, match=r"broken\.so does not load"):
        run_bench(model, BenchOptions(library=str(broken)))


def test_a_library_without_the_program_s_operators_is_refused(tied_program: Path, empty_library: Path) -> None:
    with pytest.raises(RuntimeUnavailableError, match=r"calls an operator that is not registered .*lut_gather.*give the library"):
        run_bench(tied_program, replace(QUICK, library=str(empty_library)))


def test_token_ids_outside_the_vocabulary_name_the_inputs(tmp_path: Path) -> None:
    model = save_encoder(tmp_path / "m.onnx", embedding_table()[:3])
    with pytest.raises(ModelError, match="does not run on inputs"):
        run_bench(model, QUICK)


def test_markdown_has_a_row_per_record(records: list[Record]) -> None:
    table = [[cell.strip() for cell in line.split("|")] for line in format_records(records, "md").splitlines()]
    row, second = (dict(zip(table[0], cells, strict=True)) for cells in table[2:4])
    assert (row["model"], second["model"]) == ("a.onnx", "ours.onnx")
    summary = records[0].summary
    assert row["p50 ms"] == f"{summary.latency.p50_ns / 1e6:.3f}"
    assert row["cold load ms"] == f"{summary.cold_load_ns / 1e6:.3f}"
    assert row["first ms"] == f"{summary.first_inference_ns / 1e6:.3f}"


def test_csv_has_base_units(records: list[Record]) -> None:
    rows = list(csv.DictReader(io.StringIO(format_records(records, "csv"))))
    assert [row["model"] for row in rows] == ["a.onnx", "ours.onnx"]
    assert int(rows[0]["p90_ns"]) == records[0].summary.latency.p90_ns
    assert int(rows[0]["cold_load_ns"]) == records[0].summary.cold_load_ns
    assert int(rows[0]["first_inference_ns"]) == records[0].summary.first_inference_ns
    assert int(rows[0]["steady_anonymous_bytes"]) == records[0].summary.steady.anonymous_bytes


def test_json_and_json_lines_hold_whole_records(records: list[Record]) -> None:
    assert [Record.model_validate(value) for value in json.loads(format_records(records, "json"))] == records
    assert [Record.model_validate_json(line) for line in format_records(records, "jsonl").splitlines()] == records
    with pytest.raises(ConfigError, match="md, csv, json, jsonl"):
        format_records(records, "xml")
