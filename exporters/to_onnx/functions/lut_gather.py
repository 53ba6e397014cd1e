"""`LutGather` in standard operators: a Scan over the indices, each decoding its one row."""

from __future__ import annotations

import onnx

from edgecomp.exporters.to_onnx.functions.decode import DECODE, LANE_OF_ROW, function, lut_tables, prelude
from edgecomp.formats.lut import TILE_ROWS
from edgecomp.ops import LUT_GATHER

_BODY = f"""
    {prelude(rows=1)}
    {LANE_OF_ROW}
    # ONNX Runtime's Scan takes no empty sequence: without an index there is one step, whose row is cut off.
    count = Size (indices)
    count_1d = Reshape (count, infer)
    step_count = Max (count_1d, one)
    given = Reshape <allowzero = 1> (indices, count_1d)
    given_and_one = Concat <axis = 0> (given, zero)
    flat = Slice (given_and_one, zero, step_count)
    is_negative = Less (flat, zero)
    from_end = Add (flat, n)
    row = Where (is_negative, from_end, flat)
    lane = Gather <axis = 0> (lane_of_row, row)
    tile_rows = Constant <value = int64[1] {{{TILE_ROWS}}}> ()
    tile = Div (lane, tile_rows)
    lane_in_tile = Mod (lane, tile_rows)
    y_steps = Scan <num_scan_inputs = 2, body = row (int64 one_tile, int64 one_lane) => (float[?] y_row) {{
        # Indices of shape [1] keep an axis for the one row.
        lane_1d = Unsqueeze (one_lane, zero)
        tile_codes = Gather <axis = 0> (codes, one_tile)
        packed = Gather <axis = 2> (tile_codes, lane_1d)
        book = Gather <axis = 0> (tile_book, one_tile)
        tile_scales = Gather <axis = 0> (scales, one_tile)
        block_scales = Gather <axis = 1> (tile_scales, lane_1d)
        tile_row_scale = Gather <axis = 0> (row_scale, one_tile)
        lane_scale = Gather <axis = 0> (tile_row_scale, lane_1d)
        {DECODE}
        y_padded = Squeeze (weights, zero)
        y_row = Slice (y_padded, zero, k)
    }}> (tile, lane_in_tile)

    y_rows = Slice (y_steps, zero, count_1d)
    leading = Shape (indices)
    y_shape = Concat <axis = 0> (leading, k)
    y = Reshape <allowzero = 1> (y_rows, y_shape)
"""


def lut_gather(opset: int) -> onnx.FunctionProto:
    """The function of `LutGather`: int64 `indices [...]`, negative ones from the end, to float32 `y [..., K]`."""
    return function(LUT_GATHER, opset, _BODY, lut_tables())
