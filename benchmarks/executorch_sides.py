"""What executorch_layers.py makes and executorch_kernels.py times: sides by name, shapes, and the files of their programs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

SIDES = "lut 4/32,lut 4/128,lut 2/32,8da4w g32,8da4w g128,int8 dynamic,fp32"
SHAPES = "8192x2048,2048x8192,1536x576,576x1536,576x576,192x576,49152x576"  # SmolLM2-135M's from the third on


def add_selection(parser: argparse.ArgumentParser, shapes: str, sides: str) -> None:
    """The arguments that name programs."""
    parser.add_argument("folder", type=Path, help="of the programs")
    parser.add_argument("--shapes", default=shapes, help="NxK, separated by commas (default: %(default)s)")
    parser.add_argument("--sides", default=sides, help="separated by commas (default: %(default)s)")


def selected(arguments: argparse.Namespace) -> Iterator[tuple[int, int, str, Path]]:
    """N, K, side and program of each choice whose groups of columns divide K."""
    for shape in arguments.shapes.split(","):
        n, k = map(int, shape.split("x"))
        for side in arguments.sides.split(","):
            if k % group_size(side) == 0:
                yield n, k, side, arguments.folder / f"{shape}-{side.replace(' ', '-').replace('/', '-')}.pte"


def group_size(side: str) -> int:
    """Columns that share a scale: of `lut BITS/BLOCK` and `8da4w gGROUP`; 1 where a row has one scale or none."""
    return int(side.replace("/", " g").split(" g")[-1]) if side.startswith(("lut", "8da4w")) else 1


def bits_of(side: str) -> int:
    """Bits of a weight, without scales."""
    if side.startswith("lut"):
        return int(side.removeprefix("lut ").split("/")[0])
    return {"8da4w": 4, "int8": 8}.get(side.split()[0], 32)


def weight_bytes(side: str, n: int, k: int) -> int:
    """Bytes of a layer's weights and scales: of each block int8 and of each row float32 (lut), bfloat16 (8da4w), float32 (int8)."""
    weights, groups = n * k * bits_of(side) // 8, n * k // group_size(side)
    if side.startswith("lut"):
        return weights + groups + 4 * n
    return weights + (2 * groups if side.startswith("8da4w") else 4 * n if side.startswith("int8") else 0)
