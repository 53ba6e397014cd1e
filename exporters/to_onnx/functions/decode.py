"""The parts that the function bodies share, as ONNX text: decoding rows of a `lut` factor, and undoing its row permutation.

A body is `function(...)` of `prelude`, the operator's own lines and, inside its Scan, `DECODE`. Names are the ones of lut.md.
"""

from __future__ import annotations

from collections.abc import Mapping

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
# A code is a sum over the bits of its span: `bit_weights [8, 8 P]` is what each bit of each plane, read in place as 2**position, is
# multiplied with in the code of each of the 8 column groups. As a matrix product this is exact (powers of two, sums below 256) and
# the same for every width. The last steps' order is for speed: ONNX Runtime is slow where a broadcast's innermost axis is short.
DECODE = """
    by_bit = Unsqueeze (packed, two)
    single_bits = BitwiseAnd (by_bit, bit_masks)
    float_bits = Cast <to = 1> (single_bits)
    bit_rows = Reshape (float_bits, bit_rows_shape)
    float_codes = MatMul (bit_weights, bit_rows)
    flat_codes = Reshape (float_codes, infer)
    code = Cast <to = 6> (flat_codes)
    book_number = Cast <to = 6> (book)
    int_table = Gather <axis = 0> (codebooks, book_number)
    table = Cast <to = 1> (int_table)
    flat_entries = GatherElements <axis = 0> (table, code)
    entries = Reshape (flat_entries, entries_shape)
    entries_of_rows = Transpose <perm = [1, 0, 2]> (entries)
    by_block = Reshape (entries_of_rows, by_block_shape)
    float_scales = Cast <to = 1> (block_scales)
    steps = Mul (float_scales, lane_scale)
    steps_of_rows = Transpose <perm = [1, 0]> (steps)
    steps_by_block = Unsqueeze (steps_of_rows, two)
    scaled = Mul (by_block, steps_by_block)
    weights = Reshape (scaled, rows_shape)
"""

# row_index, or the identity where it is empty, inverted: lane_of_row int64 [N], the lane (16 * tile + lane) of each matrix row.
# Padding lanes write into a spare last slot that is cut off. Reads row_scale, row_index and prelude's n.
LANE_OF_ROW = """
    lane_count = Size (row_scale)
    lane_count_1d = Reshape (lane_count, infer)
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
    infer = Constant <value = int64[1] {{-1}}> ()
    n_scalar = Constant <value_int: int = @N> ()
    n = Reshape (n_scalar, infer)
    k_scalar = Constant <value_int: int = @K> ()
    k = Reshape (k_scalar, infer)

    bits_scalar = Constant <value_int: int = @bits> ()
    weights_of_width = Gather <axis = 0> (all_bit_weights, bits_scalar)
    plane_count = Shape <start = 2, end = 3> (codes)
    bit_count = Mul (plane_count, eight)
    used_weights = Slice (weights_of_width, zero, bit_count, one)
    bit_weights = Cast <to = 1> (used_weights)
    bit_masks = Constant <value = uint8[8, 1, 1] {{1, 2, 4, 8, 16, 32, 64, 128}}> ()
    bit_rows_shape = Constant <value = int64[3] {{0, -1, {4 * rows}}}> ()
    block_count = Shape <start = 1, end = 2> (scales)
    entries_shape = Constant <value = int64[3] {{-1, {rows}, 4}}> ()
    row_axis = Constant <value = int64[1] {{{rows}}}> ()
    by_block_shape = Concat <axis = 0> (row_axis, block_count, infer)
    rows_shape = Constant <value = int64[2] {{{rows}, -1}}> ()
    """


def function(operator: Operator, opset: int, body: str, tables: Mapping[str, np.ndarray]) -> onnx.FunctionProto:
    """Parse a body into the function of `operator`, with the operator table's inputs, attributes and output.

    Args:
        operator: the operator that the function computes.
        opset: version of the default domain.
        body: ONNX text of the nodes.
        tables: constants that would be long as text, by name.

    """
    attributes = ", ".join(attribute.name for attribute in operator.attributes)
    inputs = ", ".join(declared.name for declared in operator.inputs)
    proto = onnx.parser.parse_function(
        f'<domain: "{DOMAIN}", opset_import: ["" : {opset}]>\n'
        f"{operator.onnx_name} <{attributes}> ({inputs}) => ({operator.output.name}) {{\n{body}\n}}"
    )
    for name, table in tables.items():
        value = onnx.numpy_helper.from_array(table, name)
        proto.node.insert(0, onnx.helper.make_node("Constant", [], [name], value=value))
    return proto


def lut_tables() -> dict[str, np.ndarray]:
    """The tables of every body that has `prelude`: `all_bit_weights [9, 8, 64]`.

    By (bits, i, 8 q + p) what bit `p` of plane `q`, as 2**p, is multiplied with in the code of column group `i`. float16 holds the
    powers of two from 2**-7 to 2**7 exactly, in half the bytes.
    """
    weights = np.zeros((9, lut.COLUMN_GROUPS, 64), np.float16)
    for bits in range(1, 9):
        for i, positions in enumerate(lut.bit_positions(bits).tolist()):
            for b, (plane, position) in enumerate(positions):
                weights[bits, i, 8 * plane + position] = 2.0 ** (b - position)
    return {"all_bit_weights": weights}
