"""How fast matrices are fitted and packed, and with which error, beside llama.cpp's quantisers.

    pip install llama-cpp-python    # for the llama.cpp rows: compiled on this machine, for its processor
    python benchmarks/fitting.py [--shapes 4096x4096,1536x576] [--bits 4,3,2] [--fits none,activations,hessian,llama.cpp-q4_k]
        [--threads 2] [--device cpu] [--seconds 2] [--json]

A row is one way to fit matrices of one shape: `none`, `activations` and `hessian` are `lut-kmeans`' weightings (`edgecomp.passes.
lut_fit.fit_lut`, blocks of 32, default refits), from a float32 matrix to the packed factor; `llama.cpp-q4_k` and `llama.cpp-iq4_nl`
are `ggml_quantize_chunk` with importances, on rows cut among as many threads (4.5 bits a weight; Q4_K: where 256 divides K).
Weights are of Student's t-distribution with 5 degrees of freedom, as trained ones have tails; inputs are correlated, and a few
columns are loud. Times are the median of as many runs as fit into --seconds, at least one, by the clock and of all processors
together (for a machine that others use too). Errors are relative: sqrt(sum of squared differences / sum of squared weights), plain
and weighted as the fit is, llama.cpp's as `activations`. A shape may name its own fits and bits: `1024x11008:hessian:4`.

peak_mb is how much memory a fit takes above its inputs, the packed factor included: a run warms up, freed memory is handed back to
the system, and the peak of resident memory is taken from there on. What is mapped from files does not change in between, so that
the growth is of anonymous memory. On a GPU it is the peak of allocations.

`isa` is the instruction set that ran; EDGECOMP_FORCE_ISA=avx2 chooses another than the best that the processor has. llama.cpp's is
what it was built for.

The modules are read from the installed package, or from this checkout where it is not installed; the library then comes from
--library. That, and PyTorch and numpy, is all that it needs.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib
import importlib.util
import os
import platform
import resource
import statistics
import sys
import time
import types
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from records import add_json_option, print_rows
from torch import Tensor

CHECKOUT = Path(__file__).resolve().parent.parent
LLAMA_TYPES = {"llama.cpp-q4_k": (12, 256, 144), "llama.cpp-iq4_nl": (20, 32, 18)}  # ggml's number, weights and bytes of a block
BLOCK_SIZE = 32
REFITS = 8


@dataclass(frozen=True)
class Row:
    """One measurement."""

    fit: str
    bits: float
    shape: str
    weights: int
    threads: int
    device: str
    isa: str
    mweights_per_s: float
    mweights_per_cpu_s: float
    relative_error: float
    weighted_error: float
    peak_mb: float


@dataclass(frozen=True)
class Problem:
    """A matrix and the Hessian of its inputs."""

    matrix: Tensor
    hessian: Tensor


def load_package(library: Path | None) -> Any:
    """`edgecomp.fitting.lut_fit` and `edgecomp.fitting.native_fit`, without what other passes need."""
    folder = CHECKOUT / "edgecomp"
    if library is None:
        spec = importlib.util.find_spec("edgecomp")
        if spec is None or spec.origin is None:
            sys.exit("edgecomp must be installed, or --library name its fitting library")
        folder = Path(spec.origin).parent
    for name, path in (("edgecomp", folder), ("edgecomp.passes", folder / "passes")):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [str(path)]
    native_fit = importlib.import_module("edgecomp.fitting.native_fit")
    if library is not None:
        native_fit._LIBRARY = library.resolve()
    return importlib.import_module("edgecomp.fitting.lut_fit"), native_fit


def make_problem(n: int, k: int, device: str) -> Problem:
    """Weights with tails; inputs that are correlated, with a few loud columns."""
    rng = np.random.default_rng(n + k)
    matrix = (0.02 * rng.standard_t(5, (n, k))).astype(np.float32)
    generator = torch.Generator().manual_seed(k)
    rank = max(1, k // 4)
    mixing = torch.randn(rank, k, generator=generator)
    hessian = mixing.T @ mixing / rank + 0.2 * torch.eye(k)
    loudness = torch.exp(torch.randn(k, generator=generator))
    return Problem(torch.from_numpy(matrix).to(device), (hessian * loudness[:, None] * loudness).to(device))


@dataclass(frozen=True)
class Timing:
    """Median seconds of a run, by the clock and of all processors; its result; the growth of memory's peak in the first, in MB."""

    seconds: float
    cpu_seconds: float
    result: Any
    peak_mb: float


def timed(run: Callable[[], Any], seconds: float, device: str) -> Timing:
    """Run once to warm up, then at least once, and for as long as it says."""
    cuda = device != "cpu"
    run()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
        before = float(torch.cuda.memory_allocated())
    else:
        hand_back_and_forget_peak()
        before = peak_bytes()
    times: list[float] = []
    cpu_times: list[float] = []
    peak = 0.0
    while not times or sum(times) < seconds:
        start, cpu_start = time.perf_counter(), time.process_time()
        result = run()
        if cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
        cpu_times.append(time.process_time() - cpu_start)
        if len(times) == 1:
            peak = (float(torch.cuda.max_memory_allocated()) if cuda else peak_bytes()) - before
    return Timing(statistics.median(times), statistics.median(cpu_times), result, peak / 1e6)


def hand_back_and_forget_peak() -> None:
    """Gives freed memory back to the system and lets the peak of resident memory begin anew (Linux)."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (AttributeError, OSError) as error:
        print(f"peak_mb is not told: {error}", file=sys.stderr)


def peak_bytes() -> float:
    """The process's peak of resident memory."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1]) * 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024


def measure_lut(lut_fit: Any, isa: str, fit: str, problem: Problem, bits: int, threads: int, device: str, seconds: float) -> Row:
    """Time `fit_lut`."""
    importance = {"none": None, "activations": problem.hessian.diagonal(), "hessian": problem.hessian}[fit]

    def run() -> Any:
        return lut_fit.fit_lut(problem.matrix, importance, bits=bits, block_size=BLOCK_SIZE, refits=REFITS)

    timing = timed(run, seconds, device)
    arrays, errors = timing.result.factor.arrays, (timing.result.relative_error, timing.result.weighted_error)
    return make_row(fit, isa, 8 * sum(array.nbytes for array in arrays.values()), problem, threads, device, timing, errors)


def make_row(
    fit: str, isa: str, packed_bits: int, problem: Problem, threads: int, device: str, timing: Timing, errors: tuple[float, float]
) -> Row:
    """The row of a timing."""
    n, k = problem.matrix.shape
    speeds = (n * k / seconds / 1e6 for seconds in (timing.seconds, timing.cpu_seconds))
    name = torch.cuda.get_device_name() if device != "cpu" else "cpu"
    return Row(fit, round(packed_bits / (n * k), 3), f"{n}x{k}", n * k, threads, name, isa, *speeds, *errors, timing.peak_mb)


def measure_llama(fit: str, problem: Problem, threads: int, seconds: float) -> Row | None:
    """Time `ggml_quantize_chunk` on rows cut among threads; None where the type does not take the width."""
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        sys.exit("the llama.cpp rows need it: pip install llama-cpp-python, or leave them out of --fits")
    ggml = ctypes.CDLL(str(Path(spec.origin).parent / "lib" / "libggml-base.so"))
    kind, block, block_bytes = LLAMA_TYPES[fit]
    matrix = problem.matrix.numpy()
    n, k = matrix.shape
    if k % block:
        return None
    ggml.ggml_quantize_init(kind)
    ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    row_bytes = k // block * block_bytes
    packed = np.empty((n, row_bytes), np.uint8)
    importance = np.ascontiguousarray(problem.hessian.diagonal().numpy())
    bounds = [n * i // threads for i in range(threads + 1)]

    def quantize(part: int) -> None:
        first, rows = bounds[part], bounds[part + 1] - bounds[part]
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in (matrix, packed)]
        sizes = (ctypes.c_int64(first * k), ctypes.c_int64(rows), ctypes.c_int64(k))
        ggml.ggml_quantize_chunk(kind, *pointers, *sizes, ctypes.c_void_p(importance.ctypes.data))

    with ThreadPoolExecutor(threads) as pool:
        timing = timed(lambda: list(pool.map(quantize, range(threads))), seconds, "cpu")
    timing = replace(timing, peak_mb=timing.peak_mb + packed.nbytes / 1e6)  # made before
    weights = np.empty_like(matrix)
    name = {"llama.cpp-q4_k": "dequantize_row_q4_K", "llama.cpp-iq4_nl": "dequantize_row_iq4_nl"}[fit]
    getattr(ggml, name)(ctypes.c_void_p(packed.ctypes.data), ctypes.c_void_p(weights.ctypes.data), ctypes.c_int64(n * k))
    squares = [np.square(difference, dtype=np.float64) for difference in (weights - matrix, matrix)]
    plain, weighted = ([float((s * h).sum()) for s in squares] for h in (1.0, importance / importance.mean() + 0.01))
    errors = (float(np.sqrt(plain[0] / plain[1])), float(np.sqrt(weighted[0] / weighted[1])))
    return make_row(fit, "as built", 8 * packed.nbytes, problem, threads, "cpu", timing, errors)


def machine(device: str) -> dict[str, Any]:
    """What ran it; without the package, which is not needed here."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "device": torch.cuda.get_device_name() if device != "cpu" else names[0] if names else platform.processor(),
        "torch": torch.__version__,
        "system": platform.platform(),
        "load_average": os.getloadavg()[0],
    }


def main() -> None:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--shapes",
        default="4096x4096,49152x576,1536x576,576x1536,576x576,192x576,1024x11008:hessian:4",
        help="NxK, NxK:FIT+FIT or NxK:FIT:BITS, separated by commas",
    )
    parser.add_argument("--bits", default="4,3,2", help="of our codes, separated by commas")
    parser.add_argument("--fits", default="none,activations,hessian,llama.cpp-q4_k,llama.cpp-iq4_nl", help="separated by commas")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--seconds", type=float, default=2, help="of runs a row")
    parser.add_argument("--library", type=Path, help="the fitting library, where edgecomp is not installed")
    add_json_option(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    lut_fit, native_fit = load_package(arguments.library)
    isa = native_fit.variant() if arguments.device == "cpu" else "-"
    rows = []
    for shape in arguments.shapes.split(","):
        size, fits, bits_of_shape, *_ = [*shape.split(":"), "", ""]
        n, k = map(int, size.split("x"))
        problem = make_problem(n, k, arguments.device)
        for fit in (fits or arguments.fits).split("+" if fits else ","):
            print(size, isa, fit, file=sys.stderr)
            if fit in LLAMA_TYPES:
                row = measure_llama(fit, problem, arguments.threads, arguments.seconds)
                rows += [row] if row is not None else []
                continue
            for bits in map(int, (bits_of_shape or arguments.bits).split("+" if bits_of_shape else ",")):
                rows.append(measure_lut(lut_fit, isa, fit, problem, bits, arguments.threads, arguments.device, arguments.seconds))
    print_rows("fitting", rows, as_json=arguments.json, on=machine(arguments.device))


if __name__ == "__main__":
    main()
