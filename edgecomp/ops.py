"""The operator table: every operator once, from which the names, signatures and checks of all runtimes derive.

| runtime | name of `lut_matmul` | from this table |
| --- | --- | --- |
| PyTorch | `edgecomp::lut_matmul` | its schema |
| ONNX | `ai.edgecomp::LutMatMul` | the node's inputs and attributes, the function's signature |
| ExecuTorch | `edgecomp::lut_matmul.out` | its schema |
| C and C++ | `lut_matmul` | `op_table.{h,cpp}` and `op_enums.h`, by `runtimes/ops/generate.py` |
| documents | `edgecomp/operators.md` | all of it, by the same |

An operator's inputs are its first one, its factor's arrays and then the rest; attributes are the factor's and then the operator's
own. Adapters read both by this order and know no operator by name. An optional input that is absent is `None` in PyTorch and
ExecuTorch, and in ONNX an empty tensor of shape `[0]`, since a function body cannot ask whether an input is there. Operators of
attention have no factor.

An operator that has been released never changes its inputs, attributes or meaning: ONNX Runtime matches kernels by name and
refuses a node with an input that the kernel does not know, whatever the domain's version. A fusion or a new input is an operator
of a new name; where the library lacks it, the node's function runs.

This module is imported by the generator, which has nothing but the standard library.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from edgecomp.tensor import StageOp

DOMAIN = "ai.edgecomp"
DOMAIN_VERSION = 1
NAMESPACE = "edgecomp"

AttributeType = Literal["int", "ints", "float", "string"]

# The element types of tensors, in the order of the C enumeration `ec_type` (which begins with none).
DTYPES = ("float32", "uint8", "int8", "uint16", "int32", "int64", "float16")


@dataclass(frozen=True)
class OpInput:
    """An input: numpy dtype name and shape in the symbols of the format's specification (`...` any leading axes)."""

    name: str
    dtype: str
    shape: str
    optional: bool = False


@dataclass(frozen=True)
class OpAttribute:
    """An attribute, written on every node: no defaults.

    Args:
        name: as in every runtime.
        type: `int`, `ints` of a fixed count, `float` (float32), or `string` of a fixed set.
        count: how many integers `ints` holds.
        choices: the strings, in the order of the C enumeration `ec_<name>`.

    """

    name: str
    type: AttributeType
    count: int = 1
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class FactorSchema:
    """The arrays and attributes by which an operator is given a factor of a format.

    `format` also names the module of references (`edgecomp.references`); one without arrays is of operators that take no factor.
    """

    format: str
    arrays: tuple[OpInput, ...]
    attributes: tuple[OpAttribute, ...]


@dataclass(frozen=True)
class Operator:
    """One operator; once released it never changes.

    Args:
        name: in PyTorch and C.
        factor: the packed matrix.
        first: what it is applied to.
        inputs_after: inputs behind the factor's arrays.
        attributes_after: attributes behind the factor's.
        output: its shape follows from that of the first input and from the attributes, but for a size that other inputs tell.
        meaning: the formula, for the document.
        in_place: name of the input whose memory the output may take where nobody else reads it, and shapes are the same.

    """

    name: str
    factor: FactorSchema
    first: OpInput
    output: OpInput
    meaning: str
    inputs_after: tuple[OpInput, ...] = ()
    attributes_after: tuple[OpAttribute, ...] = ()
    in_place: str = ""

    @property
    def inputs(self) -> tuple[OpInput, ...]:
        """All inputs, in order."""
        return (self.first, *self.factor.arrays, *self.inputs_after)

    @property
    def attributes(self) -> tuple[OpAttribute, ...]:
        """All attributes, in order."""
        return (*self.factor.attributes, *self.attributes_after)

    @property
    def onnx_name(self) -> str:
        """CamelCase name in the domain `ai.edgecomp`: `lut_matmul` -> `LutMatMul`, `lut_conv2d` -> `LutConv2D`."""
        special = {"matmul": "MatMul", "conv2d": "Conv2D", "kv": "KV"}
        return "".join(special.get(word, word.capitalize()) for word in self.name.split("_"))

    @property
    def torch_name(self) -> str:
        """Qualified PyTorch name."""
        return f"{NAMESPACE}::{self.name}"

    @property
    def torch_schema(self) -> str:
        """Functional PyTorch schema, without the namespace."""
        return f"{self.name}({self._parameters}) -> Tensor"

    @property
    def executorch_name(self) -> str:
        """Qualified name of the variant that writes to a given output, as ExecuTorch calls it."""
        return f"{self.torch_name}.out"

    @property
    def writes_first(self) -> bool:
        """Whether the output may take the place of the first input."""
        return self.in_place == self.first.name

    @property
    def executorch_names(self) -> tuple[str, ...]:
        """Qualified names of its variants: that one, and one that writes to the first input, where there is such."""
        return (self.executorch_name, f"{self.torch_name}_") if self.writes_first else (self.executorch_name,)

    @property
    def executorch_schema(self) -> str:
        """PyTorch schema of that variant, without the namespace."""
        return f"{self.name}.out({self._parameters}, Tensor(a!) out) -> Tensor(a!)"

    @property
    def executorch_in_place_schema(self) -> str:
        """PyTorch schema of the variant that writes to its first input, for operators that have one (`writes_first`).

        PyTorch knows one by its name and by that of the input, `self`.
        """
        return f"{self.name}_(Tensor(a!) self{self._parameters.removeprefix(f'Tensor {self.first.name}')}) -> Tensor(a!)"

    @property
    def _parameters(self) -> str:
        types = {"int": "int", "ints": "int[]", "float": "float", "string": "str"}
        inputs = [f"Tensor{'?' if i.optional else ''} {i.name}" for i in self.inputs]
        attributes = [f"{types[a.type]} {a.name}" for a in self.attributes]
        return f"{', '.join(inputs)}, *, {', '.join(attributes)}"


LUT = FactorSchema(
    "lut",
    arrays=(
        OpInput("codes", "uint8", "[T, S, P, 16, 4]"),
        OpInput("codebooks", "int8", "[B, 2**bits]"),
        OpInput("tile_book", "uint16", "[T]"),
        OpInput("scales", "int8", "[T, blocks, 16]"),
        OpInput("row_scale", "float32", "[T, 16]"),
        OpInput("row_index", "int32", "[T*16]", optional=True),
    ),
    attributes=(OpAttribute("N", "int"), OpAttribute("K", "int"), OpAttribute("bits", "int"), OpAttribute("block_size", "int")),
)

LUT_NARROW = FactorSchema(
    "lut_narrow",
    arrays=(
        OpInput("codes", "uint8", "[ceil(N*K*P/8)]"),
        OpInput("codebook", "int8", "[2**bits]", optional=True),
        OpInput("row_scale", "uint8", "[N]"),
    ),
    attributes=(OpAttribute("N", "int"), OpAttribute("K", "int"), OpAttribute("bits", "int"), OpAttribute("exponent", "int")),
)

# What becomes of a product z: bias and addend are added in this order, then comes the activation, then the product of two halves.
# The addend is a sum's other terms, or a residual connection.
_BIAS = OpInput("bias", "float32", "[N]", optional=True)
_COMPUTE = OpAttribute("compute", "string", choices=("float", "int8"))
ACTIVATIONS = ("none", "relu", "silu", "gelu", "gelu_tanh", "hard_swish")
_ACTIVATION = OpAttribute("activation", "string", choices=ACTIVATIONS)

_IMAGE_ADDEND = OpInput("addend", "float32", "[batch, N, out_height, out_width]", optional=True)
_GEOMETRY = (
    OpAttribute("kernel_shape", "ints", 2),
    OpAttribute("strides", "ints", 2),
    OpAttribute("pads", "ints", 4),  # top, left, bottom, right
    OpAttribute("dilations", "ints", 2),
    OpAttribute("group", "int"),
)

LUT_MATMUL = Operator(
    "lut_matmul",
    LUT,
    first=OpInput("x", "float32", "[..., K]"),
    inputs_after=(_BIAS, OpInput("addend", "float32", "[..., N]", optional=True)),
    attributes_after=(_COMPUTE, _ACTIVATION, OpAttribute("gated", "int")),
    output=OpInput("y", "float32", "[..., N], or [..., N/2] where gated is 1"),
    in_place="addend",
    meaning="z[..., n] = sum_k x[..., k] w[n, k] + bias[n] + addend[..., n]\n"
    "gated = 0: y[..., n] = activation(z[..., n])\n"
    "gated = 1: y[..., j] = activation(z[..., j]) z[..., N/2 + j]",
)
LUT_GATHER = Operator(
    "lut_gather",
    LUT,
    first=OpInput("indices", "int64", "[...]"),
    output=OpInput("y", "float32", "[..., K]"),
    meaning="y[..., :] = w[indices[...], :]; negative indices count from the end",
)
LUT_CONV2D = Operator(
    "lut_conv2d",
    LUT,
    first=OpInput("x", "float32", "[batch, in_channels, height, width]"),
    inputs_after=(_BIAS, _IMAGE_ADDEND),
    attributes_after=(_COMPUTE, _ACTIVATION, *_GEOMETRY),
    output=OpInput("y", "float32", "[batch, N, out_height, out_width]"),
    meaning="y = activation(w * x + bias + addend)\n"
    "a convolution; columns of w are (kernel row, kernel column, channel padded to 32)",
)
LUT_NARROW_CONV2D = Operator(
    "lut_narrow_conv2d",
    LUT_NARROW,
    first=OpInput("x", "float32", "[batch, in_channels, height, width]"),
    inputs_after=(_BIAS, _IMAGE_ADDEND),
    attributes_after=(_COMPUTE, _ACTIVATION, *_GEOMETRY),
    output=OpInput("y", "float32", "[batch, N, out_height, out_width]"),
    in_place="addend",
    meaning="y = activation(w * x + bias + addend)\n"
    "a convolution, of several groups in float32; columns of w are (kernel row, kernel column, channel of the group)",
)

# Attention with a cache of keys and values. A row of the cache is what one head has for one token: head_size float32 or float16, or
# int8 and behind them a scale of its own: value = int8 (1 + m / 128) 2^e, with e and m (0 to 127) the last two int8 of the row.
CACHES: dict[str, tuple[str, int]] = {"float32": ("float32", 0), "float16": ("float16", 0), "int8": ("int8", 2)}
ATTENTION = FactorSchema("attention", (), ())

_BEFORE = OpInput("before", "int32", "[batch]")
_TABLES = (OpInput("cos", "float32", "[context, rotated/2]"), OpInput("sin", "float32", "[context, rotated/2]"))


def _kv_append(cache: str) -> Operator:
    dtype, extra = CACHES[cache]
    row = "head_size + 2" if extra else "head_size"
    return Operator(
        f"kv_append_{cache}",
        ATTENTION,
        first=OpInput("past", dtype, f"[batch, kv_heads, places, {row}]"),
        inputs_after=(OpInput("x", "float32", "[batch, sequence, width]"), _BEFORE, OpInput("total", "int32", "[]"), *_TABLES),
        attributes_after=(OpAttribute("first", "int"),),
        output=OpInput("present", dtype, f"[batch, kv_heads, max(places, total), {row}]"),
        in_place="past",
        meaning="new[b, i, h] = turned(x[b, i, first + h head_size : first + (h + 1) head_size], before[b] + i)\n"
        f"present[b, h, before[b] + i] = {cache}(new[b, i, h]), i = 0 to sequence - 1; other places as past has them, or 0\n"
        "turned(v, p): for j below rotated/2 the pair v[j], v[j + rotated/2] turned by the angle of cos[p, j], sin[p, j]",
    )


def _kv_attention(cache: str) -> Operator:
    dtype, extra = CACHES[cache]
    row = "head_size + 2" if extra else "head_size"
    kept = f"[batch, kv_heads, places, {row}]"
    return Operator(
        f"kv_attention_{cache}",
        ATTENTION,
        first=OpInput("x", "float32", "[batch, sequence, width]"),
        inputs_after=(OpInput("keys", dtype, kept), OpInput("values", dtype, kept), _BEFORE, *_TABLES),
        attributes_after=(
            OpAttribute("heads", "int"),
            OpAttribute("head_size", "int"),
            OpAttribute("window", "int"),
            OpAttribute("scale", "float"),
            OpAttribute("cap", "float"),
        ),
        output=OpInput("y", "float32", "[batch, sequence, heads head_size]"),
        meaning="query[b, i, h] = turned(x[b, i, h head_size : (h + 1) head_size], p), p = before[b] + i\n"
        "s[j] = scale query[b, i, h] keys[b, g, j] of the head g = floor(h kv_heads / heads); cap tanh(s[j] / cap) where cap > 0\n"
        "y[b, i, h] = sum_j softmax(s)[j] values[b, g, j] over j = 0 to p, or p - window + 1 to p where window > 0",
    )


KV_APPEND = {cache: _kv_append(cache) for cache in CACHES}
KV_ATTENTION = {cache: _kv_attention(cache) for cache in CACHES}

# What the attributes of an epilogue say where there is none.
NO_EPILOGUE: dict[str, int | str] = {"activation": "none", "gated": 0}

OPERATORS: dict[str, Operator] = {
    op.name: op for op in (LUT_MATMUL, LUT_GATHER, LUT_CONV2D, LUT_NARROW_CONV2D, *KV_APPEND.values(), *KV_ATTENTION.values())
}

# Which operator runs a stage; a (format, op) that is absent runs on the runtime's own dense operators.
STAGE_OPERATORS: dict[tuple[str, StageOp], Operator] = {
    ("lut", "linear"): LUT_MATMUL,
    ("lut", "gather"): LUT_GATHER,
    ("lut", "conv"): LUT_CONV2D,
    ("lut_narrow", "conv"): LUT_NARROW_CONV2D,
}
