"""Models saved by `torch.export.save`: a `.pt2` file, which is code: pickled objects, and sizes that sympy evaluates."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.fx
from torch import nn
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind
from torch.utils import _pytree as pytree

from edgecomp.errors import ModelError, first_line
from edgecomp.models.base import LoadedModel
from edgecomp.models.bound import Bound
from edgecomp.models.shapes import BATCH
from edgecomp.progress import listed
from edgecomp.tensor import TensorSpec
from edgecomp.trust import Trust
from edgecomp.unfolding import convolution_of, geometry_of


def load(spec: str, trust: Trust) -> LoadedModel:
    """The program as modules, with linear, embedding and convolution modules where the original had them.

    Raises:
        ModelError: not trusted, unreadable, of another type than float32, or an input is no tensor.

    """
    path = Path(spec)
    if not path.is_file():
        raise ModelError(f"{path} must be a file written by torch.export.save, but there is no such file")
    if not trust.code:
        raise ModelError(
            f"reading {path} runs code that it may hold (PyTorch's .pt2 files have pickled objects and formulas): give "
            "--trust-code if you trust who made it"
        )
    program = _read(path)
    inputs, limits, minimums = _inputs(program)
    _require_float32(program, inputs, path)
    _place_sizes(program)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of PyTorch's own trees
        module = torch.export.unflatten(program)
    left_out = _leave_out(module, _unread(program))
    for name, child in list(module.named_modules()):
        for node in child.graph.nodes if isinstance(getattr(child, "graph", None), torch.fx.Graph) else ():
            node.meta.clear()  # tensors of symbolic sizes, with which the module could not be copied
        layer = _layer(child)
        if layer is not None:
            parent, _, leaf = name.rpartition(".")
            setattr(module.get_submodule(parent), leaf, layer)
    bound = _Program(module, _ByTree(program.module_call_graph[0].signature.in_spec, _constants(program))).eval()
    notices = (f"left out, since no output depends on them: {listed(left_out)}",) if left_out else ()
    source = {"kind": "program", "model": spec}
    return LoadedModel(bound, inputs, (), "generic", source, files=[path], limits=limits, minimums=minimums, notices=notices)


def _read(path: Path) -> ExportedProgram:
    """The program of a file. What PyTorch logs of one that it cannot read is the reason, and says so in the message alone."""
    reasons: list[BaseException] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info and record.exc_info[1] is not None:
                reasons.append(record.exc_info[1])

    logger, handler = logging.getLogger("torch.export"), Keep()
    propagated = logger.propagate
    others = logger.handlers[:]
    logger.handlers[:], logger.propagate = [handler], False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of PyTorch's own deprecations
            return torch.export.load(path)
    except Exception as error:
        reason = reasons[0] if reasons else error
        raise ModelError(
            f"{path} must be a file written by torch.export.save that PyTorch {torch.__version__} reads: {type(reason).__name__}: "
            f"{first_line(reason)}"
        ) from error
    finally:
        logger.handlers[:], logger.propagate = others, propagated


def _require_float32(program: ExportedProgram, inputs: Sequence[TensorSpec], path: Path) -> None:
    """Refuse programs that compute in another type: their graphs are fixed, and weights are float32 here while a layer runs.

    Raises:
        ModelError: naming the parameter or input, and the way out.

    """
    held = {f"the input {spec.name}": getattr(torch, spec.dtype) for spec in inputs}
    held |= {name: parameter.dtype for name, parameter in program.named_parameters()}
    other = next(((name, dtype) for name, dtype in held.items() if dtype.is_floating_point and dtype != torch.float32), None)
    if other is not None:
        name, dtype = other[0], str(other[1]).removeprefix("torch.")
        raise ModelError(
            f"a program must compute in float32, as exported models do, and {name} of {path} is {dtype}: export the program of "
            "model.float(), with inputs of float32"
        )


def _place_sizes(program: ExportedProgram) -> None:
    """Say of nodes that were read without their module that they are the model's own: sizes of derived dimensions, `4 * q`."""
    stacks = [stack for node in program.graph.nodes if (stack := node.meta.get("nn_module_stack"))]
    if not stacks:
        return
    root = dict(list(stacks[0].items())[:1])
    for node in program.graph.nodes:
        if node.op == "call_function" and not node.meta.get("nn_module_stack"):
            node.meta["nn_module_stack"] = root


def _unread(program: ExportedProgram) -> list[str]:
    """Parameters and buffers that no node reads, by any of the names that a shared one has."""
    signature = program.graph_signature
    held = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    values = {**program.constants, **program.state_dict}
    nodes = [node for node in program.graph.find_nodes(op="placeholder") if node.name in held]
    read = {_memory(values[held[node.name]]) for node in nodes if node.users}
    return [name for node in nodes if not node.users and _memory(values[name := held[node.name]]) not in read]


def _memory(tensor: torch.Tensor) -> tuple[int, int]:
    return tensor.data_ptr(), tensor.untyped_storage().nbytes()


def _leave_out(module: nn.Module, names: Sequence[str]) -> list[str]:
    """Drop tensors of a module; returns the names of the modules that they were all of, or their own."""
    for name in names:
        parent, _, leaf = name.rpartition(".")
        holder = module.get_submodule(parent)
        holder._parameters.pop(leaf, None)
        holder._buffers.pop(leaf, None)
    parents = ((name, name.rpartition(".")[0]) for name in names)
    return list(
        dict.fromkeys(name if not parent or module.get_submodule(parent).state_dict() else parent for name, parent in parents)
    )


class _Program(Bound):
    """A program's module, which is copied without PyTorch's warnings of its own."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Program:
        copied = self.__class__.__new__(self.__class__)
        memo[id(self)] = copied
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied


@dataclass(frozen=True)
class _ByTree:
    """Inputs in the order of the program, among the constants that it was exported with, in the form that it takes.

    Args:
        form: of positional arguments and keywords.
        constants: values of the arguments that are no tensors, by position.

    """

    form: pytree.TreeSpec
    constants: Mapping[int, Any]

    def arguments(self, inputs: Sequence[torch.Tensor]) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """As `Binding` says."""
        given = iter(inputs)
        leaves = [self.constants[i] if i in self.constants else next(given) for i in range(self.form.num_leaves)]
        arguments, keywords = pytree.tree_unflatten(leaves, self.form)
        return arguments, keywords


def _constants(program: ExportedProgram) -> dict[int, Any]:
    given = [spec.arg for spec in program.graph_signature.input_specs if spec.kind is InputKind.USER_INPUT]
    return {position: argument.value for position, argument in enumerate(given) if isinstance(argument, ConstantArgument)}


def _inputs(program: ExportedProgram) -> tuple[tuple[TensorSpec, ...], dict[str, int], dict[str, int]]:
    """The inputs, and the largest and smallest values of their dynamic sizes, named as those that samples tell (`specs_of`)."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    names: dict[str, str] = {}  # by symbol
    specs = []
    for argument in (spec.arg for spec in program.graph_signature.input_specs if spec.kind is InputKind.USER_INPUT):
        if isinstance(argument, ConstantArgument):
            continue
        value = values.get(argument.name)
        if not isinstance(value, torch.Tensor):
            raise ModelError(
                f"inputs of an exported program must be tensors or constants, but {argument.name} is {type(value).__name__}"
            )
        dims: list[int | str] = []
        for axis, size in enumerate(value.shape):
            named = BATCH if axis == 0 and BATCH not in names.values() else f"{argument.name}_{axis}"
            dims.append(size if isinstance(size, int) else names.setdefault(str(size), named))
        specs.append(TensorSpec(argument.name, str(value.dtype).removeprefix("torch."), tuple(dims)))
    ranges = {str(symbol): ranges for symbol, ranges in program.range_constraints.items()}
    told = {name: ranges[symbol] for symbol, name in names.items() if symbol in ranges}
    limits = {name: int(given.upper) for name, given in told.items() if getattr(given.upper, "is_Integer", False)}
    # PyTorch has 2 for the smallest size where nothing was said, and a program runs for 1 all the same.
    minimums = {name: int(given.lower) for name, given in told.items() if given.lower > 2}
    return tuple(specs), limits, minimums


def _layer(module: nn.Module) -> nn.Module | None:
    """The ordinary layer that an unflattened leaf computes, or None where it computes anything else."""
    graph = getattr(module, "graph", None)
    weight = module._parameters.get("weight")
    if graph is None or weight is None:
        return None
    calls = [node for node in graph.nodes if node.op == "call_function"]
    if len(calls) != 1:
        return None
    (call,) = calls
    bias = module._parameters.get("bias")
    geometry = geometry_of(call)
    if geometry is not None:
        return convolution_of(weight, bias, geometry)
    layer: nn.Linear | nn.Embedding
    if call.target is torch.ops.aten.linear.default:
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    elif call.target is torch.ops.aten.embedding.default:
        layer = nn.Embedding(weight.shape[0], weight.shape[1], device="meta")
    else:
        return None
    layer.weight = weight
    if bias is not None and not isinstance(layer, nn.Embedding):
        layer.bias = bias
    return layer.eval()
