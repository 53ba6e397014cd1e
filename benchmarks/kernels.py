"""LutMatMul against ONNX Runtime's own MatMulNBits and, for many rows, its float32 MatMul, with weights that no cache holds.

All run inside onnxruntime on the same machine in turns. A model holds as many nodes with weights of their own as it takes to
exceed the cache several times; a sample is one run of the model divided by its nodes. The ratio is the median over pairs of
adjacent runs. Bytes are those that a node reads; the roof is what plain loads from memory reach. Before any timing each side's
result is held against its own weights in float64: the errors in the table are what `int8` activations cost.

    python benchmarks/kernels.py [--shapes 11008x4096,1536x576] [--rows 1,128] [--threads 1,2] [--cold-mib N] [--json]

On a busy machine --cpu-time counts the calling thread's own time (one thread only): time lost to others does not count then, what
they take of caches and memory does.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"  # the roof is measured by one numpy.dot a thread

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from records import add_json_option, largest_cache_mib, print_rows
from settling import settle

from edgecomp import native
from edgecomp.formats import lut
from edgecomp.ops import NO_EPILOGUE
from edgecomp.tensor import Factor

LEAST_COLD_MIB = 160
MANY_ROWS = 16  # from here on one read of the weights serves so much work that few nodes will do, and float32 is compared too
PEER_BITS = (2, 4, 8)
LARGEST_ERROR = 0.02  # of the result's norm: what int8 activations cost, and a wrong layout exceeds by far


def cold_mib() -> int:
    """Of weights, and of what the roof reads: so many that no cache holds them."""
    return max(LEAST_COLD_MIB, 5 * (largest_cache_mib() or 0))


@dataclass(frozen=True)
class Row:
    """One comparison; the peer's fields are None where it has no such width, float32's where there are few rows."""

    n: int
    k: int
    rows: int
    bits: int
    block_size: int
    threads: int
    cold_mib: int
    lut_us: float
    peer_us: float | None
    peer_over_lut: float | None
    float32_us: float | None
    lut_bytes: int
    peer_bytes: int | None
    lut_gb_per_s: float
    peer_gb_per_s: float | None
    roof_gb_per_s: float
    lut_over_roof: float
    lut_error: float
    peer_error: float | None


@dataclass(frozen=True)
class Side:
    """A model with `copies` equal nodes that differ in their weights, ready to run."""

    session: onnxruntime.InferenceSession
    x: np.ndarray
    copies: int
    node_bytes: int
    error: float

    def run_us(self, clock: Callable[[], int]) -> float:
        """Microseconds a node, of one run."""
        start = clock()
        self.session.run(["y0"], {"x": self.x})  # one output is fetched, all nodes run
        return (clock() - start) / 1e3 / self.copies


@dataclass(frozen=True)
class Problem:
    """What a side computes, and how."""

    n: int
    k: int
    rows: int
    bits: int
    block_size: int
    threads: int
    cold_mib: int

    def copies(self, node_bytes: int) -> int:
        """As many nodes as exceed the caches, or two where the weights' bytes hardly count."""
        return -(-(self.cold_mib << 20) // node_bytes) if self.rows < MANY_ROWS else 2

    def x(self, rng: np.random.Generator) -> np.ndarray:
        """The activations, float32 [rows, K]."""
        return rng.standard_normal((self.rows, self.k)).astype(np.float32)


def make_session(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], k: int, threads: int) -> onnxruntime.InferenceSession:
    """A session of nodes that all read x [rows, K]."""
    outputs = [helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None) for node in nodes]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", k])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [numpy_helper.from_array(a, name) for name, a in weights.items()])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.edgecomp", 1), helper.make_opsetid("com.microsoft", 1)]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.register_custom_ops_library(native.get_library_path())
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def relative_error(session: onnxruntime.InferenceSession, x: np.ndarray, weights: np.ndarray) -> float:
    """Of the first node's result to x Wᵀ in float64, by norms.

    Raises:
        SystemExit: it is above LARGEST_ERROR.

    """
    (y,) = session.run(["y0"], {"x": x})
    expected = x.astype(np.float64) @ weights.astype(np.float64).T
    error = float(np.linalg.norm(y - expected) / np.linalg.norm(expected))
    if not error < LARGEST_ERROR:
        raise SystemExit(f"a result must be within {LARGEST_ERROR} of float64 before it is timed, got {error}")
    return error


def make_lut(problem: Problem, rng: np.random.Generator) -> Side:
    """LutMatMul nodes with random codes, one codebook and random scales."""
    n, k, bits, block_size = problem.n, problem.k, problem.bits, problem.block_size
    sizes = lut.lut_sizes(n, k, bits, block_size)
    codes = rng.integers(0, 256, (sizes.tiles, sizes.spans, sizes.planes, 16, 4), dtype=np.uint8)
    codes[codes == 128] = 127  # no code of 8 bits; any byte is a code below
    book = lut.identity_codebook() if sizes.planes == 8 else np.linspace(-127, 127, 2**bits).round().astype(np.int8)[None]
    scales = rng.integers(32, 128, (sizes.tiles, sizes.blocks, 16)).astype(np.int8)
    row_scale = rng.uniform(0.5, 1, (sizes.tiles, 16)).astype(np.float32)
    shared = {"codebooks": book, "tile_book": np.zeros(sizes.tiles, np.uint16), "row_scale": row_scale}
    factor = Factor("lut", (n, k), {"bits": bits, "block_size": block_size}, {"codes": codes, "scales": scales, **shared})

    copies = problem.copies(factor.packed_bytes)
    weights: dict[str, np.ndarray] = {"absent_index": np.zeros(0, np.int32), "absent_bias": np.zeros(0, np.float32)}
    nodes = []
    for i in range(copies):
        arrays = {"codes": np.roll(codes, i, axis=0), "scales": np.roll(scales, i, axis=0), **shared}
        weights |= {f"{name}{i}": array for name, array in arrays.items()}
        names = [f"{name}{i}" for name in ("codes", "codebooks", "tile_book", "scales", "row_scale")]
        inputs = ["x", *names, "absent_index", "absent_bias", "absent_bias"]  # bias and addend
        attributes: dict[str, Any] = {"N": n, "K": k, "bits": bits, "block_size": block_size, "compute": "int8", **NO_EPILOGUE}
        nodes.append(helper.make_node("LutMatMul", inputs, [f"y{i}"], domain="ai.edgecomp", **attributes))
    x = problem.x(rng)
    session = make_session(nodes, weights, k, problem.threads)
    return Side(session, x, copies, factor.packed_bytes, relative_error(session, x, lut.unpack(factor)))


def make_peer(problem: Problem, rng: np.random.Generator) -> Side:
    """MatMulNBits nodes at accuracy level 4 with random codes and scales, and the default zero point."""
    n, k, bits, block_size = problem.n, problem.k, problem.bits, problem.block_size
    blocks = k // block_size
    packed = rng.integers(0, 256, (n, blocks, block_size * bits // 8), dtype=np.uint8)
    scales = rng.uniform(0.001, 0.004, (n, blocks)).astype(np.float32)
    node_bytes = packed.nbytes + scales.nbytes
    copies = problem.copies(node_bytes)
    weights: dict[str, np.ndarray] = {}
    nodes = []
    for i in range(copies):
        weights |= {f"b{i}": np.roll(packed, i, axis=0), f"s{i}": np.roll(scales, i, axis=0)}
        attributes: dict[str, Any] = {"N": n, "K": k, "bits": bits, "block_size": block_size, "accuracy_level": 4}
        nodes.append(helper.make_node("MatMulNBits", ["x", f"b{i}", f"s{i}"], [f"y{i}"], domain="com.microsoft", **attributes))
    x = problem.x(rng)
    session = make_session(nodes, weights, k, problem.threads)
    per_byte = 8 // bits
    codes = np.stack([packed >> bits * i & 2**bits - 1 for i in range(per_byte)], axis=-1).reshape(n, blocks, block_size)
    dense = ((codes.astype(np.float32) - 2 ** (bits - 1)) * scales[:, :, None]).reshape(n, k)
    return Side(session, x, copies, node_bytes, relative_error(session, x, dense))


def make_float32(problem: Problem, rng: np.random.Generator) -> Side:
    """MatMul nodes with float32 weights."""
    dense = rng.standard_normal((problem.k, problem.n)).astype(np.float32)
    copies = problem.copies(dense.nbytes)
    weights = {f"w{i}": np.roll(dense, i, axis=1) for i in range(copies)}
    nodes = [helper.make_node("MatMul", ["x", f"w{i}"], [f"y{i}"]) for i in range(copies)]
    x = problem.x(rng)
    session = make_session(nodes, weights, problem.k, problem.threads)
    return Side(session, x, copies, dense.nbytes, relative_error(session, x, dense.T))


def compare(problem: Problem, pairs: int, clock: Callable[[], int]) -> Row:
    """Time all sides in turns."""
    rng = np.random.default_rng(0)
    ours = make_lut(problem, rng)
    peer = make_peer(problem, rng) if problem.bits in PEER_BITS else None
    dense = make_float32(problem, rng) if problem.rows >= MANY_ROWS else None
    sides = [side for side in (ours, peer, dense) if side is not None]
    for side in sides:
        side.run_us(clock)

    def turn(side: Side) -> float:
        settle(problem.threads, lambda: side.run_us(clock))
        return side.run_us(clock)

    times = [[turn(side) for side in sides] for _ in range(pairs)]
    us = dict(zip(map(id, sides), np.array(times).T, strict=True))
    lut_us = float(np.median(us[id(ours)]))
    peer_us = float(np.median(us[id(peer)])) if peer else None
    roof = read_roof(problem.threads, problem.cold_mib << 20, clock)
    return Row(
        **asdict(problem),
        lut_us=lut_us,
        peer_us=peer_us,
        peer_over_lut=float(np.median(us[id(peer)] / us[id(ours)])) if peer else None,
        float32_us=float(np.median(us[id(dense)])) if dense else None,
        lut_bytes=ours.node_bytes,
        peer_bytes=peer.node_bytes if peer else None,
        lut_gb_per_s=ours.node_bytes / lut_us / 1e3,
        peer_gb_per_s=peer.node_bytes / peer_us / 1e3 if peer and peer_us else None,
        roof_gb_per_s=roof,
        lut_over_roof=ours.node_bytes / lut_us / 1e3 / roof,
        lut_error=ours.error,
        peer_error=peer.error if peer else None,
    )


def read_roof(threads: int, cold_bytes: int, clock: Callable[[], int]) -> float:
    """GB/s of numpy.dot over arrays that no cache holds, one a thread: the median of nine."""
    parts = [np.ones(cold_bytes // 4 // threads, np.float32) for _ in range(threads)]
    ns = []
    for _ in range(9):
        workers = [threading.Thread(target=np.dot, args=(part, part)) for part in parts[1:]]
        start = clock()
        for worker in workers:
            worker.start()
        np.dot(parts[0], parts[0])
        for worker in workers:
            worker.join()
        ns.append(clock() - start)
    return float(sum(part.nbytes for part in parts) / np.median(ns))


def main() -> None:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--shapes", default="11008x4096,1536x576", help="NxK, separated by commas")
    parser.add_argument("--bits", default="4,2,3,8", help="separated by commas")
    parser.add_argument("--block-sizes", default="32,128", help="separated by commas; those that do not divide K are left out")
    parser.add_argument("--rows", default="1", help="of x, separated by commas")
    parser.add_argument("--threads", default="1,2", help="separated by commas")
    parser.add_argument("--cold-mib", type=int, default=cold_mib(), help="of weights (default: 5 times the largest cache)")
    parser.add_argument("--cpu-time", action="store_true", help="the calling thread's time, not the clock's; one thread only")
    parser.add_argument("--pairs", type=int, default=21, help="of runs, ours and the peer's")
    add_json_option(parser)
    arguments = parser.parse_args()
    if arguments.cpu_time and arguments.threads != "1":
        parser.error("--cpu-time must go with --threads 1: other threads' time would be missing")
    clock = time.thread_time_ns if arguments.cpu_time else time.perf_counter_ns
    choices = [arguments.rows, arguments.bits, arguments.block_sizes, arguments.threads]
    rows = []
    for shape in arguments.shapes.split(","):
        n, k = map(int, shape.split("x"))
        for m, bits, block_size, threads in itertools.product(*(map(int, choice.split(",")) for choice in choices)):
            if k % block_size != 0:
                continue
            problem = Problem(n, k, m, bits, block_size, threads, arguments.cold_mib)
            print(problem, file=sys.stderr)
            rows.append(compare(problem, pairs=arguments.pairs, clock=clock))
    print_rows("kernels", rows, as_json=arguments.json)


if __name__ == "__main__":
    main()
