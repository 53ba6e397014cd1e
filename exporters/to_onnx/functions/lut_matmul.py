"""`LutMatMul` in standard operators: a Scan over tiles, each decoded and multiplied with all of x."""

from __future__ import annotations

import onnx

from edgecomp.exporters.to_onnx.functions.decode import BIAS_OR_ZEROS, DECODE, LANE_OF_ROW, function, lut_tables, prelude
from edgecomp.exporters.to_onnx.functions.epilogue import added, gated
from edgecomp.formats.lut import TILE_ROWS
from edgecomp.ops import LUT_MATMUL

_BODY = f"""
    {prelude(TILE_ROWS)}
    {LANE_OF_ROW}
    {BIAS_OR_ZEROS}
    x_shape = Concat <axis = 0> (infer, k)
    x_rows = Reshape (x, x_shape)
    lane_tiles = Scan <num_scan_inputs = 4, body = tile (
        uint8[?, ?, 16, 4] packed, uint16 book, int8[?, 16] block_scales, float[16] lane_scale
    ) => (float[16, ?] tile_y) {{
        {DECODE}
        tile_weights = Slice (weights, zero, k, one)
        tile_y = Gemm <transB = 1> (tile_weights, x_rows)
    }}> (codes, tile_book, scales, row_scale)

    row_count = Shape <start = 0, end = 1> (x_rows)
    y_lanes_shape = Concat <axis = 0> (lane_count_1d, row_count)
    y_lanes = Reshape <allowzero = 1> (lane_tiles, y_lanes_shape)
    y_by_output = Gather <axis = 0> (y_lanes, lane_of_row)
    y_rows = Transpose <perm = [1, 0]> (y_by_output)
    y_biased = Add (y_rows, bias_or_zeros)
    {added("y_biased", "y_added", 2)}
    {gated("y_added", "y_finished")}
    leading = Shape <start = 0, end = -1> (x)
    y_shape = Concat <axis = 0> (leading, width)
    y = Reshape <allowzero = 1> (y_finished, y_shape)
"""


def lut_matmul(opset: int) -> onnx.FunctionProto:
    """The function of `LutMatMul`: float32 `x [..., K]` to `y [..., N]` or `[..., N/2]`; holds one tile's weights."""
    return function(LUT_MATMUL, opset, _BODY, lut_tables())
