"""The operator table: every operator once, from which the names and schemas of all runtimes derive.

| runtime | name of `lut_matmul` |
| --- | --- |
| PyTorch | `edgecomp::lut_matmul` |
| ONNX | `ai.edgecomp::LutMatMul` |
| ExecuTorch | `edgecomp::lut_matmul.out` |

Inputs and attributes keep the order of the table. An optional input that is absent is `None` in PyTorch and ExecuTorch, and in ONNX
an empty tensor of shape `[0]`, since a function body cannot ask whether an input is there.

An operator that has been released never changes its inputs, attributes or meaning: ONNX Runtime matches kernels by name and
refuses a node with an input that the kernel does not know, whatever the domain's version. A fusion or a new input is an operator
of a new name; where the library lacks it, the node's function runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgecomp.tensor import StageOp

DOMAIN = "ai.edgecomp"
DOMAIN_VERSION = 1
NAMESPACE = "edgecomp"

AttributeType = Literal["int", "ints", "string"]


@dataclass(frozen=True)
class OpInput:
    """An input: numpy dtype name and shape in the symbols of lut.md (`M` rows of x, `...` any leading axes)."""

    name: str
    dtype: str
    shape: str
    optional: bool = False


@dataclass(frozen=True)
class OpAttribute:
    """An attribute, written on every node: no defaults."""

    name: str
    type: AttributeType


@dataclass(frozen=True)
class Operator:
    """One operator; once released it never changes."""

    name: str
    format: str
    inputs: tuple[OpInput, ...]
    attributes: tuple[OpAttribute, ...]
    output: OpInput

    @property
    def onnx_name(self) -> str:
        """CamelCase name in the domain `ai.edgecomp`: `lut_matmul` -> `LutMatMul`, `lut_conv2d` -> `LutConv2D`."""
        special = {"matmul": "MatMul", "conv2d": "Conv2D"}
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
    def executorch_schema(self) -> str:
        """PyTorch schema of that variant, without the namespace."""
        return f"{self.name}.out({self._parameters}, Tensor(a!) out) -> Tensor(a!)"

    @property
    def _parameters(self) -> str:
        types = {"int": "int", "ints": "int[]", "string": "str"}
        inputs = [f"Tensor{'?' if i.optional else ''} {i.name}" for i in self.inputs]
        attributes = [f"{types[a.type]} {a.name}" for a in self.attributes]
        return f"{', '.join(inputs)}, *, {', '.join(attributes)}"


_LUT_FACTOR = (
    OpInput("codes", "uint8", "[T, S, P, 16, 4]"),
    OpInput("codebooks", "int8", "[B, 2**bits]"),
    OpInput("tile_book", "uint16", "[T]"),
    OpInput("scales", "int8", "[T, blocks, 16]"),
    OpInput("row_scale", "float32", "[T, 16]"),
    OpInput("row_index", "int32", "[T*16]", optional=True),
)
_BIAS = OpInput("bias", "float32", "[N]", optional=True)
_LUT_ATTRIBUTES = (OpAttribute("N", "int"), OpAttribute("K", "int"), OpAttribute("bits", "int"), OpAttribute("block_size", "int"))
_COMPUTE = OpAttribute("compute", "string")  # "int8" or "float"

LUT_MATMUL = Operator(
    "lut_matmul",
    "lut",
    inputs=(OpInput("x", "float32", "[..., K]"), *_LUT_FACTOR, _BIAS),
    attributes=(*_LUT_ATTRIBUTES, _COMPUTE),
    output=OpInput("y", "float32", "[..., N]"),
)
LUT_GATHER = Operator(
    "lut_gather",
    "lut",
    inputs=(OpInput("indices", "int64", "[...]"), *_LUT_FACTOR),
    attributes=_LUT_ATTRIBUTES,
    output=OpInput("y", "float32", "[..., K]"),
)
LUT_CONV2D = Operator(
    "lut_conv2d",
    "lut",
    inputs=(OpInput("x", "float32", "[batch, in_channels, height, width]"), *_LUT_FACTOR, _BIAS),
    attributes=(
        *_LUT_ATTRIBUTES,
        _COMPUTE,
        OpAttribute("kernel_shape", "ints"),
        OpAttribute("strides", "ints"),
        OpAttribute("pads", "ints"),  # top, left, bottom, right
        OpAttribute("dilations", "ints"),
        OpAttribute("group", "int"),
    ),
    output=OpInput("y", "float32", "[batch, N, out_height, out_width]"),
)

OPERATORS: dict[str, Operator] = {op.name: op for op in (LUT_MATMUL, LUT_GATHER, LUT_CONV2D)}

# Which operator runs a stage; a (format, op) that is absent runs on the runtime's own dense operators.
STAGE_OPERATORS: dict[tuple[str, StageOp], Operator] = {
    ("lut", "linear"): LUT_MATMUL,
    ("lut", "gather"): LUT_GATHER,
    ("lut", "conv"): LUT_CONV2D,
}
