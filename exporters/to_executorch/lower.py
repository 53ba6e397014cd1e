"""A captured program to ExecuTorch's, in which every packed layer is a call of our operators."""

from __future__ import annotations

import logging
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node
from torch.library import Library

from edgecomp.checkpoint import CompressedModel
from edgecomp.errors import ExportError, first_line
from edgecomp.exported.executorch_file import IDENTITY_METHOD, INPUT_NAMES_METHOD, MANIFEST_METHOD, OUTPUT_NAMES_METHOD
from edgecomp.exporters.capture import Capture
from edgecomp.exporters.packed import check_calls, factor_of_buffer
from edgecomp.exporters.to_executorch.names import operator_name, qualified
from edgecomp.graph import describe, readers_within
from edgecomp.ops import NAMESPACE, OPERATORS
from edgecomp.support import EXECUTORCH_AXES, convolution_axes

# Kernels read planes of 64 bytes; the program's file is mapped, so that an offset is an address.
CONSTANT_ALIGNMENT = 64
_CODES_ARGUMENT = 1  # x, then the factor's arrays in the format's order


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what says nothing to a user: libraries of other machines that do not load, deprecations of PyTorch's own."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


with quiet():
    from executorch.exir import (
        EdgeCompileConfig,
        EdgeProgramManager,
        ExecutorchBackendConfig,
        ExecutorchProgramManager,
        to_edge_transform_and_lower,
    )
    from executorch.runtime import Runtime

    from edgecomp.exporters.to_executorch.in_place import InPlaceMemory, write_in_place
    from edgecomp.exporters.to_executorch.layouts import RowMajor, RowMajorInputs, row_major_constants
    from edgecomp.exporters.to_executorch.remainders import FlooredRemainders
    from edgecomp.exporters.to_executorch.xnnpack import partitioner

# Functions of sizes that ExecuTorch's runtime has, and whose verifier asserts that there are none: it knows operators alone.
_SIZE_FUNCTIONS: list[Any] = [torch.sym_min, torch.sym_max, torch.sym_int, torch.sym_float, torch.sym_not, torch.sym_ite]

# The variants that ExecuTorch calls. They have no implementation here: PyTorch never runs them.
_library = Library(NAMESPACE, "FRAGMENT")
for _operator in OPERATORS.values():
    _library.define(_operator.executorch_schema)


def lower(capture: Capture, model: CompressedModel, manifest: str, methods: Mapping[str, Any] | None = None) -> EdgeProgramManager:
    """Lower a program to ExecuTorch's edge dialect, and to XNNPACK what it takes.

    Args:
        capture: the program.
        model: what it was made of.
        manifest: what the program says of itself.
        methods: more methods without inputs, and what they return.

    Raises:
        ExportError: an operation of the model has no such form, or a packed layer would not run packed.

    """
    row_major_constants(capture.program)
    try:
        with quiet():
            edge = to_edge_transform_and_lower(
                capture.program,
                transform_passes=[FlooredRemainders(), RowMajor()],
                compile_config=EdgeCompileConfig(_core_aten_ops_exception_list=_SIZE_FUNCTIONS),
                partitioner=[partitioner()],
                constant_methods={
                    MANIFEST_METHOD: manifest,
                    IDENTITY_METHOD: str(model.identity),
                    INPUT_NAMES_METHOD: [spec.name for spec in model.inputs],
                    OUTPUT_NAMES_METHOD: list(model.outputs),
                    **(methods or {}),
                },
            )
    except Exception as error:  # exir and its backends raise errors of many unrelated classes
        raise _refused(capture, error) from error
    write_in_place(edge.exported_program())
    _check_packed(edge.exported_program(), model)
    return edge


def finish(edge: EdgeProgramManager, capture: Capture, data_name: str | None) -> ExecutorchProgramManager:
    """Plan memory and emit the program, its constants for a data file of that name where there is one.

    Raises:
        ExportError: an operation of the model has no ExecuTorch form or no kernel.

    """
    config = ExecutorchBackendConfig(
        passes=[RowMajorInputs()],
        memory_planning_pass=InPlaceMemory(),
        constant_tensor_alignment=CONSTANT_ALIGNMENT,
        external_constants=False if data_name is None else lambda _: data_name,
    )
    try:
        with quiet():
            program = edge.to_executorch(config)
    except Exception as error:  # as above
        raise _refused(capture, error) from error
    _check_kernels(program, edge)
    return program


def _check_packed(program: ExportedProgram, model: CompressedModel) -> None:
    factors, buffers = factor_of_buffer(model), program.graph_signature.inputs_to_buffers
    found = set()
    for node in program.graph.nodes:
        operator = OPERATORS.get(operator_name(node.target))
        if operator is not None:
            found.add((factors.get(buffers.get(node.args[_CODES_ARGUMENT].name, ""), ""), operator))
        for value in node.all_input_nodes:
            for inner, reader in readers_within(node, value):
                operator = OPERATORS.get(operator_name(reader.target))
                if operator is not None and reader.args[_CODES_ARGUMENT] is inner:
                    found.add((factors.get(buffers.get(value.name, ""), ""), operator))
    check_calls(model, found)


def _check_kernels(program: ExecutorchProgramManager, edge: EdgeProgramManager) -> None:
    """Refuse an operation that ExecuTorch's own kernels do not have: the program would be refused on the device."""
    with quiet():
        known = Runtime.get().operator_registry.operator_names | {
            name for operator in OPERATORS.values() for name in operator.executorch_names
        }
    for plan in program.executorch_program.execution_plan:
        for called in plan.operators:
            name = f"{called.name}.{called.overload}" if called.overload else called.name
            if name in known:
                continue
            where = next(
                (describe(node) for node in edge.exported_program().graph.nodes if called.name in qualified(node.target)), name
            )
            raise ExportError(
                f"ExecuTorch has no kernel for {name}, which {where} needs: replace this operation in the model's forward"
            )


def check_convolutions(program: ExportedProgram) -> None:
    """Refuse convolutions over three axes, which ExecuTorch lowers, and whose kernel ends a program when it runs.

    Raises:
        ExportError: naming the node and its module.

    """
    for node in program.graph.nodes:
        if convolution_axes(node) > EXECUTORCH_AXES:
            raise ExportError(
                f"ExecuTorch has kernels for convolutions over one and two axes alone, and {describe(node)} is over three: compute "
                "it by two-dimensional ones, or export the model to onnx"
            )


def check_loops(program: ExportedProgram) -> None:
    """Refuse loops whose state has a dynamic size: ExecuTorch keeps it at its largest, into which no smaller one is copied.

    Raises:
        ExportError: naming the node and its module.

    """
    for node in program.graph.find_nodes(op="call_function", target=torch.ops.higher_order.scan):
        for carried in node.args[1]:
            dynamic = [str(size) for size in carried.meta["val"].shape if not isinstance(size, int)]
            if dynamic:
                raise ExportError(
                    f"ExecuTorch's loops carry states of fixed sizes alone, and that of {describe(node)} has a dynamic one, most "
                    "likely the batch: fix it (--max-size batch=1, or `--dim INPUT=SIZES` of compress), or export the model to onnx"
                )


def _refused(capture: Capture, error: Exception) -> ExportError:
    """The error that names the node and module of the operation which a message is about."""
    text = str(error)
    with quiet():
        programs = (capture.program, capture.program.run_decompositions({}))  # the operation may be what another one became
    nodes = (node for program in programs for node in program.graph.nodes if node.op == "call_function")
    node = next((node for node in nodes if _is_named(node.target, text)), None) or _node_at(error)
    where = "" if node is None else f" (at {describe(node)})"
    reason = first_line(error).rstrip('".') or type(error).__name__
    return ExportError(f"the model has no ExecuTorch form: {reason}{where}. Replace this operation in the model's forward")


def _node_at(error: BaseException) -> Node | None:
    """The node that was being worked on when an error was raised, by the frames that it went through: many messages name none."""
    links = [error]
    while (cause := links[-1].__cause__ or links[-1].__context__) is not None:
        links.append(cause)
    for link in reversed(links):
        frames = [frame for frame, _ in traceback.walk_tb(link.__traceback__)]
        for value in (value for frame in reversed(frames) for value in frame.f_locals.values()):
            if isinstance(value, Node) and value.op == "call_function":
                return value
    return None


def _is_named(target: Any, text: str) -> bool:
    if not isinstance(target, torch._ops.OpOverload):
        return False
    return str(target) in text or target.name() in text
