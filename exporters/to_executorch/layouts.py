"""Memory layouts of a program: row-major throughout, as our kernels take tensors, and most of ExecuTorch's."""

from __future__ import annotations

from typing import Any

import torch
from executorch.exir.dialects._ops import ops as exir_ops
from executorch.exir.pass_base import ExportPass, NodeMetadata, ProxyValue
from torch.export import ExportedProgram

from edgecomp.exporters.to_executorch.names import operator_name
from edgecomp.ops import OPERATORS

_COPY = exir_ops.edge.dim_order_ops._clone_dim_order.default
_COPIES = (_COPY, exir_ops.edge.dim_order_ops._to_dim_order_copy.default)


def row_major_constants(program: ExportedProgram) -> None:
    """Lay parameters and buffers of a captured program out in row-major order, such as those of a channels-last model."""
    signature = program.graph_signature
    held = {**signature.inputs_to_parameters, **signature.inputs_to_buffers, **signature.inputs_to_lifted_tensor_constants}
    for node in program.graph.find_nodes(op="placeholder"):
        name = held.get(node.name, "")
        tensors = program.state_dict if name in program.state_dict else program.constants
        tensor = tensors.get(name)
        if not isinstance(tensor, torch.Tensor) or tensor.is_contiguous():
            continue
        ordered = tensor.detach().contiguous()
        tensors[name] = torch.nn.Parameter(ordered, requires_grad=False) if isinstance(tensor, torch.nn.Parameter) else ordered
        node.meta["val"] = node.meta["val"].contiguous()


class RowMajor(ExportPass):
    """Have every copy, conversion and empty tensor of an edge program lie in row-major order, before backends take their parts.

    PyTorch keeps an image of channels-last layout so through padding, convolutions and additions. A kernel of ExecuTorch that takes
    several tensors wants one order for all, and the order of what comes from our operators is the first.
    """

    def call_operator(self, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any], meta: NodeMetadata) -> ProxyValue:
        """The same call, its order changed where it has one; without what it was for, it is left out, as backends want it."""
        given = kwargs.get("dim_order")
        if given is None:
            return super().call_operator(op, args, kwargs, meta)
        order = list(range(len(given)))
        same = op in _COPIES and list(given) != order and kwargs.get("dtype") in (None, args[0].data.dtype)
        if same and [int(axis) for axis in args[0].data.dim_order()] == order:
            copied: ProxyValue = args[0]
            return copied
        return super().call_operator(op, args, {**kwargs, "dim_order": order}, meta)


class RowMajorInputs(ExportPass):
    """Copy what our operators are given where it lies in another order all the same, such as the output of a backend."""

    def call_operator(self, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any], meta: NodeMetadata) -> ProxyValue:
        """The same call, with copies in the place of such inputs."""
        if operator_name(op) in OPERATORS:
            args = tuple(self._row_major(argument) for argument in args)
        return super().call_operator(op, args, kwargs, meta)

    def _row_major(self, argument: Any) -> Any:
        if not isinstance(argument, ProxyValue) or not isinstance(argument.data, torch.Tensor):
            return argument
        order = list(range(argument.data.ndim))
        if [int(axis) for axis in argument.data.dim_order()] == order:
            return argument
        return super().call_operator(_COPY, (argument,), {"dim_order": order}, NodeMetadata(argument.node.meta))
