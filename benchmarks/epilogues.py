"""What follows a product, inside LutMatMul and as nodes of ONNX Runtime behind it.

Three sides in turns, in one runtime on one thread: the product alone, the product with its epilogue, the product and the runtime's
own nodes. `addend`: the products are the terms of one sum. `swiglu` is silu(gate) * up of N/2 columns each: one product inside, two
products, an activation and a Mul outside. Nodes have weights of their own: one row reads them from memory that no cache holds
(`weights_mib` in all), several rows find them in one that does. Outputs are read by a next node and their memory taken again, as
inside a model. Ratios are medians over adjacent runs.

    python benchmarks/epilogues.py [--shapes 1536x576,576x1536] [--rows 1,16,128] [--epilogues addend,silu] [--cpu-time] [--json]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime
from kernels import cold_mib
from onnx import NodeProto, TensorProto, helper, numpy_helper, save_model
from records import add_json_option, print_rows

from edgecomp import native
from edgecomp.formats import lut
from edgecomp.ops import NO_EPILOGUE

BITS, BLOCK_SIZE = 4, 32
MANY_ROWS = 16
MANY_ROWS_COPIES = 4
OWN_NODES: dict[str, tuple[str, dict[str, Any]]] = {
    "relu": ("Relu", {}),
    "gelu": ("Gelu", {}),
    "gelu_tanh": ("Gelu", {"approximate": "tanh"}),
    "hard_swish": ("HardSwish", {}),
}
PAGE = 1 << 12  # at which arrays begin in their file, so that it is mapped
EPILOGUES = ("addend", "relu", "silu", "gelu", "gelu_tanh", "hard_swish", "swiglu")


@dataclass(frozen=True)
class Row:
    """One comparison; times are microseconds a product."""

    n: int
    k: int
    rows: int
    bits: int
    block_size: int
    epilogue: str
    weights_mib: int
    alone_us: float
    inside_us: float
    outside_us: float
    inside_over_alone: float
    outside_over_inside: float


class Weights:
    """Random weights of `copies` products, which the sides share: codes and scales each in a file, the small arrays but once."""

    def __init__(self, path: Path, n: int, k: int, copies: int) -> None:
        self.path, self.n, self.k, self.copies = path, n, k, copies
        rng = np.random.default_rng(0)
        sizes = lut.lut_sizes(n, k, BITS, BLOCK_SIZE)
        self.own: dict[str, np.ndarray] = {
            "codes": rng.integers(0, 256, (sizes.tiles, sizes.spans, sizes.planes, 16, 4), dtype=np.uint8),
            "scales": rng.integers(32, 128, (sizes.tiles, sizes.blocks, 16)).astype(np.int8),
        }
        self.shared: dict[str, np.ndarray] = {
            "codebooks": np.linspace(-127, 127, 2**BITS).round().astype(np.int8)[None],
            "tile_book": np.zeros(sizes.tiles, np.uint16),
            "row_scale": np.tile(rng.uniform(0.5, 1, (sizes.tiles // 2, 16)).astype(np.float32) / 100000, (2, 1)),  # halves alike
            "bias": np.ones(n, np.float32),
        }
        halves = {name: array if name == "codebooks" else array[: len(array) // 2] for name, array in self.shared.items()}
        self.shared |= {f"half_{name}": array for name, array in halves.items()}
        copy = b"".join(array.tobytes() + bytes(-array.nbytes % PAGE) for array in self.own.values())
        self.copy_bytes = len(copy)
        with path.open("wb") as file:
            for _ in range(copies):
                file.write(copy)

    def initialisers(self, prefix: str, i: int, half: int | None) -> list[TensorProto]:
        """The arrays that are copy i's own, or a half of their rows."""
        tensors, begin = [], i * self.copy_bytes
        for name, array in self.own.items():
            part = array.nbytes if half is None else array.nbytes // 2
            shape = (len(array) if half is None else len(array) // 2, *array.shape[1:])
            tensor = TensorProto(name=f"{prefix}.{name}", dims=shape, data_type=helper.np_dtype_to_tensor_dtype(array.dtype))
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", self.path.name), ("offset", begin + part * (half or 0)), ("length", part)):
                tensor.external_data.add(key=key, value=str(value))
            tensors.append(tensor)
            begin += array.nbytes + -array.nbytes % PAGE
        return tensors


@dataclass
class Graph:
    """Nodes and initialisers as they come."""

    weights: Weights
    nodes: list[NodeProto]
    initialisers: list[TensorProto]

    def product(self, out: str, i: int, *, addend: str = "absent", half: int | None = None, **attributes: Any) -> None:
        """A LutMatMul node of copy i, or of a half of its rows."""
        tensors = self.weights.initialisers(out, i, half)
        n = self.weights.n if half is None else self.weights.n // 2
        codes, scales = (tensor.name for tensor in tensors)
        size = "" if half is None else "half_"
        arrays = [codes, f"{size}codebooks", f"{size}tile_book", scales, f"{size}row_scale"]
        inputs = ["x", *arrays, "no_index", f"{size}bias", addend]
        known = {
            "N": n,
            "K": self.weights.k,
            "bits": BITS,
            "block_size": BLOCK_SIZE,
            "compute": "int8",
            **NO_EPILOGUE,
            **attributes,
        }
        self.initialisers += tensors
        self.nodes.append(helper.make_node("LutMatMul", inputs, [out], domain="ai.edgecomp", **known))

    def silu(self, y: str, out: str) -> None:
        """As PyTorch's is exported, which the runtime makes one node of."""
        self.node("Sigmoid", [y], f"{out}.s")
        self.node("Mul", [y, f"{out}.s"], out)

    def node(self, op: str, inputs: list[str], out: str, **attributes: Any) -> None:
        """A standard node."""
        self.nodes.append(helper.make_node(op, inputs, [out], **attributes))

    def side(self, side: str, epilogue: str, name: str, i: int) -> None:
        """One product of a side, whose last output is `name`; its addend is the sum of those before it."""
        y, addend = f"{name}.y", "first_addend" if i == 0 else f"y{i - 1}"
        match side, epilogue:
            case "alone", _:
                self.product(name, i)
            case "inside", "swiglu":
                self.product(name, i, activation="silu", gated=1)
            case "inside", "addend":
                self.product(name, i, addend=addend)
            case "inside", _:
                self.product(name, i, activation=epilogue)
            case _, "swiglu":
                self.product(f"{name}.gate", i, half=0)
                self.product(f"{name}.up", i, half=1)
                self.silu(f"{name}.gate", f"{name}.activated")
                self.node("Mul", [f"{name}.activated", f"{name}.up"], name)
            case _, "addend":
                self.product(y, i)
                self.node("Add", [addend, y], name)
            case _, "silu":
                self.product(y, i)
                self.silu(y, name)
            case _:
                self.product(y, i)
                op, attributes = OWN_NODES[epilogue]
                self.node(op, [y], name, **attributes)


def session_of(weights: Weights, side: str, epilogue: str, copies: int, *, whole: bool) -> onnxruntime.InferenceSession:
    """A session of `copies` products: their outputs, or a value of each."""
    n, k = weights.n, weights.k
    graph = Graph(weights, [], [])
    shared = {"no_index": np.zeros(0, np.int32), "absent": np.zeros(0, np.float32), **weights.shared}
    for i in range(copies):
        graph.side(side, epilogue, f"y{i}", i)
        # A value of each output, or where the next product takes it as its addend, one of x: as many nodes on every side.
        is_addend = epilogue == "addend" and side != "alone" and i + 1 < copies
        shared |= {f"from{i}": np.array([0, i % k]), f"to{i}": np.array([1, i % k + 1])}
        graph.node("Slice", ["x" if is_addend else f"y{i}", f"from{i}", f"to{i}"], f"value{i}")
    graph.initialisers += [numpy_helper.from_array(array, name) for name, array in shared.items()]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", k])]
    inputs += [helper.make_tensor_value_info("first_addend", TensorProto.FLOAT, ["rows", n])]
    names = [f"{'y' if whole else 'value'}{i}" for i in range(copies)]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]
    made = helper.make_graph(graph.nodes, "g", inputs, outputs, graph.initialisers)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("ai.edgecomp", 1)]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # which initialisers a side leaves unused says nothing
    options.register_custom_ops_library(native.get_library_path())
    path = weights.path.parent / "model.onnx"
    save_model(helper.make_model(made, opset_imports=opsets, ir_version=10), path)
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def compare(weights: Weights, rows: int, epilogue: str, turns: int, clock: Callable[[], int]) -> Row:
    """Time the three sides in turns."""
    n, k = weights.n, weights.k
    rng = np.random.default_rng(0)
    inputs = {name: rng.standard_normal((rows, size)).astype(np.float32) for name, size in (("x", k), ("first_addend", n))}
    whole = {side: session_of(weights, side, epilogue, 1, whole=True).run(None, inputs)[0] for side in ("inside", "outside")}
    assert np.abs(whole["inside"] - whole["outside"]).max() <= 1e-5 * np.abs(whole["outside"]).max(), epilogue
    copies = weights.copies if rows < MANY_ROWS else MANY_ROWS_COPIES
    sessions = [session_of(weights, side, epilogue, copies, whole=False) for side in ("alone", "inside", "outside")]

    def run_us(session: onnxruntime.InferenceSession) -> float:
        start = clock()
        session.run(None, inputs)
        return (clock() - start) / 1e3 / copies

    for session in sessions:
        session.run(None, inputs)
    times = np.array([[run_us(session) for session in sessions] for _ in range(turns)])
    alone, inside, outside = times.T
    return Row(
        *(n, k, rows, BITS, BLOCK_SIZE, epilogue, copies * weights.copy_bytes >> 20),
        *(float(np.median(side)) for side in (alone, inside, outside)),
        float(np.median(inside / alone)),
        float(np.median(outside / inside)),
    )


def main() -> None:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--shapes", default="1536x576,576x1536", help="NxK, separated by commas")
    parser.add_argument("--rows", default="1,16,128", help="of x, separated by commas")
    parser.add_argument("--epilogues", default=",".join(EPILOGUES), help="separated by commas")
    parser.add_argument("--cold-mib", type=int, default=cold_mib(), help="of weights (default: 5 times the largest cache)")
    parser.add_argument("--turns", type=int, default=21)
    parser.add_argument("--cpu-time", action="store_true", help="the calling thread's time, not the clock's")
    add_json_option(parser)
    arguments = parser.parse_args()
    clock = time.thread_time_ns if arguments.cpu_time else time.perf_counter_ns
    rows = []
    row_counts = [int(m) for m in arguments.rows.split(",")]
    for shape in arguments.shapes.split(","):
        n, k = map(int, shape.split("x"))
        with tempfile.TemporaryDirectory() as folder:
            cold = -(-(arguments.cold_mib << 20) // lut.packed_bytes(n, k, BITS, BLOCK_SIZE))
            copies = cold if min(row_counts) < MANY_ROWS else MANY_ROWS_COPIES
            weights = Weights(Path(folder) / "weights.data", n, k, copies)
            for m in row_counts:
                for epilogue in arguments.epilogues.split(","):
                    print(shape, m, epilogue, file=sys.stderr)
                    rows.append(compare(weights, m, epilogue, arguments.turns, clock))
    print_rows("epilogues", rows, as_json=arguments.json)


if __name__ == "__main__":
    main()
