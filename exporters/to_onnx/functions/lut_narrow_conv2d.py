"""`LutNarrowConv2D` in standard operators: the kernel is decoded whole, in a Scan of one step, and one Conv follows."""

from __future__ import annotations

import numpy as np
import onnx

from edgecomp.exporters.to_onnx.functions.convolution import GEOMETRY, where_not_empty
from edgecomp.exporters.to_onnx.functions.decode import BIAS_OR_ZEROS, function
from edgecomp.exporters.to_onnx.functions.epilogue import activated, added
from edgecomp.formats import lut_narrow
from edgecomp.ops import LUT_NARROW_CONV2D

# The Scan keeps constant folding away from the codes, as in the other functions; there is no need for tiles, as narrow kernels are
# small. Reads the bits of the codes in their order: those of one code are a row, and its product with powers of two is the code.
_PIXELS = f"""
    code_steps = Unsqueeze (codes, zero)
    y_steps = Scan <num_scan_inputs = 1, body = whole (uint8[?] packed) => (float[?, ?, ?, ?] y_step) {{
        by_byte = Unsqueeze (packed, one)
        single_bits = BitwiseAnd (by_byte, bit_masks)
        is_set = Cast <to = 9> (single_bits)
        float_bits = Cast <to = 1> (is_set)
        flat_bits = Reshape (float_bits, infer)
        used_bits = Slice (flat_bits, zero, bit_count)
        by_code = Reshape (used_bits, by_code_shape)
        float_codes = MatMul (by_code, powers)
        flat_codes = Reshape (float_codes, infer)
        code = Cast <to = 7> (flat_codes)
        entries = Gather <axis = 0> (table, code)
        by_row = Reshape (entries, matrix_shape)
        weights = Mul (by_row, step_of_row)
        by_tap = Reshape (weights, by_tap_shape)
        kernel = Transpose <perm = [0, 3, 1, 2]> (by_tap)
        y_step = Conv <{GEOMETRY}, group: int = @group> (x, kernel)
    }}> (code_steps)
    y_computed = Squeeze (y_steps, zero)
"""

_BODY = f"""
    zero_scalar = Constant <value = int64 {{0}}> ()
    zero = Constant <value = int64[1] {{0}}> ()
    one = Constant <value = int64[1] {{1}}> ()
    two = Constant <value = int64[1] {{2}}> ()
    infer = Constant <value = int64[1] {{-1}}> ()
    n_scalar = Constant <value_int: int = @N> ()
    n = Reshape (n_scalar, infer)
    k_scalar = Constant <value_int: int = @K> ()
    k = Reshape (k_scalar, infer)
    {BIAS_OR_ZEROS}

    bits = Constant <value_int: int = @bits> ()
    widths = Constant <value = int64[9] {{0, 1, 2, 3, 4, 5, 6, 8, 8}}> ()
    width_scalar = Gather <axis = 0> (widths, bits)
    width = Reshape (width_scalar, infer)
    matrix_shape = Concat <axis = 0> (n, k)
    weight_count = Mul (n, k)
    bit_count = Mul (weight_count, width)
    by_code_shape = Concat <axis = 0> (infer, width)
    bit_masks = Constant <value = uint8[8] {{1, 2, 4, 8, 16, 32, 64, 128}}> ()
    all_powers = Constant <value = float[8] {{1, 2, 4, 8, 16, 32, 64, 128}}> ()
    used_powers = Slice (all_powers, zero, width)
    powers = Unsqueeze (used_powers, one)
    # Codes of 7 and 8 bits find the table of the values themselves where the codebook, which is absent, would be.
    float_codebook = Cast <to = 1> (codebook)
    table = Concat <axis = 0> (float_codebook, values_of_bytes)

    scale = Cast <to = 7> (row_scale)
    relative_steps = Gather <axis = 0> (all_steps, scale)
    exponent_scalar = Constant <value_int: int = @exponent> ()
    exponent_float = Cast <to = 1> (exponent_scalar)
    base = Constant <value = float {{2}}> ()
    unit = Pow (base, exponent_float)
    steps = Mul (relative_steps, unit)
    step_of_row = Unsqueeze (steps, one)
    taps = Constant <value_ints: ints = @kernel_shape> ()
    by_tap_shape = Concat <axis = 0> (n, taps, infer)

    {where_not_empty(_PIXELS)}
    bias_axes = Constant <value = int64[2] {{1, 2}}> ()
    bias_by_channel = Unsqueeze (bias_or_zeros, bias_axes)
    y_biased = Add (y_rows, bias_by_channel)
    {added("y_biased", "y_added", 4)}
    {activated("y_added", "y", 4)}
"""


def lut_narrow_conv2d(opset: int) -> onnx.FunctionProto:
    """The function of `LutNarrowConv2D`: float32 `x [batch, channels, height, width]` to `y [batch, N, out_height, out_width]`."""
    values = np.arange(256, dtype=np.uint8).view(np.int8).astype(np.float32)
    steps = lut_narrow.row_steps(np.arange(256, dtype=np.uint8), 0)
    return function(LUT_NARROW_CONV2D, opset, _BODY, {"values_of_bytes": values, "all_steps": steps})
