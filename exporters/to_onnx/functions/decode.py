"""The parts that the function bodies share, as ONNX text: decoding rows of a `lut` factor, and undoing its row permutation.

A body is `function(...)` of `prelude`, the operator's own lines and, inside its Scan, `DECODE`. Names are the ones of lut.md.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import onnx.parser

from edgecomp.formats import lut
from edgecomp.ops import DOMAIN, Operator

# Codes to weights, for `rows` rows of a tile. Reads (all but the first four from the scope outside):
#   packed uint8 [S, P, rows, 4], book uint16 scalar, block_scales int8 [blocks, rows], lane_scale float [rows];
#   codebooks, and prelude's constants. Gives: weights float [rows, 32 S].
# A code is a sum over the bits of its span: `bit_weights [8, 8 P]` says how much each bit of each plane adds to the code of each of
# the 8 column groups. As a matrix product this is exact (codes are below 256) and the same for every width.
DECODE = """
    by_bit = Unsqueeze (packed, two)
    shifted = BitShift <direction = "RIGHT"> (by_bit, bit_numbers)
    single_bits = BitwiseAnd (shifted, one_uint8)
    float_bits = Cast <to = 1> (single_bits)
    bit_rows = Reshape (float_bits, bit_rows_shape)
    float_codes = MatMul (bit_weights, bit_rows)
    code = Cast <to = 6> (float_codes)
    book_number = Cast <to = 6> (book)
    int_table = Gather <axis = 0> (codebooks, book_number)
    table = Cast <to = 1> (int_table)
    entries = Gather <axis = 0> (table, code)
    entries_by_block = Reshape (entries, by_block_shape)
    float_scales = Cast <to = 1> (block_scales)
    steps = Mul (float_scales, lane_scale)
    steps_by_block = Unsqueeze (steps, scale_axes)
    scaled = Mul (entries_by_block, steps_by_block)
    by_row = Transpose <perm = [2, 0, 1, 3]> (scaled)
    weights = Reshape (by_row, rows_shape)
"""

# row_index, or the identity where it is empty, inverted: lane_of_row int64 [N], the lane (16 * tile + lane) of each matrix row.
# Padding lanes write into a spare last slot that is cut off. Reads row_scale, row_index and prelude's n.
LANE_OF_ROW = """
    lane_count = Size (row_scale)
    lane_count_1d = Unsqueeze (lane_count, zero)
    lanes = Range (zero_scalar, lane_count, one_scalar)
    given_rows = Cast <to = 7> (row_index)
    given_or_identity = Concat <axis = 0> (given_rows, lanes)
    row_of_lane = Slice (given_or_identity, zero, lane_count_1d)
    is_padding = Less (row_of_lane, zero)
    row_or_spare = Where (is_padding, n, row_of_lane)
    slot = Min (row_or_spare, n)
    slot_count = Add (n, one)
    no_lanes = Expand (zero, slot_count)
    lane_of_slot = ScatterElements <axis = 0> (no_lanes, slot, lanes)
    lane_of_row = Slice (lane_of_slot, zero, n)
"""

# The bias float [N], or zeros where it is empty. Reads bias and prelude's n.
BIAS_OR_ZEROS = """
    float_zero = Constant <value = float[1] {0}> ()
    no_bias = Expand (float_zero, n)
    given_or_zeros = Concat <axis = 0> (bias, no_bias)
    bias_or_zeros = Slice (given_or_zeros, zero, n)
"""


def prelude(rows: int) -> str:
    """Constants of every body: small integers, n and k `[1]` from the attributes, what `DECODE` reads for `rows` rows a step."""
    return f"""
    zero_scalar = Constant <value = int64 {{0}}> ()
    one_scalar = Constant <value = int64 {{1}}> ()
    zero = Constant <value = int64[1] {{0}}> ()
    one = Constant <value = int64[1] {{1}}> ()
    two = Constant <value = int64[1] {{2}}> ()
    eight = Constant <value = int64[1] {{8}}> ()
    n_scalar = Constant <value_int: int = @N> ()
    n = Unsqueeze (n_scalar, zero)
    k_scalar = Constant <value_int: int = @K> ()
    k = Unsqueeze (k_scalar, zero)

    bits_scalar = Constant <value_int: int = @bits> ()
    weights_of_width = Gather <axis = 0> (all_bit_weights, bits_scalar)
    plane_count = Shape <start = 2, end = 3> (codes)
    bit_count = Mul (plane_count, eight)
    used_weights = Slice (weights_of_width, zero, bit_count, one)
    bit_weights = Cast <to = 1> (used_weights)
    bit_numbers = Constant <value = uint8[8, 1, 1] {{0, 1, 2, 3, 4, 5, 6, 7}}> ()
    one_uint8 = Constant <value = uint8 {{1}}> ()
    scale_axes = Constant <value = int64[2] {{1, 3}}> ()
    bit_rows_shape = Constant <value = int64[3] {{0, -1, {4 * rows}}}> ()
    block_count = Shape <start = 1, end = 2> (scales)
    block_parts = Constant <value = int64[3] {{-1, {rows}, 4}}> ()
    by_block_shape = Concat <axis = 0> (block_count, block_parts)
    rows_shape = Constant <value = int64[2] {{{rows}, -1}}> ()
    """


def function(operator: Operator, opset: int, body: str) -> onnx.FunctionProto:
    """Parse a body into the function of `operator`, with the operator table's inputs, attributes and output.

    Args:
        operator: the operator that the function computes.
        opset: version of the default domain.
        body: ONNX text of the nodes.

    """
    attributes = ", ".join(attribute.name for attribute in operator.attributes)
    inputs = ", ".join(declared.name for declared in operator.inputs)
    proto = onnx.parser.parse_function(
        f'<domain: "{DOMAIN}", opset_import: ["" : {opset}]>\n'
        f"{operator.onnx_name} <{attributes}> ({inputs}) => ({operator.output.name}) {{\n{body}\n}}"
    )
    table = onnx.numpy_helper.from_array(_bit_weights(), "all_bit_weights")
    proto.node.insert(0, onnx.helper.make_node("Constant", [], ["all_bit_weights"], value=table))
    return proto


def _bit_weights() -> np.ndarray:
    """What bit `p` of plane `q` adds to the code of column group `i`: uint8 `[9, 8, 64]` by (bits, i, 8 q + p)."""
    weights = np.zeros((9, lut.COLUMN_GROUPS, 64), np.uint8)
    for bits in range(1, 9):
        for i, positions in enumerate(lut.bit_positions(bits).tolist()):
            for b, (plane, position) in enumerate(positions):
                weights[bits, i, 8 * plane + position] = 1 << b
    return weights
