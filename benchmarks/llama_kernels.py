"""LutMatMul inside onnxruntime against llama.cpp's matrix product: one row of x, one thread, weights that no cache holds.

    pip install llama-cpp-python    # compiled on this machine, for its processor
    python benchmarks/llama_kernels.py [--shapes 8192x2048,1536x576] [--types Q4_0,IQ4_NL] [--json]

Both run in turns, as in kernels.py, whose side of ours this is: 4 bits in blocks of 32, `int8` compute. llama.cpp's side is one
ggml graph of as many `MUL_MAT` nodes as exceed the caches, with weights of their own, on its CPU backend; weights lie in the
interleaved layout of its "repack" buffers where it has one for the type, which is what llama.cpp uses itself. Q4_0 and IQ4_NL have
a float16 scale for each 32 weights: 4.5 bits a weight, as ours with its int8 scales has 4.25 and a float32 a row.
Each side's result is first held against its own weights in float64. One thread only: onnxruntime's other threads spin after a run
and would take llama.cpp's time.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import dequantize
from kernels import LARGEST_ERROR, Problem, cold_mib, make_lut, read_roof
from records import add_json_option, print_rows

Pointer = ctypes.c_void_p
F32 = int(GGMLQuantizationType.F32)


class _InitParams(ctypes.Structure):
    """`ggml_init_params`."""

    _fields_ = (("mem_size", ctypes.c_size_t), ("mem_buffer", Pointer), ("no_alloc", ctypes.c_bool))


@dataclass(frozen=True)
class Row:
    """One comparison."""

    type: str
    n: int
    k: int
    cold_mib: int
    lut_us: float
    llama_us: float
    llama_over_lut: float
    lut_bytes: int
    llama_bytes: int
    roof_gb_per_s: float
    lut_error: float
    llama_error: float


class Ggml:
    """The few functions of ggml's C interface that a graph of products takes."""

    def __init__(self) -> None:
        spec = importlib.util.find_spec("llama_cpp")
        if spec is None or spec.origin is None:
            sys.exit("llama_kernels.py needs llama.cpp: pip install llama-cpp-python")
        folder = Path(spec.origin).parent / "lib"
        self._base = ctypes.CDLL(str(folder / "libggml-base.so"), mode=ctypes.RTLD_GLOBAL)
        self._cpu = ctypes.CDLL(str(folder / "libggml-cpu.so"), mode=ctypes.RTLD_GLOBAL)
        self._silent = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, Pointer)(lambda *_: None)  # ggml keeps the pointer
        self.call("ggml_log_set", self._silent, None, returns=None)

    def call(self, name: str, *arguments: Any, returns: Any = Pointer) -> Any:
        """Call a function; Python's integers are passed as int64, pointers as they are."""
        function = getattr(self._cpu if name.startswith("ggml_backend_cpu") else self._base, name)
        function.restype = returns
        return function(*(ctypes.c_int64(a) if isinstance(a, int) else a for a in arguments))

    def context(self, tensors: int, graph_nodes: int = 0) -> Pointer:
        """For tensors whose data lie in a buffer."""
        overhead = self.call("ggml_tensor_overhead", returns=ctypes.c_size_t) * (tensors + 8)
        graph = self.call("ggml_graph_overhead_custom", graph_nodes, ctypes.c_bool(False), returns=ctypes.c_size_t)
        return Pointer(self.call("ggml_init", _InitParams(overhead + graph, None, True)))

    def repack_buffers(self) -> Pointer | None:
        """The type of buffer in which weights are laid out anew for the processor."""
        registry = Pointer(self.call("ggml_backend_cpu_reg"))
        device = Pointer(self.call("ggml_backend_reg_dev_get", registry, 0))
        address = self.call("ggml_backend_reg_get_proc_address", registry, b"ggml_backend_dev_get_extra_bufts")
        if address is None:
            return None
        types = ctypes.CFUNCTYPE(ctypes.POINTER(Pointer), Pointer)(address)(device)
        names = {self.call("ggml_backend_buft_name", Pointer(t), returns=ctypes.c_char_p): Pointer(t) for t in _until_null(types)}
        return names.get(b"CPU_REPACK")


def _until_null(types: Any) -> list[int]:
    found: list[int] = []
    while types and types[len(found)]:
        found.append(types[len(found)])
    return found


class LlamaSide:
    """A graph of products with equal shapes, ready to run."""

    def __init__(self, ggml: Ggml, kind: GGMLQuantizationType, problem: Problem, x: np.ndarray, rng: np.random.Generator) -> None:
        self._ggml = ggml
        n, k = problem.n, problem.k
        dense = rng.standard_normal((n, k)).astype(np.float32)
        row_bytes = ggml.call("ggml_row_size", int(kind), k, returns=ctypes.c_size_t)
        packed = np.empty((n, row_bytes), np.uint8)
        arrays = Pointer(dense.ctypes.data), Pointer(packed.ctypes.data)
        ggml.call("ggml_quantize_chunk", int(kind), *arrays, 0, n, k, None, returns=ctypes.c_size_t)
        self.node_bytes = packed.nbytes
        self.copies = problem.copies(packed.nbytes)
        self._backend = Pointer(ggml.call("ggml_backend_cpu_init"))
        ggml.call("ggml_backend_cpu_set_n_threads", self._backend, 1, returns=None)
        plain = Pointer(ggml.call("ggml_backend_get_default_buffer_type", self._backend))
        buffers = ggml.repack_buffers()
        weights = ggml.context(self.copies)
        matrices = [Pointer(ggml.call("ggml_new_tensor_2d", weights, int(kind), k, n)) for _ in range(self.copies)]
        if buffers is None or not self._allocate(weights, buffers):
            sys.exit("this build of llama.cpp has no repack buffers for the processor: compile llama-cpp-python here")
        for i, matrix in enumerate(matrices):
            rolled = np.ascontiguousarray(np.roll(packed, i, axis=0))
            ggml.call("ggml_backend_tensor_set", matrix, Pointer(rolled.ctypes.data), 0, rolled.nbytes, returns=None)
        rest = ggml.context(self.copies + 1, graph_nodes=2 * self.copies)
        activations = Pointer(ggml.call("ggml_new_tensor_2d", rest, F32, k, 1))
        self._outputs = [Pointer(ggml.call("ggml_mul_mat", rest, matrix, activations)) for matrix in matrices]
        self._graph = Pointer(ggml.call("ggml_new_graph_custom", rest, 2 * self.copies, ctypes.c_bool(False)))
        for output in self._outputs:
            ggml.call("ggml_build_forward_expand", self._graph, output, returns=None)
        if not self._allocate(rest, plain):
            sys.exit("llama.cpp has no memory for the results")
        ggml.call("ggml_backend_tensor_set", activations, Pointer(x.ctypes.data), 0, x.nbytes, returns=None)
        self.error = self._relative_error(x, dequantize(packed, kind))

    def _allocate(self, context: Pointer, buffers: Pointer) -> bool:
        return self._ggml.call("ggml_backend_alloc_ctx_tensors_from_buft", context, buffers) is not None

    def run_us(self, clock: Callable[[], int]) -> float:
        """Microseconds a node, of one run."""
        start = clock()
        status = self._ggml.call("ggml_backend_graph_compute", self._backend, self._graph, returns=ctypes.c_int)
        elapsed = (clock() - start) / 1e3 / self.copies
        if status != 0:
            sys.exit(f"ggml_backend_graph_compute gave {status}")
        return elapsed

    def _relative_error(self, x: np.ndarray, weights: np.ndarray) -> float:
        self.run_us(time.perf_counter_ns)
        y = np.empty(len(weights), np.float32)
        self._ggml.call("ggml_backend_tensor_get", self._outputs[0], Pointer(y.ctypes.data), 0, y.nbytes, returns=None)
        expected = weights.astype(np.float64) @ x[0].astype(np.float64)
        error = float(np.linalg.norm(y - expected) / np.linalg.norm(expected))
        if not error < LARGEST_ERROR:
            sys.exit(f"llama.cpp's result must be within {LARGEST_ERROR} of float64 before it is timed, got {error}")
        return error


def compare(ggml: Ggml, kind: GGMLQuantizationType, problem: Problem, pairs: int, clock: Callable[[], int]) -> Row:
    """Time both sides in turns."""
    rng = np.random.default_rng(0)
    ours = make_lut(problem, rng)
    llama = LlamaSide(ggml, kind, problem, ours.x, rng)
    for side in (ours, llama):
        side.run_us(clock)
    times = np.array([[ours.run_us(clock), llama.run_us(clock)] for _ in range(pairs)]).T
    return Row(
        type=kind.name,
        n=problem.n,
        k=problem.k,
        cold_mib=problem.cold_mib,
        lut_us=float(np.median(times[0])),
        llama_us=float(np.median(times[1])),
        llama_over_lut=float(np.median(times[1] / times[0])),
        lut_bytes=ours.node_bytes,
        llama_bytes=llama.node_bytes,
        roof_gb_per_s=read_roof(1, problem.cold_mib << 20, clock),
        lut_error=ours.error,
        llama_error=llama.error,
    )


def main() -> None:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--shapes", default="8192x2048,1536x576", help="NxK, separated by commas")
    parser.add_argument("--types", default="Q4_0,IQ4_NL", help="llama.cpp's, separated by commas")
    parser.add_argument("--cold-mib", type=int, default=cold_mib(), help="of weights (default: 5 times the largest cache)")
    parser.add_argument("--pairs", type=int, default=21, help="of runs")
    add_json_option(parser)
    arguments = parser.parse_args()
    ggml = Ggml()
    rows = []
    for shape in arguments.shapes.split(","):
        n, k = map(int, shape.split("x"))
        for name in arguments.types.split(","):
            problem = Problem(n, k, rows=1, bits=4, block_size=32, threads=1, cold_mib=arguments.cold_mib)
            print(name, problem, file=sys.stderr)
            rows.append(compare(ggml, GGMLQuantizationType[name], problem, arguments.pairs, time.perf_counter_ns))
    print_rows("llama_kernels", rows, as_json=arguments.json)


if __name__ == "__main__":
    main()
