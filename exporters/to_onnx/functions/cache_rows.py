"""What the functions of attention share, as ONNX text: heads, their turns by rotary positions, rows of a cache.

Names are those of edgecomp/operators.md. Parts read constants of `PRELUDE`. What is taken apart is split, not sliced: ONNX Runtime
1.20 makes a Split of several Slices of one tensor by itself, gives all of them one name, and then refuses the model.
"""

from __future__ import annotations

from edgecomp.ops import CACHES

# Constants, and the positions int64 [batch, sequence] of the tokens of `x`, which begin at `before`.
PRELUDE = """
    zero_scalar = Constant <value = int64 {0}> ()
    one_scalar = Constant <value = int64 {1}> ()
    zero = Constant <value = int64[1] {0}> ()
    one = Constant <value = int64[1] {1}> ()
    two = Constant <value = int64[1] {2}> ()
    three = Constant <value = int64[1] {3}> ()
    infer = Constant <value = int64[1] {-1}> ()
    float_one = Constant <value = float {1}> ()
    float_two = Constant <value = float {2}> ()
    float_128 = Constant <value = float {128}> ()
    length = Shape <start = 1, end = 2> (x)
    length_scalar = Squeeze (length)
    steps = Range (zero_scalar, length_scalar, one_scalar)
    long_before = Cast <to = 7> (before)
    starts = Unsqueeze (long_before, one)
    positions = Add (starts, steps)
"""

# `heads [batch, sequence, heads, size]` to `turned_heads`. Reads size [1]. A table without columns turns nothing, and may have any
# number of rows.
TURN = """
    half = Shape <start = 1, end = 2> (cos)
    rotated = Add (half, half)
    table_rows = Shape <start = 0, end = 1> (cos)
    last_row = Sub (table_rows, one)
    rows_of_positions = Min (positions, last_row)
    cos_rows = Gather <axis = 0> (cos, rows_of_positions)
    sin_rows = Gather <axis = 0> (sin, rows_of_positions)
    cosines = Unsqueeze (cos_rows, two)
    sines = Unsqueeze (sin_rows, two)
    left_over = Sub (size, rotated)
    pieces = Concat <axis = 0> (half, half, left_over)
    first_half, second_half, not_turned = Split <axis = 3> (heads, pieces)
    first_cos = Mul (first_half, cosines)
    second_sin = Mul (second_half, sines)
    second_cos = Mul (second_half, cosines)
    first_sin = Mul (first_half, sines)
    first_turned = Sub (first_cos, second_sin)
    second_turned = Add (second_cos, first_sin)
    turned_heads = Concat <axis = 3> (first_turned, second_turned, not_turned)
"""


def extra(cache: str) -> int:
    """Values of a row behind its head's."""
    return CACHES[cache][1]


def encoded(cache: str) -> str:
    """`turned_heads [batch, sequence, heads, size]` to `rows`, of the cache's type."""
    if cache != "int8":
        return f"rows = Cast <to = {'1' if cache == 'float32' else '10'}> (turned_heads)"
    # The logarithm is near: what it makes of the exponent is put right by the fraction, which must be in [1, 2).
    return """
    magnitudes = Abs (turned_heads)
    largest = ReduceMax <keepdims = 1> (magnitudes, three)
    float_127 = Constant <value = float {127}> ()
    float_zero = Constant <value = float {0}> ()
    least_scale = Constant <value = float {1.1754943508222875e-38}> ()
    log_two = Constant <value = float {0.6931471805599453}> ()
    wanted = Div (largest, float_127)
    is_infinite = IsInf (wanted)
    is_nan = IsNaN (wanted)
    is_bad = Or (is_infinite, is_nan)
    finite = Where (is_bad, float_one, wanted)
    scale_wanted = Max (finite, least_scale)
    logarithm = Log (scale_wanted)
    logarithm_of_two = Div (logarithm, log_two)
    near = Floor (logarithm_of_two)
    near_power = Pow (float_two, near)
    near_fraction = Div (scale_wanted, near_power)
    is_more = GreaterOrEqual (near_fraction, float_two)
    is_less = Less (near_fraction, float_one)
    one_more = Cast <to = 1> (is_more)
    one_less = Cast <to = 1> (is_less)
    not_less = Add (near, one_more)
    floor_exponent = Sub (not_less, one_less)
    power = Pow (float_two, floor_exponent)
    fraction = Div (scale_wanted, power)
    above_one = Sub (fraction, float_one)
    parts = Mul (above_one, float_128)
    ceiled = Ceil (parts)
    is_next = Equal (ceiled, float_128)
    next = Cast <to = 1> (is_next)
    exponent = Add (floor_exponent, next)
    mantissa = Where (is_next, float_zero, ceiled)
    mantissa_part = Div (mantissa, float_128)
    whole_mantissa = Add (mantissa_part, float_one)
    exponent_power = Pow (float_two, exponent)
    row_scale = Mul (exponent_power, whole_mantissa)
    inverse = Reciprocal (row_scale)
    scaled = Mul (turned_heads, inverse)
    rounded = Round (scaled)
    lowest = Neg (float_127)
    clipped = Clip (rounded, lowest, float_127)
    kept_values = Where (is_bad, float_127, clipped)
    kept_exponent = Where (is_bad, float_127, exponent)
    kept_mantissa = Where (is_bad, float_zero, mantissa)
    float_rows = Concat <axis = 3> (kept_values, kept_exponent, kept_mantissa)
    rows = Cast <to = 3> (float_rows)
    """


def decoded(cache: str, given: str, to: str) -> str:
    """Rows of a cache `given` to float `[batch, kv_heads, places, size]`. Reads size [1]."""
    if cache != "int8":
        return f"{to} = Cast <to = 1> ({given})"
    return f"""
    {to}_parts = Cast <to = 1> ({given})
    {to}_pieces = Concat <axis = 0> (size, one, one)
    {to}_values, {to}_exponent, {to}_mantissa = Split <axis = 3> ({to}_parts, {to}_pieces)
    {to}_power = Pow (float_two, {to}_exponent)
    {to}_mantissa_part = Div ({to}_mantissa, float_128)
    {to}_whole = Add ({to}_mantissa_part, float_one)
    {to}_scale = Mul ({to}_power, {to}_whole)
    {to} = Mul ({to}_values, {to}_scale)
    """
