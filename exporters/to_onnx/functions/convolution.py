"""What the functions of convolutions share, as ONNX text."""

from __future__ import annotations

# The attributes of a Conv node, but for `group`.
GEOMETRY = "kernel_shape: ints = @kernel_shape, strides: ints = @strides, pads: ints = @pads, dilations: ints = @dilations"

# y_rows is what `pixels`, nodes that give y_computed, makes of an x that has elements. ONNX Runtime's Conv refuses images of no
# pixels: their outputs, if any, are those of the padding. Reads x and n, and the constants zero, one, two and zero_scalar.
_WHERE_NOT_EMPTY = """
    element_count = Size (x)
    is_empty = Equal (element_count, zero_scalar)
    y_rows = If (is_empty) <
        then_branch = empty () => (float[?, ?, ?, ?] y_padding) {
            kernel_size = Constant <value_ints: ints = @kernel_shape> ()
            stride = Constant <value_ints: ints = @strides> ()
            dilation = Constant <value_ints: ints = @dilations> ()
            padding = Constant <value_ints: ints = @pads> ()
            pads_before = Slice (padding, zero, two)
            four = Constant <value = int64[1] {4}> ()
            pads_after = Slice (padding, two, four)
            size_of_x = Shape <start = 2> (x)
            size_and_before = Add (size_of_x, pads_before)
            padded_size = Add (size_and_before, pads_after)
            steps_of_kernel = Sub (kernel_size, one)
            reach = Mul (steps_of_kernel, dilation)
            room = Sub (padded_size, reach)
            # floor((room - 1) / stride) + 1, or 0 where the kernel has no room.
            room_before_last = Sub (room, one)
            strides_begun = Add (room_before_last, stride)
            strides_or_none = Max (strides_begun, zero)
            size_of_y = Div (strides_or_none, stride)
            images = Shape <start = 0, end = 1> (x)
            empty_shape = Concat <axis = 0> (images, n, size_of_y)
            y_padding = ConstantOfShape <value = float[1] {0}> (empty_shape)
        },
        else_branch = pixels () => (float[?, ?, ?, ?] y_computed) {
            PIXELS
        }
    >
"""


def where_not_empty(pixels: str) -> str:
    """The nodes that give `y_rows [batch, N, out_height, out_width]`: zeros for an empty x, else the `y_computed` of `pixels`."""
    return _WHERE_NOT_EMPTY.replace("PIXELS", pixels)
