"""What the README shows of other tools and of factories runs as it stands."""

from __future__ import annotations

import importlib
import re
import shlex
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch

import edgecomp
from edgecomp.cli import main
from edgecomp.exporters import export
from edgecomp.ops import OPERATORS

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

README = (Path(tiny_models.__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
IDS = tiny_models.tokens()[0]


def block(words: str) -> str:
    (found,) = [code for code in BLOCKS if words in code]
    return str(found)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table, a layer and a head in `models/model.onnx`."""
    folder = tmp_path_factory.mktemp("readme") / "models"
    folder.mkdir()
    settings = ["passes.0.weighting=none", "passes.0.refits=0", "passes.0.compute=float"]
    model = edgecomp.compress(tiny_models.tied_tokens(), "lut-8bit", [IDS], overrides=settings)
    export(model, "onnx", folder / "model.onnx")
    return folder / "model.onnx"


def options_with_library() -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.register_custom_ops_library(edgecomp.get_library_path())
    return options


def outputs(model: str | bytes, options: Any) -> np.ndarray:
    (y,) = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"]).run(None, dict(IDS))
    return np.asarray(y)


def test_a_factory_goes_through_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = block("# digits.py")
    (tmp_path / "digits.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    np.save("images.npy", np.random.default_rng(0).standard_normal((4, 1, 28, 28)).astype(np.float32))
    with monkeypatch.context() as patch:  # the weights that it will load are those that it begins with
        patch.setattr(torch, "load", lambda _: {})
        patch.setattr(torch.nn.Module, "load_state_dict", lambda model, _: torch.save(model.state_dict(), "digits.pth"))
        monkeypatch.setitem(sys.modules, "digits", types.ModuleType("digits"))  # gone afterwards
        del sys.modules["digits"]
        importlib.import_module("digits").make()
    commands = [line.strip() for line in README.splitlines() if "digits:make" in line and line.startswith("    edgecomp ")]
    assert len(commands) == 3
    for command in commands:
        assert main([*shlex.split(command)[1:], "--quiet"]) == 0


def test_a_model_is_loaded_from_bytes(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = outputs(str(exported), options_with_library())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Exception, match=r"model\.onnx\.data"):
        outputs(exported.read_bytes(), options_with_library())
    code = block("external_initializers")
    folder, in_memory = re.search(r"^options.*$", code, re.MULTILINE), re.search(r"# or: (.*)$", code, re.MULTILINE)
    assert folder is not None
    assert in_memory is not None
    monkeypatch.chdir(exported.parents[1])
    data = exported.with_name("model.onnx.data").read_bytes()
    for line in (folder[0], in_memory[1]):
        options = options_with_library()
        exec(line, {"options": options, "data": data})
        np.testing.assert_array_equal(outputs(exported.read_bytes(), options), expected)


def test_the_rest_of_a_model_is_converted_to_float16(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(exported.parent)
    scope: dict[str, Any] = {"onnx": onnx}
    exec(block("op_block_list"), scope)
    assert set() < scope["ours"] <= {operator.onnx_name for operator in OPERATORS.values()}
    onnx.save(scope["half"], "half.onnx")
    expected = outputs("model.onnx", options_with_library())
    for options in (options_with_library(), ort.SessionOptions()):
        difference = np.linalg.norm(outputs("half.onnx", options) - expected) / np.linalg.norm(expected)
        assert 0 < difference < 5e-3
