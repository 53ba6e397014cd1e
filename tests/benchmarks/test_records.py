"""What benchmarks print, and that a kept run is a record."""

from __future__ import annotations

import argparse
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import readme_tables
import records


@dataclass(frozen=True)
class Row:
    n: int
    lut_us: float
    peer_us: float | None


ROWS = [Row(192, 5.26645504, None), Row(576, 1234.5678, 7.5)]
EMULATOR = {"cpu": "QEMU 7.2"}


def test_a_record_is_what_the_tables_are_made_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks/kernels.py", "--json", "--bits", "4,2"])
    records.print_rows("kernels", ROWS, as_json=True)
    (tmp_path / "kernels-avx2.json").write_text(capsys.readouterr().out, encoding="utf-8")
    (record,) = readme_tables.read_records(tmp_path).values()
    assert record.content["command"] == "python benchmarks/kernels.py --bits 4,2"
    assert {"cpu", "cores", "variant", "onnxruntime"} <= set(record.content["machine"])
    assert record.content["rows"] == [
        {"n": 192, "lut_us": 5.26646, "peer_us": None},
        {"n": 576, "lut_us": 1234.57, "peer_us": 7.5},
    ]


def test_rows_are_a_table_without_json(capsys: pytest.CaptureFixture[str]) -> None:
    records.print_rows("kernels", [*ROWS, {"n": 1, "side": "lut"}], as_json=False, on=EMULATOR)
    head, _, *table = capsys.readouterr().out.splitlines()
    assert head.startswith("cpu: QEMU 7.2, commit: ")
    assert table == [
        "| n | lut_us | peer_us | side |",
        "| ---: | ---: | ---: | --- |",
        "| 192 | 5.266 | - | - |",
        "| 576 | 1235 | 7.5 | - |",
        "| 1 | - | - | lut |",
    ]


def test_a_record_has_a_line_for_each_row() -> None:
    text = records.to_json({"benchmark": "memory", "machine": EMULATOR, "rows": [{"n": 1}, {"n": 2}]})
    assert [line for line in text.splitlines() if '"n"' in line] == ['  {"n": 1},', '  {"n": 2}']
    assert json.loads(text) == {"benchmark": "memory", "machine": EMULATOR, "rows": [{"n": 1}, {"n": 2}]}


def test_the_command_names_what_changes_figures_and_no_folder_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in records.ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HIDE", "amx")
    monkeypatch.setenv("LD_PRELOAD", "/home/me/hide_cpu_features.so")
    said = records.command(["/home/me/benchmarks/cnn.py", "--data-dir", "/home/me/data", "--model=/home/me/a.pt", "--json", "b c"])
    assert said == "HIDE=amx LD_PRELOAD=hide_cpu_features.so python benchmarks/cnn.py --data-dir data --model=a.pt 'b c'"


def test_records_and_tables_do_not_make_a_checkout_dirty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "benchmarks"
    (folder / "results").mkdir(parents=True)
    files = [folder / "README.md", folder / "results" / "memory.json", tmp_path / "code.py"]
    for file in files:
        file.write_text("before", encoding="utf-8")

    def git(*arguments: str) -> None:
        settings = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
        subprocess.run(["git", "-C", str(tmp_path), *settings, *arguments], check=True, capture_output=True)

    git("init")
    git("add", "-A")
    git("commit", "--message", "all")
    monkeypatch.setattr(records, "FOLDER", folder)
    clean = records.commit()
    for file in files[:2]:
        file.write_text("after", encoding="utf-8")
    assert records.commit() == clean
    files[2].write_text("after", encoding="utf-8")
    assert records.commit() == f"{clean}-dirty"


def test_the_option_is_the_same_everywhere() -> None:
    parser = argparse.ArgumentParser()
    records.add_json_option(parser)
    assert parser.parse_args([]).json is False
    assert parser.parse_args(["--json"]).json is True


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "-"), ("", "-"), (3, "3"), (0.123456, "0.1235"), (123456.7, "123457"), ("a", "a"), (True, "True")]
)
def test_cells(value: object, shown: str) -> None:
    assert records.cell(value) == shown
