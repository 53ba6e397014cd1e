"""A captured program to an ONNX graph in which every packed layer is a node of our domain."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import onnx_ir as ir
import torch
from onnx.defs import OpSchema
from onnxscript.values import Op, Opset

from edgecomp.errors import ExportError, first_line
from edgecomp.exporters.capture import Capture
from edgecomp.exporters.to_onnx import cached_attention
from edgecomp.exporters.to_onnx.attention import decompose_attention
from edgecomp.ops import DOMAIN, DOMAIN_VERSION, NAMESPACE, OPERATORS, AttributeType, Operator

# The newest versions that ONNX Runtime 1.18 reads. Operators that came with an opset, such as Gelu with 20, are one node each.
OPSET = 21
MAX_IR_VERSION = 10

_ATTRIBUTE_TYPES: dict[AttributeType, OpSchema.AttrType] = {
    "int": OpSchema.AttrType.INT,
    "ints": OpSchema.AttrType.INTS,
    "float": OpSchema.AttrType.FLOAT,
    "string": OpSchema.AttrType.STRING,
}
_ONNX_TYPES = {"float32": "float"}


def lower(capture: Capture, input_names: Iterable[str], output_names: Iterable[str]) -> ir.Model:
    """Lower a program to ONNX; sizes carry the names of the model's specs, and nodes no trace of the machine.

    Raises:
        ExportError: an operator of the model has no ONNX counterpart.

    """
    try:
        with _quiet_exporter():
            program = torch.onnx.export(
                decompose_attention(capture.program),
                dynamo=True,
                opset_version=OPSET,
                custom_translation_table=_translations(),
                input_names=list(input_names),
                output_names=list(output_names),
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise ExportError(f"the model has no ONNX form: {_reason(error)}. Replace this operation in the model's forward") from error
    if program is None:
        raise ExportError("torch.onnx.export gave no model")
    model = program.model
    model.ir_version = min(model.ir_version, MAX_IR_VERSION)
    _keep_layer_norms(model)
    _name_sizes(model, capture)
    _drop_traces(model)
    return model


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence what says nothing to a user: PyTorch's own deprecations, no torchvision, translations without a signature."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logger.setLevel(level)


def _translations() -> dict[Callable, Callable]:
    namespace = getattr(torch.ops, NAMESPACE)
    ours = {getattr(namespace, operator.name).default: _translation(operator) for operator in OPERATORS.values()}
    return {**ours, **cached_attention.translations()}


def _translation(operator: Operator) -> Callable[..., Any]:
    # A plain function that calls an Op makes a node; an onnxscript function would be inlined, and the weights decompressed.
    op = Op(Opset(DOMAIN, DOMAIN_VERSION), operator.onnx_name, _schema(operator))

    def translate(*inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        return cast(ir.Value, op(*inputs, **attributes))

    return translate


def _schema(operator: Operator) -> OpSchema:
    def parameter(name: str, dtype: str) -> OpSchema.FormalParameter:
        return OpSchema.FormalParameter(name, f"tensor({_ONNX_TYPES.get(dtype, dtype)})")

    return OpSchema(
        operator.onnx_name,
        DOMAIN,
        DOMAIN_VERSION,
        # Optional inputs too are declared required: they are there on every node of the finished model.
        inputs=[parameter(declared.name, declared.dtype) for declared in operator.inputs],
        outputs=[parameter(operator.output.name, operator.output.dtype)],
        attributes=[OpSchema.Attribute(declared.name, _ATTRIBUTE_TYPES[declared.type]) for declared in operator.attributes],
    )


def _reason(error: BaseException) -> str:
    """The failing node and the innermost cause, out of the exporter's chain of errors."""
    chain = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    node = next((match[0] for link in chain if (match := re.search(r"node %?\w+", str(link)))), None)
    return first_line(chain[-1]) + (f" (at {node})" if node else "")


def _keep_layer_norms(model: ir.Model) -> None:
    """Write an Add in front of a LayerNormalization as a Sum, which means the same.

    ONNX Runtime turns the two into its SkipLayerNormalization, which takes almost four times as long on a processor.
    """
    for node in model.graph.all_nodes():
        added = node.inputs[0].producer() if node.op_type == "LayerNormalization" and node.inputs[0] is not None else None
        if added is not None and (added.domain, added.op_type) == ("", "Add"):
            added.op_type = "Sum"


def _name_sizes(model: ir.Model, capture: Capture) -> None:
    def named(dim: int | ir.SymbolicDim) -> int | str | None:
        if isinstance(dim, int) or dim.value is None:
            return dim if isinstance(dim, int) else None
        return re.sub(r"[A-Za-z_]\w*", lambda symbol: capture.dim_names.get(symbol[0], symbol[0]), str(dim.value))

    for value in _values(model.graph):
        if value.shape is not None:
            value.shape = ir.Shape([named(dim) for dim in value.shape])


def _drop_traces(model: ir.Model) -> None:
    """Drop the exporter's notes: stack traces hold paths of this machine, and all of them change the file from run to run."""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for value in _values(model.graph):
        value.metadata_props.clear()
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph.all_nodes():
        yield from node.outputs
