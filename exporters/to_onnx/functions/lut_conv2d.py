"""`LutConv2D` in standard operators: one Conv a tile, or for grouped convolutions one Conv with all of the decoded kernel."""

from __future__ import annotations

import onnx

from edgecomp.exporters.to_onnx.functions.convolution import GEOMETRY, where_not_empty
from edgecomp.exporters.to_onnx.functions.decode import BIAS_OR_ZEROS, DECODE, LANE_OF_ROW, function, lut_tables, prelude
from edgecomp.exporters.to_onnx.functions.epilogue import activated, added
from edgecomp.formats.lut import TILE_ROWS
from edgecomp.ops import LUT_CONV2D

_TILE = "uint8[?, ?, 16, 4] packed, uint16 book, int8[?, 16] block_scales, float[16] lane_scale"

# Weights [16, kh * kw * C'] to a kernel [16, C, kh, kw]: the channels that pad each tap to 32 are cut off.
_KERNEL = f"""
    {DECODE}
    by_tap = Reshape (weights, by_tap_shape)
    by_channel = Slice (by_tap, zero, channels, three)
    kernel = Transpose <perm = [0, 3, 1, 2]> (by_channel)
"""

_PIXELS = f"""
    is_ungrouped = Equal (group_count, one_scalar)
    y_computed = If (is_ungrouped) <
        then_branch = ungrouped () => (float[?, ?, ?, ?] y_ungrouped) {{
            y_tiles = Scan <num_scan_inputs = 4, body = tile ({_TILE}) => (float[?, ?, ?, ?] y_tile) {{
                {_KERNEL}
                y_tile = Conv <{GEOMETRY}> (x, kernel)
            }}> (codes, tile_book, scales, row_scale)
            y_by_image = Transpose <perm = [1, 0, 2, 3, 4]> (y_tiles)
            batch = Shape <start = 0, end = 1> (x)
            size = Shape <start = 3> (y_by_image)
            y_lanes_shape = Concat <axis = 0> (batch, lane_count_1d, size)
            y_lanes = Reshape <allowzero = 1> (y_by_image, y_lanes_shape)
            y_ungrouped = Gather <axis = 1> (y_lanes, lane_of_row)
        }},
        # A tile's rows may lie in several groups, so the kernel is decoded first. Grouped kernels are small.
        else_branch = grouped () => (float[?, ?, ?, ?] y_grouped) {{
            kernels = Scan <num_scan_inputs = 4, body = tile ({_TILE}) => (float[?, ?, ?, ?] tile_kernel) {{
                {_KERNEL}
                tile_kernel = Identity (kernel)
            }}> (codes, tile_book, scales, row_scale)
            lanes_shape = Concat <axis = 0> (infer, channels, taps)
            lane_kernels = Reshape (kernels, lanes_shape)
            row_kernels = Gather <axis = 0> (lane_kernels, lane_of_row)
            y_grouped = Conv <{GEOMETRY}, group: int = @group> (x, row_kernels)
        }}
    >
"""

_BODY = f"""
    {prelude(TILE_ROWS)}
    {LANE_OF_ROW}
    {BIAS_OR_ZEROS}
    three = Constant <value = int64[1] {{3}}> ()
    tile_rows = Constant <value = int64[1] {{{TILE_ROWS}}}> ()
    taps = Constant <value_ints: ints = @kernel_shape> ()
    by_tap_shape = Concat <axis = 0> (tile_rows, taps, infer)
    group_count = Constant <value_int: int = @group> ()
    all_channels = Shape <start = 1, end = 2> (x)
    channels = Div (all_channels, group_count)

    {where_not_empty(_PIXELS)}
    bias_axes = Constant <value = int64[2] {{1, 2}}> ()
    bias_by_channel = Unsqueeze (bias_or_zeros, bias_axes)
    y_biased = Add (y_rows, bias_by_channel)
    {added("y_biased", "y_added", 4)}
    {activated("y_added", "y", 4)}
"""


def lut_conv2d(opset: int) -> onnx.FunctionProto:
    """The function of `LutConv2D`: float32 `x [batch, channels, height, width]` to `y [batch, N, out_height, out_width]`."""
    return function(LUT_CONV2D, opset, _BODY, lut_tables())
