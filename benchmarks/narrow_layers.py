"""Depthwise and first convolutions of MobileNetV3-small: bytes in `lut` and `lut_narrow`, errors and times on both runtimes.

    python benchmarks/narrow_layers.py [--bits 4,8] [--rounds N] [--executorch] [--json]

The layers' shapes are those of A. Howard et al., "Searching for MobileNetV3", 2019, arXiv:1905.02244, table 2, for an image of
224 x 224; weights are normal, with channels of different sizes. Times are medians of the calling thread's own time, in rounds in
which both sides take turns on one thread: our operator in ONNX Runtime beside ONNX Runtime's own Conv with the same weights in
float32. Errors are the largest difference to the float64 sum over the reference's weights, as a share of the largest output:
`library` in ONNX Runtime, `stock` by the model's function, and with --executorch an exported program (seconds a layer).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from records import add_json_option, print_rows
from torch import nn

from edgecomp.checkpoint import CompressedModel
from edgecomp.columns import ConvColumns
from edgecomp.exported.executorch_session import ExecutorchModel
from edgecomp.exporters import ExportOptions, export
from edgecomp.fitting.narrow_fit import fit_narrow
from edgecomp.formats import conv_format, lut, lut_narrow, unpack
from edgecomp.modules import PackedFactor, PackedLayer
from edgecomp.native import get_library_path
from edgecomp.tensor import ConvParams, Factor, LayerPlan, Stage, TensorSpec

BLOCK_SIZE = 32


def _depthwise(channels: int, kernel: int, stride: int) -> ConvParams:
    pad = kernel // 2
    return ConvParams(channels, (kernel, kernel), (stride, stride), (pad, pad, pad, pad), groups=channels)


# Output channels, geometry, height and width of the input.
LAYERS = [
    (16, ConvParams(3, (3, 3), (2, 2), (1, 1, 1, 1)), 224),
    *((channels, _depthwise(channels, kernel, stride), size) for channels, kernel, stride, size in (
        *((16, 3, 2, 112), (72, 3, 2, 56), (88, 3, 1, 28), (96, 5, 2, 28), (240, 5, 1, 14), (240, 5, 1, 14)),
        *((120, 5, 1, 14), (144, 5, 1, 14), (288, 5, 2, 14), (576, 5, 1, 7), (576, 5, 1, 7)),
    )),
]  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One layer at one width; errors and times that were not measured are None."""

    layer: str
    bits: int
    weights: int
    float16_bytes: int
    lut_bytes: int
    narrow_bytes: int
    bits_per_weight: float
    error_library: float
    error_stock: float
    error_executorch: float | None
    milliseconds: float
    conv_milliseconds: float
    ratio: float


def model_of(factor: Factor, conv: ConvParams, size: int) -> CompressedModel:
    """The layer alone, as a compressed model."""
    plan = LayerPlan(((Stage("w", "conv", conv),),))
    module = nn.Sequential(PackedLayer(plan, {"w": PackedFactor(factor)}, None))

    class Tuple(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = module[0]

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
            return (self.layer(x),)

    return CompressedModel(
        module=Tuple().eval(),
        inputs=(TensorSpec("x", "float32", (1, conv.in_channels, size, size)),),
        outputs=("y",),
        plans={"layer": plan},
        factors={"w": factor},
        dense={},
        recipe={"method": "narrow"},
        parameters=factor.shape[0] * factor.shape[1],
        layer_parameters={},
        provenance={},
    )


def session(model: Path | bytes, *, library: bool) -> onnxruntime.InferenceSession:
    """One thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if library:
        options.register_custom_ops_library(get_library_path())
    return onnxruntime.InferenceSession(
        model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"]
    )


def dense_conv(kernel: np.ndarray, conv: ConvParams, size: int) -> bytes:
    """ONNX Runtime's Conv with the weights in float32."""
    node = helper.make_node(
        "Conv", ["x", "w"], ["y"], kernel_shape=conv.kernel_size, strides=conv.stride, pads=conv.padding,
        dilations=conv.dilation, group=conv.groups,
    )  # fmt: skip
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, conv.in_channels, size, size])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "conv", [x], [y], [numpy_helper.from_array(kernel, "w")])
    model: bytes = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()
    return model


def measure(n: int, conv: ConvParams, size: int, bits: int, rounds: int, *, executorch: bool) -> Row:
    """Make, check and time one layer."""
    rng = np.random.default_rng([n, size, bits])
    columns = lut_narrow.conv_columns(conv)
    weights = rng.standard_normal((n, columns)) * np.exp(rng.normal(0, 1, (n, 1)))
    factor = fit_narrow(weights, None, bits=bits, refits=8)
    channels = conv.in_channels // conv.groups
    padded = columns // channels * lut.round_up(channels, lut.SPAN_COLUMNS)
    assert conv_format(n, conv, bits, BLOCK_SIZE, bits) == ("lut_narrow", factor.packed_bytes)
    kernel = ConvColumns(conv).kernel(torch.from_numpy(unpack(factor)))
    x = rng.standard_normal((1, conv.in_channels, size, size)).astype(np.float32)
    top, left, bottom, right = conv.padding
    image = nn.functional.pad(torch.from_numpy(x).double(), (left, right, top, bottom))
    expected = nn.functional.conv2d(image, kernel.double(), None, conv.stride, 0, conv.dilation, conv.groups).numpy()

    def error(y: np.ndarray) -> float:
        assert y.shape == expected.shape
        return float(np.abs(y - expected).max() / np.abs(expected).max())

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "layer.onnx")
        model = model_of(factor, conv, size)
        export(model, "onnx", path)
        packed, stock = session(path, library=True), session(path, library=False)
        dense = session(dense_conv(kernel.numpy().copy(), conv, size), library=False)
        errors = [error(each.run(None, {"x": x})[0]) for each in (packed, stock)]
        error_executorch = None
        if executorch:
            export(model, "executorch", Path(folder, "layer.pte"), options=ExportOptions())
            with ExecutorchModel(Path(folder, "layer.pte"), threads=1) as program:
                error_executorch = error(program.run({"x": x})["y"])
        times: list[list[float]] = [[], []]
        for turn in range(2 * rounds):
            start = time.thread_time_ns()
            (packed, dense)[turn % 2].run(None, {"x": x})
            times[turn % 2].append(1e-6 * (time.thread_time_ns() - start))
    ours, theirs = (median(side) for side in times)
    kind = "depthwise" if conv.groups > 1 else "first"
    return Row(
        layer=f"{kind} {conv.in_channels} -> {n}, {conv.kernel_size[0]}x{conv.kernel_size[1]} / {conv.stride[0]}, {size}x{size}",
        bits=bits, weights=n * columns, float16_bytes=2 * n * columns,
        lut_bytes=lut.packed_bytes(n, padded, bits, BLOCK_SIZE), narrow_bytes=factor.packed_bytes,
        bits_per_weight=8 * factor.packed_bytes / (n * columns),
        error_library=errors[0], error_stock=errors[1], error_executorch=error_executorch,
        milliseconds=ours, conv_milliseconds=theirs, ratio=ours / theirs,
    )  # fmt: skip


def main() -> None:
    """Measure all layers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bits", default="4,8")
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--executorch", action="store_true", help="check programs too")
    add_json_option(parser)
    arguments = parser.parse_args()
    rows = [
        measure(n, conv, size, bits, arguments.rounds, executorch=arguments.executorch)
        for bits in map(int, arguments.bits.split(","))
        for n, conv, size in LAYERS
    ]
    print_rows("narrow_layers", rows, as_json=arguments.json)


if __name__ == "__main__":
    sys.exit(main())
