"""The operators inside ONNX Runtime, one hand-made node at a time."""

from __future__ import annotations

import ctypes
import itertools
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnx
import onnxruntime
import pytest
from lut_cases import assert_close, conv2d, narrow_factor, random_factor
from onnx import TensorProto, helper, numpy_helper

from edgecomp import native
from edgecomp.exporters.to_onnx.functions import function_protos
from edgecomp.formats import lut
from edgecomp.ops import ACTIVATIONS, DOMAIN, LUT_CONV2D, LUT_GATHER, LUT_MATMUL, LUT_NARROW_CONV2D, OPERATORS, Operator
from edgecomp.tensor import COMPUTE_MODES, Compute, ConvParams, Factor

CONV = ConvParams(5, (3, 2), (2, 1), (1, 0, 2, 1), (1, 2))
NARROW_CONV = ConvParams(6, (3, 2), (2, 1), (1, 0, 2, 1), (1, 2), groups=6)
ONNX_TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}


def attributes_of(operator: Operator, factor: Factor, conv: ConvParams = CONV, compute: str = "int8") -> dict[str, Any]:
    """Every attribute of the operator, by the names of the table."""
    values: dict[str, Any] = {"N": factor.shape[0], "K": factor.shape[1], **factor.attributes, "compute": compute}
    values |= {"kernel_shape": conv.kernel_size, "strides": conv.stride, "pads": conv.padding}
    values |= {"dilations": conv.dilation, "group": conv.groups, "activation": "none", "gated": 0}
    return {attribute.name: values[attribute.name] for attribute in operator.attributes}


def make_model(
    operator: Operator,
    factor: Factor,
    x_shape: Sequence[int | str],
    *,
    bias: np.ndarray | None = None,
    addend: np.ndarray | None = None,
    constant: bool = True,
    inputs: Sequence[str] | None = None,
    **changed: Any,
) -> onnx.ModelProto:
    """One node. Absent optional inputs are empty tensors; `inputs` overrides the names and `changed` attributes."""
    arrays = {i.name: np.zeros(0, i.dtype) for i in operator.inputs if i.optional} | dict(factor.arrays)
    arrays |= {name: array for name, array in (("bias", bias), ("addend", addend)) if array is not None}
    first = operator.inputs[0]
    names = [i.name for i in operator.inputs] if inputs is None else inputs
    attributes = {**attributes_of(operator, factor), **changed}
    node = helper.make_node(operator.onnx_name, list(names), ["y"], name="the_node", domain=DOMAIN, **attributes)
    graph_inputs = [helper.make_tensor_value_info(first.name, ONNX_TYPES[first.dtype], list(x_shape))]
    tensors = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    if not constant:
        graph_inputs += [helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in tensors]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "g", graph_inputs, [output], tensors if constant else [])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def session_of(model: onnx.ModelProto | Path, threads: int = 1) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.register_custom_ops_library(native.get_library_path())
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def run(model: onnx.ModelProto, *inputs: np.ndarray, threads: int = 1) -> np.ndarray:
    session = session_of(model, threads)
    names = [i.name for i in session.get_inputs()]
    y: np.ndarray = session.run(["y"], dict(zip(names, inputs, strict=True)))[0]
    return y


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def factor(rng: np.random.Generator) -> Factor:
    return random_factor(50, 100, 4, 32, books=2, rng=rng)


@pytest.fixture
def conv_factor(rng: np.random.Generator) -> Factor:
    return random_factor(20, 3 * 2 * 32, 3, 64, rng=rng)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("permuted", [False, True])
@pytest.mark.parametrize("compute", COMPUTE_MODES)
def test_matmul(rng: np.random.Generator, compute: Compute, permuted: bool, threads: int) -> None:
    factor = random_factor(50, 100, 3, 32, books=2, permuted=permuted, rng=rng)
    x, bias = rng.standard_normal((2, 3, 100)).astype(np.float32), rng.standard_normal(50).astype(np.float32)
    y = run(make_model(LUT_MATMUL, factor, ["batch", "tokens", 100], bias=bias, compute=compute), x, threads=threads)
    assert_close(y, lut.matmul(x.reshape(6, 100), factor, compute=compute, bias=bias).reshape(2, 3, 50), 1e-5, compute)


@pytest.mark.parametrize("sum_is_read", [False, True])
def test_a_sum_of_terms_takes_the_memory_of_what_it_adds_to_unless_that_is_read_again(
    rng: np.random.Generator, factor: Factor, sum_is_read: bool
) -> None:
    x = rng.standard_normal((7, 100)).astype(np.float32)
    model = make_model(LUT_MATMUL, factor, ["m", 100])
    (node,) = model.graph.node
    names = ["first", "second", "y"]
    for before, name in itertools.pairwise(names):  # each adds a product to the sum of those before
        term = model.graph.node.add()
        term.CopyFrom(node)
        term.name, term.input[-1], term.output[0] = name, before, name
    node.output[0] = names[0]
    if sum_is_read:
        model.graph.node.append(helper.make_node("Identity", ["second"], ["second_again"]))
        model.graph.output.append(helper.make_tensor_value_info("second_again", TensorProto.FLOAT, None))
    outputs = session_of(model).run(None, {"x": x})
    product = lut.matmul(x, factor, compute="int8")
    for terms, y in zip((3, 2), outputs, strict=False):
        assert_close(y, terms * product, 1e-5, terms)


@pytest.mark.parametrize("bits", range(1, 9))
def test_matmul_of_many_tiles_on_threads(rng: np.random.Generator, bits: int) -> None:
    factor = random_factor(1000, 512, bits, 128, rng=rng)
    for m in (1, 40):
        x = rng.standard_normal((m, 512)).astype(np.float32)
        y = run(make_model(LUT_MATMUL, factor, ["m", 512]), x, threads=2)
        assert_close(y, lut.matmul(x, factor, compute="int8"), 1e-5, (bits, m))


def test_matmul_of_no_rows_and_of_a_vector(factor: Factor) -> None:
    assert run(make_model(LUT_MATMUL, factor, ["m", 100]), np.zeros((0, 100), np.float32)).shape == (0, 50)
    assert run(make_model(LUT_MATMUL, factor, [100]), np.zeros(100, np.float32)).shape == (50,)


@pytest.mark.parametrize("permuted", [False, True])
def test_gather(rng: np.random.Generator, permuted: bool) -> None:
    factor = random_factor(50, 33, 5, 64, permuted=permuted, rng=rng)
    indices = rng.integers(-50, 50, (4, 3))
    y = run(make_model(LUT_GATHER, factor, ["batch", "tokens"]), indices, threads=2)
    assert np.array_equal(y, lut.unpack(factor)[indices])


@pytest.mark.parametrize(
    ("conv", "outputs"),
    [(CONV, 20), (ConvParams(40, (1, 1)), 17), (ConvParams(6, (3, 3), (1, 1), (1, 1, 1, 1), groups=6), 12)],
    ids=["general", "1x1", "depthwise"],
)
def test_conv2d(rng: np.random.Generator, conv: ConvParams, outputs: int) -> None:
    k = conv.kernel_size[0] * conv.kernel_size[1] * lut.round_up(conv.in_channels // conv.groups, 32)
    factor = random_factor(outputs, k, 3, 32, rng=rng)
    x, bias = rng.standard_normal((2, conv.in_channels, 9, 11)).astype(np.float32), rng.standard_normal(outputs).astype(np.float32)
    for compute, tolerance in (("float", 1e-5), ("int8", 0.03)):
        attributes = attributes_of(LUT_CONV2D, factor, conv, compute)
        model = make_model(LUT_CONV2D, factor, ["batch", "c", "h", "w"], bias=bias, **attributes)
        assert_close(run(model, x, threads=2), conv2d(x, factor, conv, bias), tolerance, compute)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize(("conv", "outputs"), [(NARROW_CONV, 12), (ConvParams(3, (5, 5), (2, 2), (2, 2, 2, 2)), 20)])
def test_narrow_conv2d(rng: np.random.Generator, conv: ConvParams, outputs: int, bits: int) -> None:
    factor = narrow_factor(outputs, conv, bits=bits)
    x, bias = rng.standard_normal((2, conv.in_channels, 9, 11)).astype(np.float32), rng.standard_normal(outputs).astype(np.float32)
    for compute, tolerance in (("float", 1e-5), ("int8", 0.03)):
        attributes = attributes_of(LUT_NARROW_CONV2D, factor, conv, compute)
        model = make_model(LUT_NARROW_CONV2D, factor, ["batch", "c", "h", "w"], bias=bias, **attributes)
        assert_close(run(model, x, threads=2), conv2d(x, factor, conv, bias), tolerance, (compute, bits))


def test_bad_narrow_factors_are_refused_at_load() -> None:
    factor = narrow_factor(6, NARROW_CONV)
    shape = [1, 6, 9, 9]

    def model_with(**arrays: np.ndarray) -> onnx.ModelProto:
        changed = replace(factor, arrays={**factor.arrays, **arrays})
        return make_model(LUT_NARROW_CONV2D, changed, shape, **attributes_of(LUT_NARROW_CONV2D, factor, NARROW_CONV))

    message = refused(model_with(codes=factor.arrays["codes"][:-1].copy()))
    assert "codes with N=6, K=6, bits=4, exponent=" in message and "must be uint8 [18], got uint8 [17]" in message
    assert "codebook with N=6" in refused(model_with(codebook=np.zeros(0, np.int8)))
    assert "codebooks must lie in" in refused(model_with(codebook=np.full(16, -128, np.int8)))
    assert "row_scale with N=6" in refused(model_with(row_scale=np.zeros(5, np.uint8)))
    assert "exponent must be -120 to 100" in refused(
        make_model(LUT_NARROW_CONV2D, factor, shape, **attributes_of(LUT_NARROW_CONV2D, factor, NARROW_CONV) | {"exponent": 101})
    )


REQUIRED_INPUTS = ("x", "codes", "codebooks", "tile_book", "scales", "row_scale")


def test_last_inputs_may_be_missing(factor: Factor, rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 100)).astype(np.float32)
    y = run(make_model(LUT_MATMUL, factor, ["m", 100], inputs=REQUIRED_INPUTS), x)
    assert_close(y, lut.matmul(x, factor, compute="int8"), 1e-5, "six inputs")


# ONNX Runtime supports this from 1.24 on. Before (tried: 1.20, 1.22, 1.23) the process dies inside the runtime, which never calls
# the library: there is nothing of ours to test. Exported models leave no input out, see compat/test_portability.py.
if tuple(map(int, onnxruntime.__version__.split(".")[:2])) >= (1, 24):

    def test_inputs_between_others_may_be_missing(factor: Factor, rng: np.random.Generator) -> None:
        x = rng.standard_normal((2, 100)).astype(np.float32)
        names = [*REQUIRED_INPUTS, "", "bias"]
        y = run(make_model(LUT_MATMUL, factor, ["m", 100], bias=np.ones(50, np.float32), inputs=names), x)
        assert_close(y, lut.matmul(x, factor, compute="int8") + 1, 1e-5, "an empty name")


@pytest.mark.parametrize("permuted", [False, True])
def test_factor_as_graph_inputs(rng: np.random.Generator, permuted: bool) -> None:
    factor = random_factor(50, 100, 4, 32, permuted=permuted, rng=rng)
    model = make_model(LUT_MATMUL, factor, ["m", 100], constant=False)
    x = rng.standard_normal((2, 100)).astype(np.float32)
    arrays = {
        "row_index": np.zeros(0, np.int32),
        **factor.arrays,
        "bias": np.zeros(0, np.float32),
        "addend": np.zeros(0, np.float32),
    }
    inputs = {"x": x, **arrays}
    session = session_of(model)
    assert_close(session.run(["y"], inputs)[0], lut.matmul(x, factor, compute="int8"), 1e-5, "graph inputs")
    inputs["scales"] = np.full_like(arrays["scales"], -128)
    with pytest.raises(Exception, match=r"LutMatMul node 'the_node': scales must lie in \[-127, 127\]; got N=50, K=100"):
        session.run(["y"], inputs)


def test_factor_in_external_data(factor: Factor, rng: np.random.Generator, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(make_model(LUT_MATMUL, factor, ["m", 100]), path, save_as_external_data=True, size_threshold=0)
    x = rng.standard_normal((3, 100)).astype(np.float32)
    assert_close(session_of(path).run(["y"], {"x": x})[0], lut.matmul(x, factor, compute="int8"), 1e-5, "external data")


def test_one_session_from_several_threads(factor: Factor, rng: np.random.Generator) -> None:
    session = session_of(make_model(LUT_MATMUL, factor, ["m", 100]), threads=2)
    inputs = [rng.standard_normal((m, 100)).astype(np.float32) for m in range(1, 40)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda x: session.run(["y"], {"x": x})[0], inputs))
    for x, y in zip(inputs, results, strict=True):
        assert_close(y, lut.matmul(x, factor, compute="int8"), 1e-5, len(x))


# Those of attention, which have none, are in test_attention_ops.py.
WITH_FACTORS = [operator for operator in OPERATORS.values() if operator.factor.arrays]


@pytest.mark.parametrize("operator", WITH_FACTORS, ids=lambda operator: operator.onnx_name)
def test_names_inputs_and_attributes_are_those_of_the_table(operator: Operator, factor: Factor, conv_factor: Factor) -> None:
    factor = {LUT_CONV2D: conv_factor, LUT_NARROW_CONV2D: narrow_factor(6, NARROW_CONV)}.get(operator, factor)
    names = [i.name for i in operator.inputs]
    shapes: dict[str, list[int | str]] = {"lut_matmul": ["m", 100], "lut_gather": ["m"], "lut_conv2d": [1, 5, 9, 9]}
    shapes["lut_narrow_conv2d"] = [1, 6, 9, 9]
    shape = shapes[operator.name]
    session_of(make_model(operator, factor, shape))
    with pytest.raises(Exception, match=r"(?i)input"):
        session_of(make_model(operator, factor, shape, inputs=[*names, names[-1]]))
    required = [i.name for i in operator.inputs if not i.optional]
    with pytest.raises(Exception, match=r"(?i)input|null"):
        session_of(make_model(operator, factor, shape, inputs=required[:-1]))
    for attribute in operator.attributes:
        model = make_model(operator, factor, shape)
        kept = [a for a in model.graph.node[0].attribute if a.name != attribute.name]
        del model.graph.node[0].attribute[:]
        model.graph.node[0].attribute.extend(kept)
        with pytest.raises(Exception, match=attribute.name):
            session_of(model)


def test_output_shapes_are_inferred(factor: Factor, conv_factor: Factor) -> None:
    def shape(model: onnx.ModelProto) -> list[int | str | None]:
        found: list[int | str | None] = session_of(model).get_outputs()[0].shape
        return found

    assert shape(make_model(LUT_MATMUL, factor, ["batch", "tokens", 100])) == ["batch", "tokens", 50]
    assert shape(make_model(LUT_GATHER, factor, ["batch", 7])) == ["batch", 7, 100]
    assert shape(make_model(LUT_CONV2D, conv_factor, ["batch", 5, 9, 11])) == ["batch", 20, 5, 10]
    assert shape(make_model(LUT_CONV2D, conv_factor, ["batch", 5, "height", 11])) in ([], None)


def refused(model: onnx.ModelProto, *inputs: np.ndarray) -> str:
    """The message of the error that loading or running ends with."""
    with pytest.raises(Exception, match="node 'the_node'") as error:
        run(model, *inputs)
    return str(error.value)


def test_bad_factors_are_refused_at_load(factor: Factor) -> None:
    def with_array(name: str, array: np.ndarray) -> onnx.ModelProto:
        return make_model(LUT_MATMUL, replace(factor, arrays={**factor.arrays, name: array}), ["m", 100])

    arrays = factor.arrays
    message = refused(with_array("scales", arrays["scales"][:, :3].copy()))
    assert "scales with N=50, K=100, bits=4, block_size=32 must be int8 [4, 4, 16], got int8 [4, 3, 16]" in message
    assert "codes must be [T, S, P, 16, 4]" in refused(with_array("codes", arrays["codes"].reshape(-1)))
    assert "codebooks must lie in" in refused(with_array("codebooks", np.full_like(arrays["codebooks"], -128)))
    assert "tile_book" in refused(with_array("tile_book", np.full_like(arrays["tile_book"], 9)))
    assert "row_scale must be finite" in refused(with_array("row_scale", np.full_like(arrays["row_scale"], np.nan)))
    assert "row_index must hold every row" in refused(with_array("row_index", np.zeros(64, np.int32)))
    assert "bits must be 1 to 8, got bits=9" in refused(make_model(LUT_MATMUL, factor, ["m", 100], bits=9))
    assert "block_size must be a multiple of 32" in refused(make_model(LUT_MATMUL, factor, ["m", 100], block_size=48))
    assert "compute must be 'float' or 'int8', got 'int4'" in refused(make_model(LUT_MATMUL, factor, ["m", 100], compute="int4"))


@pytest.mark.parametrize("size", [0, -1, -3, -17, -(10**6), -(2**63), 2**63 - 1])
@pytest.mark.parametrize("name", ["N", "K"])
@pytest.mark.parametrize("operator", WITH_FACTORS, ids=lambda operator: operator.name)
def test_no_size_of_a_damaged_node_ends_the_process(operator: Operator, name: str, size: int, factor: Factor) -> None:
    """Sizes of the output are inferred before the node is checked; open ones of the input have symbols there."""
    given = narrow_factor(6, NARROW_CONV) if operator is LUT_NARROW_CONV2D else factor
    symbols = ["batch", "channels", "height", "width"] if "kernel_shape" in {a.name for a in operator.attributes} else ["a", "b"]
    assert refused(make_model(operator, given, symbols, **{name: size}))


def test_an_integer_of_another_kind_is_named(factor: Factor) -> None:
    assert "the attribute bits must be an integer" in refused(make_model(LUT_MATMUL, factor, ["m", 100], bits="four"))


def test_bad_calls_are_refused(factor: Factor, conv_factor: Factor) -> None:
    ones = np.ones((2, 99), np.float32)
    assert "x must be float32 [..., 100], got [2, 99]" in refused(make_model(LUT_MATMUL, factor, ["m", "k"]), ones)
    short_bias = make_model(LUT_MATMUL, factor, ["m", 100], bias=np.ones(3, np.float32))
    assert "bias must be float32 [50] or absent, got [3]" in refused(short_bias, np.ones((2, 100), np.float32))
    message = refused(make_model(LUT_GATHER, factor, ["m"]), np.array([50]))
    assert "every index must lie in [-N, N); got indices of shape [1], N=50" in message
    image = np.ones((1, 5, 9, 9), np.float32)
    assert "geometry" in refused(make_model(LUT_CONV2D, conv_factor, ["b", "c", "h", "w"], group=3), image)
    assert "geometry" in refused(make_model(LUT_CONV2D, conv_factor, ["b", "c", "h", "w"]), np.ones((1, 64, 9, 9), np.float32))
    model = make_model(LUT_CONV2D, conv_factor, ["b", "c", "h", "w"], kernel_shape=[3])
    assert "kernel_shape must hold 2 integers" in refused(model, image)


def test_a_wrong_variant_fails_the_registration() -> None:
    code = "import onnxruntime, edgecomp; onnxruntime.SessionOptions().register_custom_ops_library(edgecomp.get_library_path())"
    environment = {**os.environ, "EDGECOMP_FORCE_ISA": "mmx"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "must name a kernel variant of this build; got EDGECOMP_FORCE_ISA=mmx" in result.stderr


def test_an_older_runtime_gets_an_error() -> None:
    """A stand-in for a runtime whose newest table is older than 18."""
    messages: list[bytes] = []

    def remember(code: int, text: bytes) -> int:
        messages.append(text)
        return 1

    create_status = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_int, ctypes.c_char_p)(remember)
    table = (ctypes.c_void_p * 1)(ctypes.cast(create_status, ctypes.c_void_p))
    get_api = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint32)(lambda version: ctypes.addressof(table) if version < 18 else None)
    version_text = ctypes.create_string_buffer(b"1.15.0")
    get_version = ctypes.CFUNCTYPE(ctypes.c_size_t)(lambda: ctypes.addressof(version_text))
    base = (ctypes.c_void_p * 2)(ctypes.cast(get_api, ctypes.c_void_p), ctypes.cast(get_version, ctypes.c_void_p))
    register = ctypes.CDLL(native.get_library_path()).RegisterCustomOps
    register.restype = ctypes.c_void_p
    assert register(None, base) == 1
    assert messages == [b"edgecomp's operators need ONNX Runtime 1.18 or later, got 1.15.0"]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_epilogue_in_the_library_and_by_the_function(activation: str, rng: np.random.Generator) -> None:
    factor = random_factor(64, 96, 4, 32, books=2, rng=rng)
    x, addend, bias = (rng.standard_normal(shape).astype(np.float32) for shape in ((3, 96), (3, 64), 64))
    for gated, given_bias, given_addend in itertools.product((0, 1), (None, bias), (None, addend)):
        others: dict[str, Any] = {"bias": given_bias, "addend": given_addend, "activation": activation, "compute": "float"}
        expected = native.lut_matmul(x, factor, gated=bool(gated), **others)
        assert expected.shape == (3, 32 if gated else 64)
        model = make_model(LUT_MATMUL, factor, ["m", 96], gated=gated, **others)
        assert np.array_equal(run(model, x), expected)
        model.opset_import[0].version, model.ir_version = 21, 10
        model.functions.extend(function_protos({LUT_MATMUL.onnx_name}, 21))
        stock = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        assert_close(stock.run(None, {"x": x})[0], expected, 1e-5, (activation, gated))
