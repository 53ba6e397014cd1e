"""Our operators inside ExecuTorch against XNNPACK's fp32, int8 dynamic and 8da4w (torchao): one row of x, cold weights.

    python benchmarks/executorch_layers.py FOLDER     # makes the programs, in minutes
    python benchmarks/executorch_kernels.py FOLDER [--shapes 8192x2048,1536x576] [--sides 'lut 4/32,8da4w g32']

A program holds many layers with weights and inputs of their own. A sample is one run divided by its layers, on caches that were
emptied before: a run reads every weight once, from memory. Inputs and outputs are handed over outside. Runs of all sides take
turns, and a ratio is the median over turns. Before any timing each side is held against its own eager result. `anonymous` is
memory of the process's own that loading took, a layer: XNNPACK repacks its weights, ours are mapped.

Not called executorch.py, which Python would import in place of the package.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
import time
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
from executorch.runtime import Runtime
from executorch_sides import SHAPES, SIDES, add_selection, selected, weight_bytes
from records import add_json_option, print_rows

import edgecomp

REFERENCE = "8da4w"  # the peer of the same width; the ratio is over its faster group size
LARGEST_ERROR = 1e-5  # of a side's result to its own eager result, by norms: one activation rounded otherwise makes 1e-3
_EVICTING = np.zeros(128 << 20, np.uint8)  # four times the largest cache of the machines at hand


@dataclass(frozen=True)
class Row:
    """One side at one shape; `over_8da4w` is the median ratio to the faster of the 8da4w sides."""

    n: int
    k: int
    side: str
    threads: int
    layers: int
    us: float
    over_8da4w: float | None
    weight_bytes: int
    file_bytes: int
    anonymous_bytes: int
    error: float


class Program:
    """A loaded program of one side, held against eager; bytes are a layer's."""

    def __init__(self, side: str, path: Path) -> None:
        with np.load(path.with_suffix(".npz")) as arrays:
            self._inputs = [torch.from_numpy(x) for x in arrays["inputs"]]
            expected = torch.from_numpy(arrays["expected"])
        self.side, self.layers = side, len(self._inputs)
        self.file_bytes = path.stat().st_size // self.layers
        ctypes.CDLL(None).malloc_trim(0)  # or a program would take what an earlier one has left
        before = _anonymous_bytes()
        loaded = Runtime.get().load_program(path).load_method("forward")
        assert loaded is not None
        # Below the public class, which can only hand over inputs, run and copy outputs in one.
        self._method = loaded._method
        outputs = torch.stack(self._method(self._inputs)[: len(expected)])
        self.anonymous_bytes = max(0, _anonymous_bytes() - before) // self.layers
        self.error = float((outputs - expected).norm() / expected.norm())
        if not self.error < LARGEST_ERROR:
            raise SystemExit(f"{path} must be within {LARGEST_ERROR} of eager before it is timed, got {self.error}")

    def run_us(self) -> float:
        """Microseconds a layer, of one run on cold caches."""
        self._method.set_inputs(self._inputs)  # anew: the program may use their memory for its own
        _EVICTING.max()
        start = time.perf_counter_ns()
        self._method.execute()
        return (time.perf_counter_ns() - start) / 1e3 / self.layers


def _anonymous_bytes() -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def compare(n: int, k: int, programs: list[Program], threads: int, turns: int) -> list[Row]:
    """Time all sides at one shape, in turns."""
    for program in programs:
        program.run_us()
    samples = np.array([[program.run_us() for program in programs] for _ in range(turns)])
    medians = np.median(samples, axis=0)
    peers = [i for i, program in enumerate(programs) if program.side.startswith(REFERENCE)]
    best = min(peers, key=lambda i: medians[i]) if peers else None
    ratios = None if best is None else np.median(samples / samples[:, best : best + 1], axis=0)
    return [
        Row(
            n=n,
            k=k,
            side=program.side,
            threads=threads,
            layers=program.layers,
            us=float(medians[i]),
            over_8da4w=None if ratios is None else float(ratios[i]),
            weight_bytes=weight_bytes(program.side, n, k),
            file_bytes=program.file_bytes,
            anonymous_bytes=program.anonymous_bytes,
            error=program.error,
        )
        for i, program in enumerate(programs)
    ]


def main() -> None:
    """Compare what the arguments ask for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add_selection(parser, SHAPES, SIDES)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=31, help="samples of each side (default: %(default)s)")
    add_json_option(parser)
    arguments = parser.parse_args()
    torch.ops.load_library(edgecomp.get_library_path("executorch"))
    _unsafe_reset_threadpool(arguments.threads)
    rows: list[Row] = []
    for (n, k), choices in groupby(selected(arguments), key=lambda choice: choice[:2]):
        print(f"{n}x{k}", file=sys.stderr, flush=True)
        programs = [Program(side, path) for _, _, side, path in choices]
        rows += compare(n, k, programs, arguments.threads, arguments.turns)
    print_rows("executorch_kernels", rows, as_json=arguments.json)


if __name__ == "__main__":
    main()
