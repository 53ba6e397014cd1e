"""The seeds of the fuzz targets, and some changes of each; `make fuzz` goes on from there, with a fuzzer that finds new ways."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path
from typing import Any

import pytest

FUZZ = Path(__file__).parents[1] / "fuzz"
# All but `factor`, whose seeds only the fuzzer's own library reads.
TARGETS = ["answer", "attributes", "calibration", "checkpoint", "configuration", "executorch_file", "gguf", "onnx_file"]
TARGETS += ["ort_file", "program", "recipe", "records"]


def load(path: Path, name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setitem(sys.modules, "harness", None)
    harness = load(FUZZ / "harness.py", "harness")
    harness.SEEDS_ONLY = True
    monkeypatch.setattr(harness, "scratch_folder", lambda: tmp_path)
    return harness


def changes(seed: bytes, count: int) -> list[bytes]:
    """A byte that is another, a part that is missing, a part that is there twice."""
    changed, chance = [], random.Random(0)
    for _ in range(count if seed else 0):
        at, end = sorted((chance.randrange(len(seed)), chance.randrange(len(seed) + 1)))
        byte = seed[:at] + bytes([chance.randrange(256)]) + seed[at + 1 :]
        changed += [byte, seed[:at] + seed[end:], seed[:end] + seed[at:]]
    return changed


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_what_is_near_them_end_well(harness: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plotly.offline.get_plotlyjs", lambda: "")
    load(FUZZ / f"fuzz_{name}.py", f"fuzz_{name}")
    (target,) = harness.TARGETS
    seeds = sorted((FUZZ / "corpus" / name).iterdir())
    assert seeds
    for path in seeds:
        seed = path.read_bytes()
        for data in (seed, *changes(seed, 2 if name == "program" else 5)):
            target(data)
