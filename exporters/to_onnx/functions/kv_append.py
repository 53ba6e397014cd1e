"""`KVAppendFloat32`, `KVAppendFloat16` and `KVAppendInt8` in standard operators: rows scattered into the cache."""

from __future__ import annotations

import onnx

from edgecomp.exporters.to_onnx.functions.cache_rows import PRELUDE, TURN, encoded, extra
from edgecomp.exporters.to_onnx.functions.decode import function
from edgecomp.ops import KV_APPEND


def kv_append(opset: int, cache: str) -> onnx.FunctionProto:
    """The function of a cache's type: `past [batch, kv_heads, places, row]` to `present`, whose places are `total` or more."""
    body = f"""
    {PRELUDE}
    kv_heads = Shape <start = 1, end = 2> (past)
    places = Shape <start = 2, end = 3> (past)
    row = Shape <start = 3, end = 4> (past)
    batch = Shape <start = 0, end = 1> (past)
    extra = Constant <value = int64[1] {{{extra(cache)}}}> ()
    size = Sub (row, extra)
    first_scalar = Constant <value_int: int = @first> ()
    first_column = Reshape (first_scalar, infer)
    width = Mul (kv_heads, size)
    last_column = Add (first_column, width)
    part = Slice (x, first_column, last_column, two)
    heads_shape = Concat <axis = 0> (batch, length, kv_heads, size)
    heads = Reshape <allowzero = 1> (part, heads_shape)
    {TURN}
    {encoded(cache)}
    long_total = Cast <to = 7> (total)
    total_1d = Reshape (long_total, infer)
    room = Max (places, total_1d)
    more_places = Sub (room, places)
    more_shape = Concat <axis = 0> (batch, kv_heads, more_places, row)
    empty_value = Constant <value = int64 {{0}}> ()
    typed_zero = CastLike (empty_value, past)
    more = Expand (typed_zero, more_shape)
    base = Concat <axis = 2> (past, more)
    rows_of_heads = Transpose <perm = [0, 2, 1, 3]> (rows)
    rows_shape = Shape (rows_of_heads)
    axes = Constant <value = int64[2] {{1, 3}}> ()
    places_of_rows = Unsqueeze (positions, axes)
    indices = Expand (places_of_rows, rows_shape)
    present = ScatterElements <axis = 2> (base, indices, rows_of_heads)
    """
    return function(KV_APPEND[cache], opset, body, {})
