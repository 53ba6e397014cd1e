"""`KVAttentionFloat32`, `KVAttentionFloat16` and `KVAttentionInt8` in standard operators: over all places, those unseen masked."""

from __future__ import annotations

import onnx

from edgecomp.exporters.to_onnx.functions.cache_rows import PRELUDE, TURN, decoded
from edgecomp.exporters.to_onnx.functions.decode import function
from edgecomp.ops import KV_ATTENTION


def kv_attention(opset: int, cache: str) -> onnx.FunctionProto:
    """The function of a cache's type: `x [batch, sequence, width]` to `y [batch, sequence, heads head_size]`."""
    body = f"""
    {PRELUDE}
    batch = Shape <start = 0, end = 1> (x)
    kv_heads = Shape <start = 1, end = 2> (keys)
    room = Shape <start = 2, end = 3> (keys)
    heads_scalar = Constant <value_int: int = @heads> ()
    head_count = Reshape (heads_scalar, infer)
    size_scalar = Constant <value_int: int = @head_size> ()
    size = Reshape (size_scalar, infer)
    width = Mul (head_count, size)
    part = Slice (x, zero, width, two)
    heads_shape = Concat <axis = 0> (batch, length, head_count, size)
    heads = Reshape <allowzero = 1> (part, heads_shape)
    {TURN}
    scale = Constant <value_float: float = @scale> ()
    scaled_heads = Mul (turned_heads, scale)
    queries = Transpose <perm = [0, 2, 1, 3]> (scaled_heads)
    group = Div (head_count, kv_heads)
    group_rows = Mul (group, length)
    grouped_shape = Concat <axis = 0> (batch, kv_heads, group_rows, size)
    grouped = Reshape <allowzero = 1> (queries, grouped_shape)
    {decoded(cache, "keys", "float_keys")}
    {decoded(cache, "values", "float_values")}
    turned_keys = Transpose <perm = [0, 1, 3, 2]> (float_keys)
    products = MatMul (grouped, turned_keys)
    by_token_shape = Concat <axis = 0> (batch, kv_heads, group, length, room)
    by_token = Reshape <allowzero = 1> (products, by_token_shape)
    cap = Constant <value_float: float = @cap> ()
    float_zero = Constant <value = float {{0}}> ()
    is_capped = Greater (cap, float_zero)
    divisor = Where (is_capped, cap, float_one)
    divided = Div (by_token, divisor)
    bent = Tanh (divided)
    capped = Mul (bent, divisor)
    scores = Where (is_capped, capped, by_token)
    room_scalar = Squeeze (room)
    at = Range (zero_scalar, room_scalar, one_scalar)
    position_of_token = Unsqueeze (positions, two)
    is_before = LessOrEqual (at, position_of_token)
    window = Constant <value_int: int = @window> ()
    has_no_window = LessOrEqual (window, zero_scalar)
    last_unseen = Sub (position_of_token, window)
    is_in_window = Greater (at, last_unseen)
    is_near = Or (is_in_window, has_no_window)
    is_seen = And (is_before, is_near)
    head_axes = Constant <value = int64[2] {{1, 2}}> ()
    is_seen_by_heads = Unsqueeze (is_seen, head_axes)
    lowest = Constant <value = float {{-3.4028234663852886e38}}> ()
    seen_scores = Where (is_seen_by_heads, scores, lowest)
    weights = Softmax <axis = -1> (seen_scores)
    rows_shape = Concat <axis = 0> (batch, kv_heads, group_rows, room)
    rows = Reshape <allowzero = 1> (weights, rows_shape)
    mixed = MatMul (rows, float_values)
    mixed_shape = Concat <axis = 0> (batch, head_count, length, size)
    mixed_heads = Reshape <allowzero = 1> (mixed, mixed_shape)
    mixed_tokens = Transpose <perm = [0, 2, 1, 3]> (mixed_heads)
    y_shape = Concat <axis = 0> (batch, length, width)
    y = Reshape <allowzero = 1> (mixed_tokens, y_shape)
    """
    return function(KV_ATTENTION[cache], opset, body, {})
