"""Files that unpack, nest or count to more than anything real does: each ends in a message."""

from __future__ import annotations

import gzip
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecomp import bounded
from edgecomp.bench.options import BenchOptions
from edgecomp.bench.runner import run_bench
from edgecomp.calibration import npz_samples, read_text
from edgecomp.config import apply_override, read_mapping
from edgecomp.errors import CalibrationError, CheckpointError, ConfigError
from edgecomp.report import write_report


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds that a test reaches at once."""
    monkeypatch.setattr(bounded, "LARGEST_UNPACKED_BYTES", 2**20)
    monkeypatch.setattr(bounded, "LARGEST_TEXT_BYTES", 2**21)


def test_a_text_that_unpacks_without_end(tmp_path: Path) -> None:
    path = tmp_path / "t.txt.gz"
    path.write_bytes(gzip.compress(bytes(2**21)))
    with pytest.raises(CalibrationError, match="1,048,576 bytes at most"):
        read_text(path)
    path.write_bytes(gzip.compress(b"text"))
    assert read_text(path) == "text"


def test_a_text_without_end(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_bytes(b"a" * (2**21 + 1))
    with pytest.raises(CalibrationError, match="2,097,152 bytes at most"):
        read_text(path)


def test_what_data_reaches_is_unpacked(tmp_path: Path) -> None:
    """A packed file may be larger than the bound where it is not a bomb: by its own size."""
    path = tmp_path / "a.npz"
    values = np.random.default_rng(0).integers(0, 8, 2**21).astype(np.uint8)
    np.savez_compressed(path, x=values)
    assert values.nbytes > bounded.LARGEST_UNPACKED_BYTES
    assert len(npz_samples(path, [], 3)) == 3


def save_bomb(path: Path) -> Path:
    np.savez_compressed(path, x=np.zeros((4, 2**20), np.uint8))
    return path


def test_arrays_that_unpack_without_end(tmp_path: Path) -> None:
    from onnx_models import embedding_table, save_encoder

    path = save_bomb(tmp_path / "a.npz")
    with pytest.raises(CalibrationError, match="must unpack to 1,048,576 bytes at most"):
        npz_samples(path, [], 3)
    model = save_encoder(tmp_path / "m.onnx", embedding_table())
    with pytest.raises(ConfigError, match="must unpack to 1,048,576 bytes at most"):
        run_bench(model, BenchOptions(rounds=1, inputs=path))


def test_an_array_of_10_15_values(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive, archive.open("x.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (10**15,)})
        file.write(bytes(16))
    with pytest.raises(CalibrationError, match="must be a readable"):
        npz_samples(path, [], 3)


TEXTS = {
    "depth": "[" * 10**6,
    "some depth": '{"a": ' + "[" * 100 + "]" * 100 + "}",
    "digits": '{"a": ' + "9" * 10**4 + "}",
    "some digits": '{"a": ' + "9" * 100 + "}",
    "bytes": '{"a": "' + "b" * 2**21 + '"}',
}


@pytest.mark.parametrize("name", TEXTS)
def test_recipes_are_bounded(tmp_path: Path, name: str) -> None:
    (tmp_path / "r.json").write_text(TEXTS[name])
    with pytest.raises(ConfigError):
        read_mapping(tmp_path / "r.json")
    (tmp_path / "r.toml").write_text(TEXTS[name].replace('{"a": ', "a = ").removesuffix("}"))
    with pytest.raises(ConfigError):
        read_mapping(tmp_path / "r.toml")


@pytest.mark.parametrize("text", ["a = 0x" + "f" * 100, "a = " + "{b = " * 70 + "1" + "}" * 70, "a" + ".a" * 10**4 + " = 1"])
def test_tables_are_bounded(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"64 deep|128 bits"):
        read_mapping(tmp_path / "r.toml")


def test_an_override_that_is_no_value_is_a_word() -> None:
    settings: dict[str, Any] = {}
    apply_override(settings, "a=" + "[" * 1000)
    assert settings == {"a": "[" * 1000}


@pytest.mark.parametrize(
    "write", [lambda name: TEXTS["depth"], lambda name: TEXTS["some depth"], lambda name: TEXTS["some digits"]]
)
def test_records_and_manifests_are_bounded(tmp_path: Path, write: Callable[[str], str]) -> None:
    from edgecomp.checkpoint import read_contents

    for name in ("bench.json", "manifest.json"):
        (tmp_path / name).write_text(write(name))
    with pytest.raises(CheckpointError, match="is not JSON"):
        write_report([tmp_path], tmp_path / "page.html")
    with pytest.raises(CheckpointError, match="must be JSON"):
        read_contents(tmp_path)


def test_numbers_that_json_does_not_have() -> None:
    assert bounded.parse_json("[NaN, 1e999]")[1] == float("inf")
    for text in ("[NaN]", "[-Infinity]", "[1e999]"):
        with pytest.raises(ValueError, match="must be finite"):
            bounded.parse_json(text, finite=True)
    assert bounded.parse_json(json.dumps([1, -(2**127), 0.5]), finite=True)
