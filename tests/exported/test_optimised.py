"""Models that ONNX Runtime saved after it optimised them, `.onnx` and `.ort`: inspected, verified, measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from packed_models import chain_model, features, linear, plan, random_factor

import edgecomp
from edgecomp.bench.options import BenchOptions
from edgecomp.bench.runner import run_bench
from edgecomp.cli import main
from edgecomp.errors import CheckpointError, RuntimeUnavailableError
from edgecomp.exported.ort_file import read_ort
from edgecomp.exported.read import read_exported
from edgecomp.exported.session import OnnxModel
from edgecomp.exporters import export
from edgecomp.inspect.exported import inspect_onnx
from edgecomp.verify import VerifyOptions, verify

ort = pytest.importorskip("onnxruntime")

X = {"x": np.random.default_rng(0).standard_normal((2, 64)).astype(np.float32)}
QUICK = BenchOptions(rounds=1, warmup=1, min_iterations=5, min_duration_s=0, max_spread=1e9)
SAVED = [(suffix, library) for suffix in (".onnx", ".ort") for library in (True, False)]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "m.onnx"
    model = chain_model({"a": plan([linear()], bias=True)}, {"w": random_factor(96, 64)}, features(64))
    export(model, "onnx", path)
    return path


def optimised(exported: Path, suffix: str, *, library: bool) -> Path:
    """The model as ONNX Runtime saves it, with our library registered or without."""
    path = exported.with_name(f"optimised-{library}{suffix}")
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    if library:
        options.register_custom_ops_library(edgecomp.get_library_path())
    if suffix == ".ort":
        options.add_session_config_entry("session.save_model_format", "ORT")
    ort.InferenceSession(str(exported), options, providers=["CPUExecutionProvider"])
    return path


@pytest.mark.parametrize(("suffix", "library"), SAVED)
def test_optimised_models_are_inspected_run_and_measured(exported: Path, suffix: str, library: bool) -> None:
    path = optimised(exported, suffix, library=library)
    found = inspect_onnx(path)
    assert (found.own_operators, found.needs_library) == ((("LutMatMul",), True) if library else ((), False))
    assert (found.inputs, found.producer) == ({"x": "tensor(float) ['batch', 64]"}, "edgecomp")
    assert found.outputs == {"y": "tensor(float) ['batch', 96]"}
    assert json.loads(found.metadata["edgecomp.inputs"])[0]["name"] == "x"
    expected = OnnxModel(exported).run(X)["y"]
    result = verify(path, lambda _: {"y": expected}, [X], VerifyOptions())
    assert [comparison.left for comparison in result.comparisons] == ["library" if library else "stock runtime"]
    assert result.comparisons[0].outputs[0].relative < 1e-5
    record = run_bench(path, QUICK)
    assert (record.artifact.uses_edgecomp, record.artifact.library is not None) == (library, library)


@pytest.mark.parametrize("suffix", [".onnx", ".ort"])
def test_the_library_cannot_be_left_out_where_functions_are_gone(exported: Path, suffix: str) -> None:
    path = optimised(exported, suffix, library=True)
    with pytest.raises(
        RuntimeUnavailableError, match=r"calls LutMatMul of edgecomp without their functions.*leave out --library none"
    ):
        OnnxModel(path, "none")


def test_it_is_said_that_a_stock_runtime_cannot_run_it(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = optimised(exported, ".ort", library=True)
    expected = OnnxModel(exported).run(X)["y"]
    verify(path, lambda _: {"y": expected}, [X], VerifyOptions(), quiet=False)
    assert "has no functions for a stock runtime: it is run with the library alone" in capsys.readouterr().err


def test_a_renamed_operator_is_called_what_it_is(exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx = pytest.importorskip("onnx")
    path = tmp_path / "prefixed.onnx"
    onnx.save(onnx.compose.add_prefix(onnx.load(exported), "p_"), path)
    quick = ("--rounds", "1", "--warmup", "1", "--min-iterations", "5", "--min-duration", "0", "--json")
    assert main(["bench", str(path), *quick]) == 0
    printed = capsys.readouterr()
    assert "prefixed.onnx calls p_LutMatMul, which our library does not have: the runtime ran their functions" in printed.err
    artifact = json.loads(printed.out)[0]["artifact"]
    assert (artifact["uses_edgecomp"], artifact["library"], artifact["unknown_operators"]) == (False, None, ["p_LutMatMul"])
    assert main(["inspect", str(path)]) == 0
    text = capsys.readouterr().out
    assert "- operators of edgecomp's library: none\n- not in the library, run by their functions, slowly: p_LutMatMul" in text


def test_operators_of_another_library_name_the_option(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    value = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("Theirs", ["x"], ["y"], domain="their.domain")
    graph = onnx.helper.make_graph([node], "g", [value("x", 1, [1])], [value("y", 1, [1])])
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("their.domain", 1)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "theirs.onnx")
    with pytest.raises(CheckpointError, match="not a registered function/op; give the library of its operators by --library"):
        OnnxModel(tmp_path / "theirs.onnx")
    assert inspect_onnx(tmp_path / "theirs.onnx").domains == ("their.domain",)


def test_damaged_models_are_refused_and_end_nothing(exported: Path, tmp_path: Path) -> None:
    data = optimised(exported, ".ort", library=True).read_bytes()
    path = tmp_path / "m.ort"
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(data)
        for position in rng.integers(0, min(len(damaged), 4096), 3):
            damaged[position] = rng.integers(0, 256)
        path.write_bytes(damaged[: rng.integers(0, len(damaged))] if rng.random() < 0.3 else damaged)
        try:
            read_ort(path)
        except CheckpointError:
            continue
    path.write_bytes(b"no model of any kind")
    with pytest.raises(CheckpointError, match="does not begin with ORTM"):
        read_exported(path)
