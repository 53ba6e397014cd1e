"""What follows a product in the function bodies, as ONNX text: bias and addend, the activation, the product of two halves.

A body reads the attribute `activation` by one `If` inside another, of which a runtime that knows the attribute keeps one branch.
"""

from __future__ import annotations

from edgecomp.ops import ACTIVATIONS

# Nodes that give `{y}` of `{z}`, by activation.
_NODES = {
    "none": "{y} = Identity ({z})",
    "relu": "{y} = Relu ({z})",
    "silu": "{y}_sigmoid = Sigmoid ({z})\n {y} = Mul ({z}, {y}_sigmoid)",
    "gelu": "{y} = Gelu ({z})",
    "gelu_tanh": '{y} = Gelu <approximate: string = "tanh"> ({z})',
    "hard_swish": "{y} = HardSwish ({z})",
}
assert tuple(_NODES) == ACTIVATIONS


def added(z: str, y: str, rank: int) -> str:
    """`y = z`, or the addend reshaped as `z` added to it where it is not empty."""
    shape = _float(rank)
    return f"""
    addend_size = Size (addend)
    has_addend = Greater (addend_size, zero_scalar)
    {y} = If (has_addend) <
        then_branch = with_addend () => ({shape} {y}_sum) {{
            {y}_shape = Shape ({z})
            {y}_addend = Reshape <allowzero = 1> (addend, {y}_shape)
            {y}_sum = Add ({z}, {y}_addend)
        }},
        else_branch = without_addend () => ({shape} {y}_alone) {{
            {y}_alone = Identity ({z})
        }}
    >
    """


def activated(z: str, y: str, rank: int) -> str:
    """`y = activation(z)` by the attribute `activation`; reads nothing else."""
    return "activation_name = Constant <value_string: string = @activation> ()\n" + _nested(z, y, rank, list(_NODES))


def gated(z: str, y: str) -> str:
    """`y = activation(z)`, or of the halves of its columns `activation(first) * second` where `gated` is 1; z is `[rows, N]`.

    Gives `width [1]`, the columns of y. Reads prelude's n and constants.
    """
    return f"""
    gated_scalar = Constant <value_int: int = @gated> ()
    halves_scalar = Add (gated_scalar, one_scalar)
    halves = Reshape (halves_scalar, infer)
    width = Div (n, halves)
    gates = Slice ({z}, zero, width, one)
    {activated("gates", "gates_activated", 2)}
    is_gated = Equal (gated_scalar, one_scalar)
    {y} = If (is_gated) <
        then_branch = with_gate () => ({_float(2)} {y}_gated) {{
            values = Slice ({z}, width, n, one)
            {y}_gated = Mul (gates_activated, values)
        }},
        else_branch = without_gate () => ({_float(2)} {y}_whole) {{
            {y}_whole = Identity (gates_activated)
        }}
    >
    """


def _nested(z: str, y: str, rank: int, names: list[str]) -> str:
    name, *others = names
    if not others:
        return _NODES[name].format(z=z, y=y)
    return f"""
    {name}_name = Constant <value_string: string = "{name}"> ()
    is_{name} = Equal (activation_name, {name}_name)
    {y} = If (is_{name}) <
        then_branch = {name} () => ({_float(rank)} {y}_{name}) {{
            {_NODES[name].format(z=z, y=f"{y}_{name}")}
        }},
        else_branch = not_{name} () => ({_float(rank)} {y}_not_{name}) {{
            {_nested(z, f"{y}_not_{name}", rank, others)}
        }}
    >
    """


def _float(rank: int) -> str:
    return f"float[{', '.join('?' * rank)}]"
