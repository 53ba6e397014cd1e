"""What follows a product, inside LutMatMul and as nodes of ONNX Runtime behind it.

Three sides in turns, in one runtime on one thread: the product alone, the product with its epilogue, the product and the runtime's
own nodes. `swiglu` is silu(gate) * up of N/2 columns each: one product inside, two products, an activation and a Mul outside. As in
kernels.py, nodes have weights of their own that no cache holds, and ratios are medians over adjacent runs.

    python benchmarks/epilogues.py [--shapes 1536x576,576x1536] [--rows 1,16,128] [--epilogues addend,silu] [--cpu-time] [--json]
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime
from kernels import cold_mib
from onnx import NodeProto, TensorProto, helper, numpy_helper
from records import add_json_option, print_rows

from edgecomp import native
from edgecomp.formats import lut
from edgecomp.ops import NO_EPILOGUE

BITS, BLOCK_SIZE = 4, 32
MANY_ROWS = 16
OWN_NODES: dict[str, list[tuple[str, dict[str, Any]]]] = {  # that run on the product {y}
    "relu": [("Relu", {})],
    "gelu": [("Gelu", {})],
    "gelu_tanh": [("Gelu", {"approximate": "tanh"})],
    "hard_swish": [("HardSwish", {})],
}
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
    alone_us: float
    inside_us: float
    outside_us: float
    inside_over_alone: float
    outside_over_inside: float


def product(prefix: str, n: int, k: int, addend: str, attributes: dict[str, Any], weights: dict[str, np.ndarray]) -> NodeProto:
    """A LutMatMul node whose output is `prefix`, with random weights that are added to `weights`."""
    rng = np.random.default_rng(0)
    sizes = lut.lut_sizes(n, k, BITS, BLOCK_SIZE)
    arrays = {
        "codes": rng.integers(0, 256, (sizes.tiles, sizes.spans, sizes.planes, 16, 4), dtype=np.uint8),
        "codebooks": np.linspace(-127, 127, 2**BITS).round().astype(np.int8)[None],
        "tile_book": np.zeros(sizes.tiles, np.uint16),
        "scales": rng.integers(32, 128, (sizes.tiles, sizes.blocks, 16)).astype(np.int8),
        "row_scale": rng.uniform(0.5, 1, (sizes.tiles, 16)).astype(np.float32) / 100000,
    }
    weights |= {f"{prefix}.{name}": array for name, array in arrays.items()}
    bias = "bias" if n == len(weights["bias"]) else "half_bias"
    inputs = ["x", *(f"{prefix}.{name}" for name in arrays), "no_index", bias, addend]
    known = {"N": n, "K": k, "bits": BITS, "block_size": BLOCK_SIZE, "compute": "int8", **NO_EPILOGUE, **attributes}
    return helper.make_node("LutMatMul", inputs, [prefix], domain="ai.edgecomp", **known)


def silu(y: str, out: str) -> list[NodeProto]:
    """As PyTorch's is exported, which the runtime makes one node of."""
    return [helper.make_node("Sigmoid", [y], [f"{out}.s"]), helper.make_node("Mul", [y, f"{out}.s"], [out])]


def nodes_of(side: str, epilogue: str, name: str, n: int, k: int, weights: dict[str, np.ndarray]) -> list[NodeProto]:
    """The nodes of one product, whose last output is `name`."""
    inside = {"swiglu": {"activation": "silu", "gated": 1}}.get(epilogue, {"activation": epilogue} if epilogue != "addend" else {})
    if side == "alone":
        return [product(name, n, k, "absent", {}, weights)]
    if side == "inside":
        return [product(name, n, k, "addend" if epilogue == "addend" else "absent", inside, weights)]
    if epilogue == "swiglu":
        parts = [product(f"{name}.{part}", n // 2, k, "absent", {}, weights) for part in ("gate", "up")]
        activated = silu(f"{name}.gate", f"{name}.activated")
        return [*parts, *activated, helper.make_node("Mul", [f"{name}.activated", f"{name}.up"], [name])]
    y = f"{name}.y"
    first = product(y, n, k, "absent", {}, weights)
    if epilogue == "addend":
        return [first, helper.make_node("Add", [y, "addend"], [name])]
    if epilogue == "silu":
        return [first, *silu(y, name)]
    ((op, attributes),) = OWN_NODES[epilogue]
    return [first, helper.make_node(op, [y], [name], **attributes)]


def session_of(side: str, epilogue: str, n: int, k: int, copies: int) -> onnxruntime.InferenceSession:
    """A session of `copies` products with weights of their own."""
    weights: dict[str, np.ndarray] = {"no_index": np.zeros(0, np.int32), "absent": np.zeros(0, np.float32)}
    weights |= {"bias": np.ones(n, np.float32), "half_bias": np.ones(n // 2, np.float32)}
    nodes = [node for i in range(copies) for node in nodes_of(side, epilogue, f"y{i}", n, k, weights)]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", k])]
    inputs += [helper.make_tensor_value_info("addend", TensorProto.FLOAT, ["rows", n])]
    outputs = [helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, None) for i in range(copies)]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [numpy_helper.from_array(a, name) for name, a in weights.items()])
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("ai.edgecomp", 1)]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # which initialisers a side leaves unused says nothing
    options.register_custom_ops_library(native.get_library_path())
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def compare(n: int, k: int, rows: int, epilogue: str, turns: int, clock: Callable[[], int], cold_bytes: int) -> Row:
    """Time the three sides in turns."""
    rng = np.random.default_rng(0)
    inputs = {"x": rng.standard_normal((rows, k)).astype(np.float32), "addend": rng.standard_normal((rows, n)).astype(np.float32)}
    copies = -(-cold_bytes // lut.packed_bytes(n, k, BITS, BLOCK_SIZE)) if rows < MANY_ROWS else 4
    sessions = {side: session_of(side, epilogue, n, k, copies) for side in ("alone", "inside", "outside")}
    results = {side: session.run(["y0"], inputs)[0] for side, session in sessions.items()}
    if epilogue != "swiglu":  # whose outer side has other random weights
        assert np.abs(results["inside"] - results["outside"]).max() <= 1e-5 * np.abs(results["outside"]).max(), epilogue

    def run_us(session: onnxruntime.InferenceSession) -> float:
        start = clock()
        session.run(["y0"], inputs)
        return (clock() - start) / 1e3 / copies

    times = np.array([[run_us(session) for session in sessions.values()] for _ in range(turns)])
    alone, inside, outside = times.T
    return Row(
        *(n, k, rows, BITS, BLOCK_SIZE, epilogue),
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
    for shape in arguments.shapes.split(","):
        n, k = map(int, shape.split("x"))
        for m in map(int, arguments.rows.split(",")):
            for epilogue in arguments.epilogues.split(","):
                print(shape, m, epilogue, file=sys.stderr)
                rows.append(compare(n, k, m, epilogue, arguments.turns, clock, arguments.cold_mib << 20))
    print_rows("epilogues", rows, as_json=arguments.json)


if __name__ == "__main__":
    main()
