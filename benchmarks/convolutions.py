"""LutConv2D and LutNarrowConv2D beside ONNX Runtime's convolutions in float32 and static int8.

    python benchmarks/convolutions.py [--nets ResNet-18,MobileNetV2,x-vector] [--threads 1,2] [--block-size 128] [--json]

Every shape of three nets (convolution_shapes.py), each with bias and the ReLU that it has in its net. Sides:

    lut                   4 bits (8 where the layer takes `lut_narrow`), in the format that `lut-kmeans` gives it; `--block-size`
                          columns a block or the first half that divides, entries within `--largest-entry`; float32 in and out
    onnxruntime-float32   Conv and Relu, which the runtime fuses and lays out as it likes
    onnxruntime-int8      what a static int8 net is inside: QLinearConv in the runtime's own layout (channels last), uint8 in and
                          out, int8 weights with a scale for each channel. Nothing of quantising and dequantising is in its time

A side is a model of several nodes with weights of their own (`copies`), `--cold-mib` in all or 48 nodes, so that weights come from
no second-level cache; `us` is a median of runs in turns, divided by the nodes. `over_int8` is the median ratio to onnxruntime-int8
over runs side by side, `file_mb` the bytes of a model of one node. Before any timing each side's result
is held against its own weights in float64. Which instruction sets sides use is set from outside: EDGECOMP_FORCE_ISA for ours,
hide_cpu_features.c for the runtimes; `variant` says what ours used. On a busy machine --cpu-time counts the calling thread's own
time (one thread only): time lost to others does not count then, what they take of caches and memory does.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime
import torch
from convolution_shapes import NETS, Convolution
from onnx import NodeProto, TensorProto, helper, numpy_helper
from records import add_json_option, print_rows
from settling import settle

from edgecomp import native
from edgecomp.columns import ConvColumns
from edgecomp.formats import conv_format, lut, lut_narrow, unpack
from edgecomp.ops import LUT_CONV2D, LUT_NARROW_CONV2D
from edgecomp.tensor import Factor

MOST_COPIES, FEWEST_COPIES = 48, 3
LARGEST_ERROR = 0.03  # of the result's norm: 8-bit inputs and outputs cost a third of that, a wrong layout all
BITS, NARROW_BITS = 4, 8
SIDES = ("lut", "onnxruntime-float32", "onnxruntime-int8")


@dataclass(frozen=True)
class Row:
    """One side at one shape."""

    net: str
    shape: str
    weight: int
    batch: int
    threads: int
    side: str
    us: float
    over_int8: float
    file_mb: float
    error: float
    copies: int
    format: str
    block_size: int | None
    variant: str


@dataclass(frozen=True)
class Choices:
    """What the arguments say of all layers."""

    block_size: int
    largest_entry: int
    cold_mib: int
    batch: int
    reduce_range: bool


@dataclass(frozen=True)
class Side:
    """Nodes that run together, and what is known of one."""

    run: Callable[[], object]
    copies: int
    file_bytes: int
    error: float
    format: str = ""
    block_size: int | None = None

    def us(self, clock: Callable[[], int]) -> float:
        """Microseconds a node, of one run."""
        start = clock()
        self.run()
        return (clock() - start) / 1e3 / self.copies


class Problem:
    """A layer's input, and what its result must be for given weights."""

    def __init__(self, layer: Convolution, choices: Choices) -> None:
        self.layer, self.choices = layer, choices
        self.rng = np.random.default_rng(0)
        self.x = self.rng.standard_normal((choices.batch, layer.conv.in_channels, layer.height, layer.width)).astype(np.float32)
        self.bias = self.rng.standard_normal(layer.outputs).astype(np.float32)

    def copies(self, weight_bytes: int) -> int:
        """Nodes of so many bytes."""
        return min(MOST_COPIES, max(FEWEST_COPIES, (self.choices.cold_mib << 20) // weight_bytes))

    def expected(self, kernel: np.ndarray) -> np.ndarray:
        """The float64 result with a kernel `[N, C / groups, kh, kw]`."""
        c, (top, left, bottom, right) = self.layer.conv, self.layer.conv.padding
        image = torch.nn.functional.pad(torch.from_numpy(self.x).double(), (left, right, top, bottom))
        weights, bias = torch.from_numpy(kernel).double(), torch.from_numpy(self.bias).double()
        y = torch.nn.functional.conv2d(image, weights, bias, c.stride, 0, c.dilation, c.groups)
        return (y.relu() if self.layer.relu else y).numpy()

    def error(self, side: str, got: np.ndarray, kernel: np.ndarray) -> float:
        """Of a result, by norms.

        Raises:
            SystemExit: it is above LARGEST_ERROR.

        """
        expected = self.expected(kernel)
        error = float(np.linalg.norm(got - expected) / np.linalg.norm(expected))
        if not error < LARGEST_ERROR:
            raise SystemExit(
                f"{self.layer.name}, {side}: results must be within {LARGEST_ERROR} of float64 before timing, got {error}"
            )
        return error

    @property
    def kernel_shape(self) -> tuple[int, int, int, int]:
        """Of weights in the runtimes' layout."""
        c = self.layer.conv
        return self.layer.outputs, c.in_channels // c.groups, *c.kernel_size


def model_of(nodes: Sequence[NodeProto], weights: Mapping[str, np.ndarray], x: np.ndarray, copies: int, y_type: int) -> bytes:
    """An ONNX model whose nodes all read x.

    Of the outputs y1 and so on only shapes are results: their memory is taken again by the next node, as inside of a net.
    """
    shapes = [helper.make_node("Shape", [f"y{i}"], [f"shape{i}"]) for i in range(1, copies)]
    outputs = [helper.make_tensor_value_info("y0", y_type, None)]
    outputs += [helper.make_tensor_value_info(f"shape{i}", TensorProto.INT64, [4]) for i in range(1, copies)]
    graph = helper.make_graph(
        [*nodes, *shapes], "g",
        [helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(x.dtype), ["batch", *x.shape[1:]])],
        outputs,
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.edgecomp", 1), helper.make_opsetid("com.microsoft", 1)]
    data: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    return data


def session_of(model: bytes, threads: int) -> onnxruntime.InferenceSession:
    """Ready to run."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.register_custom_ops_library(native.get_library_path())
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


Node = Callable[[int], tuple[list[NodeProto], dict[str, np.ndarray]]]  # of copy i, whose output is y{i}


def onnx_side(
    problem: Problem,
    side: str,
    node: Node,
    shared: dict[str, np.ndarray],
    x: np.ndarray,
    threads: int,
    finish: Callable[[np.ndarray], np.ndarray],
    kernel: np.ndarray,
    y_type: int = TensorProto.FLOAT,
    **known: Any,
) -> Side:
    """Copies of a node in one session; `kernel` are copy 0's weights and `finish` makes a float NCHW result of its output."""
    one_nodes, one_weights = node(0)
    one = model_of(one_nodes, {**shared, **one_weights}, x, 1, y_type)
    copies = problem.copies(sum(array.nbytes for array in one_weights.values()))
    nodes, weights = list(one_nodes), {**shared, **one_weights}
    for i in range(1, copies):
        more, own = node(i)
        nodes += more
        weights |= own
    session = session_of(model_of(nodes, weights, x, copies, y_type), threads)
    y = session.run(None, {"x": x})[0]
    error = problem.error(side, finish(y), kernel)
    return Side(lambda: session.run(None, {"x": x}), copies, len(one), error, **known)


def as_it_is(y: np.ndarray) -> np.ndarray:
    """Of sides with float32 NCHW outputs."""
    return y


def random_factor(problem: Problem) -> Factor:
    """A factor in the format that the layer takes, with random codes."""
    layer, rng, choices = problem.layer, problem.rng, problem.choices
    n, columns = layer.outputs, lut.conv_columns(layer.conv)
    block_size = choices.block_size
    while columns % block_size:
        block_size //= 2
    if conv_format(n, layer.conv, BITS, block_size, NARROW_BITS)[0] == "lut_narrow":
        codes = rng.integers(-127, 128, (n, lut_narrow.conv_columns(layer.conv)))
        row_scale = rng.integers(100, 130, n).astype(np.uint8)
        return lut_narrow.pack(codes, np.zeros(0, np.int8), row_scale, bits=NARROW_BITS, exponent=-16)
    sizes = lut.lut_sizes(n, columns, BITS, block_size)
    most = choices.largest_entry
    arrays = {
        "codes": rng.integers(0, 256, (sizes.tiles, sizes.spans, sizes.planes, 16, 4), dtype=np.uint8),
        "codebooks": np.linspace(-most, most, 2**BITS).round().astype(np.int8)[None],
        "tile_book": np.zeros(sizes.tiles, np.uint16),
        "scales": rng.integers(32, 128, (sizes.tiles, sizes.blocks, 16)).astype(np.int8),
        "row_scale": rng.uniform(0.5, 1, (sizes.tiles, 16)).astype(np.float32) / 1024,
    }
    return Factor("lut", (n, columns), {"bits": BITS, "block_size": block_size}, arrays)


def lut_side(problem: Problem, threads: int) -> Side:
    """Our operator."""
    layer, factor = problem.layer, random_factor(problem)
    operator = LUT_CONV2D if factor.format == "lut" else LUT_NARROW_CONV2D
    own = ("codes", "scales") if factor.format == "lut" else ("codes", "row_scale")
    shared = {name: array for name, array in factor.arrays.items() if name not in own} | {"bias": problem.bias}
    values = {
        "N": factor.shape[0], "K": factor.shape[1], "compute": "int8", "activation": "relu" if layer.relu else "none",
        **factor.attributes, **layer.conv.attributes,
    }  # fmt: skip
    attributes = {attribute.name: values[attribute.name] for attribute in operator.attributes}

    def node(i: int) -> tuple[list[NodeProto], dict[str, np.ndarray]]:
        arrays = {name: np.roll(factor.arrays[name], i, axis=0) for name in own}
        names = {name: f"{name}{i}" if name in own else name for name in (*factor.arrays, "bias", "x")}
        inputs = [names.get(each.name, f"absent_{each.dtype}") for each in operator.inputs]
        nodes = [helper.make_node(operator.onnx_name, inputs, [f"y{i}"], domain="ai.edgecomp", **attributes)]
        return nodes, {names[name]: array for name, array in arrays.items()}

    absent = [each for each in operator.inputs if each.name not in factor.arrays and each.name not in ("x", "bias")]
    shared |= {f"absent_{each.dtype}": np.zeros(0, each.dtype) for each in absent}
    kernel = ConvColumns(layer.conv).kernel(torch.from_numpy(unpack(factor))).numpy()
    return onnx_side(
        problem, "lut", node, shared, problem.x, threads, as_it_is, kernel,
        format=factor.format, block_size=factor.attributes.get("block_size"),
    )  # fmt: skip


def float_side(problem: Problem, threads: int) -> Side:
    """ONNX Runtime's Conv."""
    layer = problem.layer
    kernel = problem.rng.standard_normal(problem.kernel_shape).astype(np.float32)

    def node(i: int) -> tuple[list[NodeProto], dict[str, np.ndarray]]:
        y = f"z{i}" if layer.relu else f"y{i}"
        nodes = [helper.make_node("Conv", ["x", f"w{i}", "bias"], [y], **layer.conv.attributes)]
        if layer.relu:
            nodes.append(helper.make_node("Relu", [y], [f"y{i}"]))
        return nodes, {f"w{i}": np.roll(kernel, i, axis=0)}

    return onnx_side(problem, SIDES[1], node, {"bias": problem.bias}, problem.x, threads, as_it_is, kernel)


def int8_side(problem: Problem, threads: int) -> Side:
    """ONNX Runtime's QLinearConv in the layout that it has inside of a net."""
    layer, rng = problem.layer, problem.rng
    most = 63 if problem.choices.reduce_range else 127
    weights = rng.integers(-most, most + 1, problem.kernel_shape).astype(np.int8)
    weight_scale = rng.uniform(0.5, 1, layer.outputs).astype(np.float32) / 127
    kernel = weights * weight_scale[:, None, None, None]
    expected = problem.expected(kernel)
    x_scale = np.float32(np.abs(problem.x).max() / 127)
    y_zero = 0 if layer.relu else 128
    y_scale = np.float32(np.abs(expected).max() / (255 if layer.relu else 127))
    q = (np.clip(np.rint(problem.x / x_scale), -127, 127) + 128).astype(np.uint8).transpose(0, 2, 3, 1).copy()
    shared = {
        "x_scale": np.array(x_scale), "x_zero": np.array(128, np.uint8), "w_scale": weight_scale,
        "w_zero": np.zeros(layer.outputs, np.int8), "y_scale": np.array(y_scale), "y_zero": np.array(y_zero, np.uint8),
        "bias": np.rint(problem.bias / (x_scale * weight_scale)).astype(np.int32),
    }  # fmt: skip

    def node(i: int) -> tuple[list[NodeProto], dict[str, np.ndarray]]:
        inputs = ["x", "x_scale", "x_zero", f"w{i}", "w_scale", "w_zero", "y_scale", "y_zero", "bias"]
        nodes = [
            helper.make_node("QLinearConv", inputs, [f"y{i}"], domain="com.microsoft", channels_last=1, **layer.conv.attributes)
        ]
        return nodes, {f"w{i}": np.roll(weights, i, axis=0)}

    def finish(y: np.ndarray) -> np.ndarray:
        return ((y.astype(np.float32) - y_zero) * y_scale).transpose(0, 3, 1, 2)

    return onnx_side(problem, SIDES[2], node, shared, q, threads, finish, kernel, TensorProto.UINT8)


def compare(
    net: str,
    layer: Convolution,
    weight: int,
    threads: int,
    choices: Choices,
    rounds: int,
    clock: Callable[[], int],
) -> list[Row]:
    """All sides at one shape, run in turns."""
    problem = Problem(layer, choices)
    sides = {"lut": lut_side(problem, threads), SIDES[1]: float_side(problem, threads), SIDES[2]: int8_side(problem, threads)}
    times: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            settle(threads, lambda side=side: side.us(clock))
            times[name].append(side.us(clock))
    peer = times[SIDES[2]]
    return [
        Row(
            net=net, shape=layer.name, weight=weight, batch=choices.batch, threads=threads, side=name, us=median(times[name]),
            over_int8=median(a / b for a, b in zip(times[name], peer, strict=True)), file_mb=side.file_bytes / 1e6,
            error=side.error, copies=side.copies, format=side.format, block_size=side.block_size,
            variant=native.selected_variant() if name == "lut" else "",
        )
        for name, side in sides.items()
    ]  # fmt: skip


def print_sums(rows: Sequence[Row], file: Any) -> None:
    """Time x weight of each net and side, and all nets' beside onnxruntime-int8."""
    for threads in sorted({row.threads for row in rows}):
        for net in (*dict.fromkeys(row.net for row in rows), "all"):
            mine = [row for row in rows if row.threads == threads and net in (row.net, "all")]
            sums = {side: sum(row.us * row.weight for row in mine if row.side == side) for side in SIDES}
            peer = sums[SIDES[2]]
            figures = ", ".join(f"{side} {sums[side]:.0f} us ({sums[side] / peer:.3f})" for side in SIDES if sums[side])
            print(f"{net}, {threads} threads: {figures}", file=file)


def main() -> None:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", default=",".join(NETS), help="separated by commas (default: %(default)s)")
    parser.add_argument("--only", default="", help="shapes whose name holds this text")
    parser.add_argument("--threads", default="1,2", help="separated by commas (default: %(default)s)")
    parser.add_argument("--block-size", type=int, default=128, help="or the first half that divides (default: %(default)s)")
    parser.add_argument("--largest-entry", type=int, default=31, help="magnitude of codebook entries (default: %(default)s)")
    parser.add_argument("--cold-mib", type=int, default=12, help="of a side's weights at least, or 48 nodes (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=1, help="images at once (default: %(default)s)")
    parser.add_argument("--reduce-range", action="store_true", help="of onnxruntime-int8: its AVX2 kernels saturate otherwise")
    parser.add_argument("--rounds", type=int, default=21, help="runs of each side (default: %(default)s)")
    parser.add_argument("--cpu-time", action="store_true", help="the calling thread's time, not the clock's; one thread only")
    add_json_option(parser)
    arguments = parser.parse_args()
    if arguments.cpu_time and arguments.threads != "1":
        parser.error("--cpu-time must go with --threads 1: other threads' time would be missing")
    clock = time.thread_time_ns if arguments.cpu_time else time.perf_counter_ns
    torch.set_num_threads(1)
    onnxruntime.set_default_logger_severity(3)
    choices = Choices(arguments.block_size, arguments.largest_entry, arguments.cold_mib, arguments.batch, arguments.reduce_range)
    rows: list[Row] = []
    for net in arguments.nets.split(","):
        for layer, weight in NETS[net]().items():
            if arguments.only not in layer.name:
                continue
            for threads in map(int, arguments.threads.split(",")):
                done = compare(net, layer, weight, threads, choices, arguments.rounds, clock)
                rows += done
                print(net, layer.name, weight, threads, *(f"{row.side} {row.us:.1f}" for row in done), file=sys.stderr, flush=True)
    print_sums(rows, sys.stderr)
    print_rows("convolutions", rows, as_json=arguments.json)


if __name__ == "__main__":
    main()
