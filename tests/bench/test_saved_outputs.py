"""Outputs that are kept in a folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx_models import embedding_table, save_encoder

from edgecomp.bench.options import BenchOptions
from edgecomp.bench.runner import run_bench, run_benches
from edgecomp.bench.saved_outputs import SavedOutputs
from edgecomp.cli import main
from edgecomp.errors import ConfigError, OutputError

QUICK = BenchOptions(sequence=8, rounds=1, warmup=1, min_iterations=5, min_duration_s=0, max_spread=1e9)


def test_outputs_are_what_the_model_computes_of_the_inputs_beside(tmp_path: Path) -> None:
    table = embedding_table()
    model = save_encoder(tmp_path / "m.onnx", table, output="file")  # numpy.savez has an argument of that name
    run_benches([model], QUICK, outputs=tmp_path / "out")
    inputs, outputs = np.load(tmp_path / "out/m.onnx/inputs.npz"), np.load(tmp_path / "out/m.onnx/local.npz")
    assert sorted(inputs) == ["attention_mask", "input_ids"]
    np.testing.assert_array_equal(outputs["file"], table[inputs["input_ids"]])
    np.testing.assert_array_equal(outputs["mask_out"], inputs["attention_mask"])
    again = run_bench(model, replace(QUICK, inputs=tmp_path / "out/m.onnx/inputs.npz"))
    assert again.rounds[0].measurement.outputs[0].type == f"float32[1, 8, {table.shape[1]}]"


def test_the_command_replaces_its_own_files_and_no_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = save_encoder(tmp_path / "m.onnx", embedding_table())
    (tmp_path / "out").mkdir()
    (tmp_path / "out/notes.txt").write_text("mine", encoding="utf-8")
    command = ["bench", str(model), "--rounds", "1", "--min-iterations", "2", "--min-duration", "0"]
    command += ["--outputs", str(tmp_path / "out")]
    for sequence in (4, 8):
        assert main([*command, "-s", str(sequence)]) == 0
    capsys.readouterr()
    assert np.load(tmp_path / "out/m.onnx/local.npz")["mask_out"].shape == (1, 8)
    assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == ["inputs.npz", "local.npz", "m.onnx", "notes.txt"]


def test_names_of_devices_become_names_of_files(tmp_path: Path) -> None:
    urls = ["local", "ssh://pi@raspberrypi:2222/media/disk", "adb://", "qemu://cortex-a76"]
    saved = SavedOutputs(tmp_path / "out", ["m.onnx"], urls)
    for url in urls:
        saved.save("m.onnx", url, {}, {"y": np.zeros(1)})
    assert sorted(path.name for path in (tmp_path / "out/m.onnx").iterdir()) == [
        *("adb.npz", "inputs.npz", "local.npz", "qemu-cortex-a76.npz", "ssh-pi@raspberrypi-2222-media-disk.npz"),
    ]


def test_what_would_have_one_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"by the artifacts' names, and 2 are named m\.onnx"):
        SavedOutputs(tmp_path / "out", ["m.onnx", "m.onnx"], ["local"])
    with pytest.raises(ConfigError, match="by the devices' names, and 2 are named local"):
        SavedOutputs(tmp_path / "out", ["m.onnx"], ["local", "local"])


def test_a_folder_that_cannot_be_made_is_refused_before_anything_runs(tmp_path: Path) -> None:
    model = save_encoder(tmp_path / "m.onnx", embedding_table())
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OutputError, match="file must be a folder that can be written"):
        run_benches([model], QUICK, outputs=tmp_path / "file")
    with pytest.raises(OutputError, match="create it first"):
        run_benches([model], QUICK, outputs=tmp_path / "none" / "out")
