"""Operators on no rows, no indices and empty images: small models of each, and a check of what they give on a runtime.

Run as a script, with a folder that `save_models` filled, it is the subprocess of the tests: a runtime that divides by zero ends its
process, and EDGECOMP_FORCE_ISA is read once a process.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgecomp.exported.session import OnnxModel
from edgecomp.tensor import COMPUTE_MODES, ConvParams

WIDTH, ROWS = 70, 40
CONVOLUTIONS = {
    "pointwise": (20, ConvParams(8, (1, 1))),
    "strided": (24, ConvParams(8, (3, 3), (2, 2), (1, 1, 1, 1))),
    "lopsided": (16, ConvParams(8, (3, 2), (1, 2), (2, 0, 1, 3), (2, 1))),
    "grouped": (16, ConvParams(8, (3, 3), (1, 1), (1, 1, 1, 1), groups=4)),
    "depthwise": (8, ConvParams(8, (3, 3), (2, 2), (1, 1, 1, 1), groups=8)),
}
NARROW = ("grouped", "depthwise")  # have the format lut_narrow as well
IMAGES = ((0, 9, 8), (2, 0, 8), (2, 9, 0), (1, 0, 0), (0, 0, 0))  # batch, height, width


@dataclass(frozen=True)
class Case:
    """Empty inputs of one operator, and the shape that the output must have."""

    shapes: tuple[tuple[int, ...], ...]
    dtype: str
    output_shape: Callable[[tuple[int, ...]], tuple[int, ...]]

    def check(self, run: Callable[[np.ndarray], np.ndarray], what: object) -> int:
        """Run every shape. Outputs hold nothing, or where only padding is left to see the bias, the same in all pixels."""
        for shape in self.shapes:
            y = run(np.zeros(shape, self.dtype))
            assert y.shape == self.output_shape(shape) and y.dtype == np.float32, (what, shape, y.shape, self.output_shape(shape))
            assert (y == y[:1, :, :1, :1] if y.size else np.ones(0, bool)).all(), (what, shape)
        return len(self.shapes)


def _image_shape(outputs: int, conv: ConvParams) -> Callable[[tuple[int, ...]], tuple[int, ...]]:
    def shape_of(x: tuple[int, ...]) -> tuple[int, ...]:
        top, left, bottom, right = conv.padding
        rooms = [x[2] + top + bottom, x[3] + left + right]
        lengths = [
            max(0, (room - dilation * (kernel - 1) - 1) // stride + 1)
            for room, kernel, stride, dilation in zip(rooms, conv.kernel_size, conv.stride, conv.dilation, strict=True)
        ]
        return (x[0], outputs, *lengths)

    return shape_of


CASES: Mapping[str, Case] = {
    "matmul": Case(((0, WIDTH), (0, 3, WIDTH), (2, 0, WIDTH)), "float32", lambda x: (*x[:-1], ROWS)),
    "gather": Case(((0,), (0, 3), (2, 0)), "int64", lambda x: (*x, WIDTH)),
} | {
    name: Case(tuple((b, conv.in_channels, h, w) for b, h, w in IMAGES), "float32", _image_shape(outputs, conv))
    for name, (outputs, conv) in CONVOLUTIONS.items()
}


def save_models(folder: Path) -> None:
    """Export a model of every case: with and without bias and permutation, in both compute modes; inputs of any rank."""
    from lut_cases import narrow_factor
    from packed_models import chain_model, conv, conv_factor, features, gather, linear, plan, random_factor

    from edgecomp.exporters import export
    from edgecomp.tensor import TensorSpec

    for compute in COMPUTE_MODES:
        permuted = compute == "int8"
        factor = random_factor(ROWS, WIDTH, bits=3, permuted=permuted)
        specs = {2: features(WIDTH, "batch"), 3: features(WIDTH, "batch", "sequence")}
        for rank, spec in specs.items():
            model = chain_model({"fc": plan([linear()], bias=permuted)}, {"w": factor}, spec, compute)
            export(model, "onnx", folder / f"matmul-{compute}-{rank}.onnx")
        for rank, dims in ((1, ("rows",)), (2, ("batch", "sequence"))):
            model = chain_model({"table": plan([gather()])}, {"w": factor}, TensorSpec("ids", "int64", dims), compute)
            export(model, "onnx", folder / f"gather-{compute}-{rank}.onnx")
        for name, (outputs, params) in CONVOLUTIONS.items():
            image = TensorSpec("x", "float32", ("batch", params.in_channels, "height", "width"))
            kernel = conv_factor(outputs, params, bits=3, permuted=permuted)
            model = chain_model({"conv": plan([conv(params)], bias=permuted)}, {"w": kernel}, image, compute)
            export(model, "onnx", folder / f"{name}-{compute}-4.onnx")
            if name in NARROW:
                model = chain_model({"conv": plan([conv(params)], bias=permuted)}, {"w": narrow_factor(outputs, params)}, image)
                export(model, "onnx", folder / f"{name}-narrow_{compute}-4.onnx")


def check_models(folder: Path, library: str) -> int:
    """Run the models on ONNX Runtime; returns the number of checks."""
    checks = 0
    for path in sorted(folder.glob("*.onnx")):
        name, _, rank = path.stem.split("-")
        artifact = OnnxModel(path, library)
        case = CASES[name]
        of_rank = Case(tuple(shape for shape in case.shapes if len(shape) == int(rank)), case.dtype, case.output_shape)
        checks += of_rank.check(lambda x, a=artifact: a.run({a.inputs[0].name: x})[a.output_names[0]], path.stem)
    return checks


if __name__ == "__main__":
    print(check_models(Path(sys.argv[1]), sys.argv[2]))  # noqa: T201
