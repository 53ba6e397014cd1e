"""Our operators inside ExecuTorch against XNNPACK's fp32, int8 dynamic and 8da4w (torchao): one row of x, weights beyond any cache.

    python benchmarks/executorch_kernels.py [--shapes 8192x2048,1536x576] [--sides 'lut 4/32,8da4w g32'] [--threads 1] [--json]

A program holds as many layers with weights and inputs of their own as it takes to exceed the cache several times (at most 200); a
sample is one run divided by its layers, so the cost of calling the program from Python is shared by all. Runs of all sides take
turns, and a ratio is the median over turns. Before any timing each side is held against its own eager result. `anonymous` is memory
of the process's own that loading took, a layer: XNNPACK repacks its weights, ours are mapped. Needs torchao, which comes with
executorch.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, dataclass

import numpy as np
import torch
from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
from executorch_layers import Side, group_size, make_side
from provenance import commit, machine, print_json

import edgecomp

SIDES = "lut 4/32,lut 4/128,lut 2/32,8da4w g32,8da4w g128,int8 dynamic,fp32"
REFERENCE = "8da4w"  # the peer of the same width; the ratio is over its faster group size
SHAPES = "8192x2048,2048x8192,1536x576,576x1536,49152x576"  # SmolLM2-135M's from the third on


@dataclass(frozen=True)
class Row:
    """One side at one shape; `over_8da4w` is the median ratio to the faster of the 8da4w sides."""

    n: int
    k: int
    side: str
    threads: int
    copies: int
    us: float
    over_8da4w: float | None
    weight_bytes: int
    file_bytes: int
    anonymous_bytes: int
    error: float


def compare(n: int, k: int, names: list[str], threads: int, turns: int) -> list[Row]:
    """Time all sides at one shape, in turns."""
    rng = np.random.default_rng(0)
    sides: list[Side] = []
    for name in names:
        if k % group_size(name) == 0:
            print(f"{n}x{k} {name}", file=sys.stderr)
            sides.append(make_side(name, n, k, rng))
    for side in sides:
        side.run_us()
    samples = np.array([[side.run_us() for side in sides] for _ in range(turns)])
    medians = np.median(samples, axis=0)
    peers = [i for i, side in enumerate(sides) if side.name.startswith(REFERENCE)]
    best = min(peers, key=lambda i: medians[i]) if peers else None
    ratios = None if best is None else np.median(samples / samples[:, best : best + 1], axis=0)
    return [
        Row(
            n=n,
            k=k,
            side=side.name,
            threads=threads,
            copies=side.copies,
            us=float(medians[i]),
            over_8da4w=None if ratios is None else float(ratios[i]),
            weight_bytes=side.weight_bytes,
            file_bytes=side.file_bytes,
            anonymous_bytes=side.anonymous_bytes,
            error=side.error,
        )
        for i, side in enumerate(sides)
    ]


def markdown(rows: list[Row]) -> str:
    """The rows as a table."""
    lines = [
        "| N x K | side | threads | layers | µs | time / 8da4w | file bytes | anonymous bytes | error |",
        "| --- | --- |" + " ---: |" * 7,
    ]
    for r in rows:
        ratio = "-" if r.over_8da4w is None else f"{r.over_8da4w:.2f}"
        numbers = [
            str(r.threads),
            str(r.copies),
            f"{r.us:.1f}",
            ratio,
            f"{r.file_bytes:,}",
            f"{r.anonymous_bytes:,}",
            f"{r.error:.1e}",
        ]
        lines.append("| " + " | ".join([f"{r.n} x {r.k}", r.side, *numbers]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Compare what the arguments ask for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--shapes", default=SHAPES, help="NxK, separated by commas (default: %(default)s)")
    parser.add_argument("--sides", default=SIDES, help="separated by commas (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=31, help="samples of each side (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object in place of a table")
    arguments = parser.parse_args()
    torch.ops.load_library(edgecomp.get_library_path("executorch"))
    _unsafe_reset_threadpool(arguments.threads)
    rows: list[Row] = []
    for shape in arguments.shapes.split(","):
        n, k = map(int, shape.split("x"))
        rows += compare(n, k, arguments.sides.split(","), arguments.threads, arguments.turns)
    if arguments.json:
        print_json("executorch_kernels", [asdict(row) for row in rows])
    else:
        print(", ".join(f"{key}: {value}" for key, value in machine().items()) + f", commit: {commit()}\n")
        print(markdown(rows))


if __name__ == "__main__":
    main()
