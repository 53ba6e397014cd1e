"""The operators of attention: kernels of every variant, PyTorch's references, ONNX Runtime with our library and by functions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from attention_cases import CASES, Calls, Case, results, run_native
from onnx import helper

import edgecomp.torch_ops  # noqa: F401  (registers the operators)
from edgecomp import native
from edgecomp.errors import EdgecompError, FormatError
from edgecomp.exporters.to_onnx.functions import function_protos
from edgecomp.ops import CACHES, DOMAIN, OPERATORS, Operator
from edgecomp.references.attention import decode_int8, encode_int8

Call = tuple[Operator, dict[str, np.ndarray], dict[str, Any]]
TOKEN = CASES["a token behind many"]


def run_torch(operator: Operator, inputs: dict[str, np.ndarray], attributes: dict[str, Any]) -> np.ndarray:
    given = [torch.from_numpy(inputs[i.name]) for i in operator.inputs]
    result: np.ndarray = getattr(torch.ops.edgecomp, operator.name)(*given, **attributes).numpy()
    return result


def one_node(operator: Operator, inputs: dict[str, np.ndarray], attributes: dict[str, Any], functions: bool) -> onnx.ModelProto:
    def value(name: str, dtype: str, rank: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), [f"{name}{i}" for i in range(rank)]
        )

    names = [i.name for i in operator.inputs]
    node = helper.make_node(operator.onnx_name, names, ["out"], name="the_node", domain=DOMAIN, **attributes)
    graph_inputs = [value(i.name, i.dtype, inputs[i.name].ndim) for i in operator.inputs]
    output = value("out", operator.output.dtype, 4 if "append" in operator.name else 3)
    return helper.make_model(
        helper.make_graph([node], "g", graph_inputs, [output]),
        opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid(DOMAIN, 1)],
        ir_version=10,
        functions=function_protos([operator.onnx_name], 21) if functions else [],
    )


def run_onnx(operator: Operator, inputs: dict[str, np.ndarray], attributes: dict[str, Any], library: bool = True) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if library:
        options.register_custom_ops_library(native.get_library_path())
    model = one_node(operator, inputs, attributes, functions=not library)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    result: np.ndarray = session.run(None, inputs)[0]
    return result


def close(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    if expected.size:
        assert np.abs(found - expected).max() <= 3e-6 * np.abs(expected).max()


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("name", CASES)
def test_all_ways_give_the_same(name: str, cache: str) -> None:
    calls = Calls(CASES[name], cache)
    kept = []
    for values in (False, True):
        call = calls.append(values)
        kept.append(run_torch(*call))
        for found in (run_native(*call), run_onnx(*call)):
            assert np.array_equal(found, kept[-1])
        assert np.array_equal(run_onnx(*call, library=False), kept[-1])
    call = calls.attention(*kept)
    expected = run_torch(*call)
    close(run_native(*call), expected)
    close(run_onnx(*call), expected)
    close(run_onnx(*call, library=False), expected)


@pytest.mark.parametrize("variant", [v.name for v in native.variants() if v.available])
def test_every_variant_computes_the_same(variant: str, tmp_path: Path) -> None:
    program = Path(__file__).parent / "attention_cases.py"
    environment = {**os.environ, "EDGECOMP_FORCE_ISA": variant}
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path / "r.npz")], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [native.selected_variants()["kv_attention_float32"]] or variant != native.selected_variant()
    found = np.load(tmp_path / "r.npz")
    for name, expected in results():
        if name.endswith("y"):
            close(found[name], expected)
        else:
            assert np.array_equal(found[name], expected), name


@pytest.mark.parametrize("cache", CACHES)
def test_a_cache_is_written_in_place_where_past_and_present_are_one(cache: str) -> None:
    calls = Calls(CASES["a token in a larger cache"], cache)
    operator, inputs, attributes = calls.append(values=False)
    expected = run_torch(operator, inputs, attributes)
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(native.get_library_path())
    session = onnxruntime.InferenceSession(
        one_node(operator, inputs, attributes, functions=False).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    binding = session.io_binding()
    kept = inputs["past"].copy()
    value = onnxruntime.OrtValue.ortvalue_from_numpy(kept)
    for name, array in inputs.items():
        binding.bind_cpu_input(name, array)
    binding.bind_ortvalue_input("past", value)
    binding.bind_ortvalue_output("out", value)
    session.run_with_iobinding(binding)
    assert np.array_equal(kept, expected)
    assert not np.array_equal(kept, inputs["past"])


def test_int8_rows_hold_what_they_can() -> None:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal((100, 64)).astype(np.float32) * np.float32(10) ** rng.integers(-30, 30, (100, 1)))
    x[0] = 0
    row = encode_int8(x)
    error = (decode_int8(row) - x).abs().amax(-1)
    assert (error <= x.abs().amax(-1) / 127 * 0.5 * (1 + 2**-7) * 1.001).all()
    assert row[..., :-2].abs().amax(-1)[1:].min() >= 126  # the scale is no larger than it must be


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_hidden_by_int8(wrong: float) -> None:
    calls = Calls(TOKEN, "int8")
    calls.x[0, 0, 9 * 64] = wrong  # the first head's key
    call = calls.append(values=False)
    keys = run_torch(*call)
    for found in (run_native(*call), run_onnx(*call), run_onnx(*call, library=False)):
        assert np.array_equal(found, keys)
    call = calls.attention(keys, run_torch(*calls.append(values=True)))
    for found in (run_torch(*call), run_native(*call), run_onnx(*call, library=False)):
        heads = np.isnan(found.reshape(9, 64)).all(-1)
        assert heads.tolist() == [True] * 3 + [False] * 6


def changed(call: Call, **others: Any) -> Call:
    operator, inputs, attributes = call
    known = {i.name for i in operator.inputs}
    return (
        operator,
        {**inputs, **{name: value for name, value in others.items() if name in known}},
        {**attributes, **{name: value for name, value in others.items() if name not in known}},
    )


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"before": np.array([300], np.int32)}, r"places from 0 to 299: 1 tokens are given, and the cache has 300; got 300"),
        ({"before": np.array([-1], np.int32)}, "before must be places from 0 to 299"),
        ({"before": np.array([1, 2], np.int32)}, r"before must be int32 \[1\] or absent, got \[2\]"),
        ({"total": np.zeros(2, np.int32)}, r"total must be one number, got \[2\]"),
        ({"total": np.array(2**31 - 1, np.int32), "past": np.zeros((1, 3, 0, 64), np.float32)}, "memory|places|Failed"),
        ({"first": -1}, "from column first or more"),
        ({"first": 2**63 - 1}, "from column first or more"),
        ({"first": 769}, "from column first or more"),
        ({"x": np.zeros((2, 1, 960), np.float32)}, "x must be"),
        ({"x": np.zeros((1, 960), np.float32)}, r"x must be \[batch, sequence, width\]"),
        ({"past": np.zeros((1, 3, 300, 2000), np.float32)}, "heads of 1 to 1024 values"),
        ({"past": np.zeros((1, 3, 300), np.float32)}, "past must be"),
        ({"cos": np.zeros((299, 32), np.float32), "sin": np.zeros((299, 32), np.float32)}, "an angle for each of 300 positions"),
        ({"sin": np.zeros((299, 32), np.float32)}, "cos and sin must be"),
        ({"cos": np.zeros((300, 33), np.float32), "sin": np.zeros((300, 33), np.float32)}, "a head of 64 be rotated at most"),
    ],
)
def test_calls_that_append_wrongly_are_refused(others: dict[str, Any], message: str) -> None:
    call = changed(Calls(TOKEN, "float32").append(values=False), **others)
    if others.get("total") is None or others["total"].size != 1:
        with pytest.raises(EdgecompError, match=message):
            run_native(*call)
    if all(np.ndim(value) == call[1][name].ndim for name, value in others.items() if name in call[1]):
        with pytest.raises(Exception, match=message):
            run_onnx(*call)


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"before": np.array([300], np.int32)}, "places from 0 to 299"),
        ({"heads": 0}, "heads must be 1 or more"),
        ({"heads": 2**62}, "heads must be 1 or more"),
        ({"heads": 8}, "as many heads as divide the 8 of queries"),
        ({"heads": 18}, r"x must be float32 \[batch, sequence, 1152 or more\]"),
        ({"head_size": -64}, "head_size 1 to 1024"),
        ({"head_size": 32}, "with heads of 1 to 1024 values"),
        ({"keys": np.zeros((1, 3, 299, 64), np.float32)}, "values must be"),
        ({"keys": np.zeros((2, 3, 300, 64), np.float32)}, "keys must be of 1 rows"),
        ({"keys": np.zeros((1, 0, 300, 64), np.float32)}, "as many heads as divide"),
        ({"keys": np.zeros((1, 3, 300, 64), np.int8)}, "keys must be float32"),
        ({"scale": float("nan")}, "scale and cap must be finite"),
        ({"cap": float("inf")}, "scale and cap must be finite"),
    ],
)
def test_calls_that_attend_wrongly_are_refused(others: dict[str, Any], message: str) -> None:
    calls = Calls(TOKEN, "float32")
    call = changed(calls.attention(*calls.past), **others)
    with pytest.raises((EdgecompError, FormatError), match=message):
        run_native(*call)
    if "keys" not in others or others["keys"].dtype == np.float32:
        with pytest.raises(Exception, match=message):
            run_onnx(*call)


@pytest.mark.parametrize("name", ["heads", "head_size", "window", "first"])
@pytest.mark.parametrize("size", [0, -1, -3, -(10**6), -(2**63), 2**63 - 1])
def test_no_size_of_a_damaged_node_ends_the_process(name: str, size: int) -> None:
    """Sizes of the output are inferred before the node is checked; open ones of the input have symbols there."""
    calls = Calls(TOKEN, "float32")
    call = changed(calls.append(values=False) if name == "first" else calls.attention(*calls.past), **{name: size})
    if name == "window" or (name, size) == ("first", 0):
        run_onnx(*call)
    else:
        with pytest.raises(Exception, match="node 'the_node'"):
            run_onnx(*call)


def test_every_attribute_and_input_is_needed() -> None:
    calls = Calls(TOKEN, "float32")
    for call in (calls.append(values=False), calls.attention(*calls.past)):
        operator, inputs, attributes = call
        for name in attributes:
            with pytest.raises(Exception, match=name):
                run_onnx(operator, inputs, {key: value for key, value in attributes.items() if key != name})


def test_a_result_does_not_depend_on_the_cache_behind_the_tokens() -> None:
    case = CASES["a token in a larger cache"]
    calls = Calls(case, "float32")
    whole = run_native(*calls.attention(*calls.past))
    shorter = [past[:, :, : case.total].copy() for past in calls.past]
    assert np.array_equal(whole, run_native(*calls.attention(*shorter)))


def test_attention_has_the_types_of_the_table() -> None:
    for cache, (dtype, _) in CACHES.items():
        call = Calls(Case(1, 1, 2, 1, 16, 3, (2,)), cache).append(values=False)
        assert run_native(*call).dtype == np.dtype(dtype)
    assert {name for name, operator in OPERATORS.items() if not operator.factor.arrays} == {
        f"kv_{what}_{cache}" for what in ("append", "attention") for cache in CACHES
    }


@pytest.mark.parametrize("cache", CACHES)
def test_models_with_functions_are_whole(cache: str) -> None:
    calls = Calls(TOKEN, cache)
    for call in (calls.append(values=False), calls.attention(*calls.past)):
        onnx.checker.check_model(one_node(*call, functions=True), full_check=True)
