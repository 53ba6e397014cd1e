"""The one capture that every target lowers: `torch.export` of the packed model, with its dynamic sizes named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram
from torch.utils._sympy.value_ranges import ValueRanges

from edgecomp.checkpoint import CompressedModel
from edgecomp.errors import ExportError, first_line
from edgecomp.exporters.packed import check_readers
from edgecomp.modules import PackedFactor
from edgecomp.tensor import TensorSpec

# Example sizes of dynamic dimensions, in order of appearance. Primes that no model has as a fixed size, since torch.export takes a
# dimension for fixed where the model compares it with a size of its own; large enough to survive a convolutional network's strides.
_EXAMPLE_SIZES = (3, 37, 41, 43, 47, 53, 59, 61)


@dataclass(frozen=True)
class Capture:
    """An exported program.

    Args:
        program: the graph, in which packed layers are calls of our operators.
        dim_names: the name in the model's `TensorSpec`s of each of the program's symbols.

    """

    program: ExportedProgram
    dim_names: Mapping[str, str]


def capture(model: CompressedModel, max_sizes: Mapping[str, int] | None = None) -> Capture:
    """Trace the packed model with dynamic sizes where its specs have names.

    Args:
        model: the model.
        max_sizes: upper bounds of sizes by their name; a size of at most 1 is fixed. Without one a size is as free as the model
            leaves it.

    Raises:
        ExportError: the model is not float32 or cannot be traced, a named size is not free, or forward reads packed buffers itself.

    """
    _check_float32(model.module)
    max_sizes = max_sizes or {}
    sizes = _example_sizes(model.inputs, max_sizes)
    examples = tuple(_example(spec, sizes) for spec in model.inputs)
    # DYNAMIC, not named Dims: those demand the exact range that the model implies (such as sequence <= 512), which only it knows.
    dynamic_shapes = tuple(
        {axis: Dim.DYNAMIC for axis, dim in enumerate(spec.dims) if isinstance(dim, str) and max_sizes.get(dim) != 1}
        for spec in model.inputs
    )
    try:
        with torch.no_grad():
            program = torch.export.export(model.module.eval(), examples, dynamic_shapes=dynamic_shapes, strict=False)
    except Exception as error:  # torch.export raises errors of many unrelated classes
        shapes = ", ".join(f"{spec.name} {list(example.shape)}" for spec, example in zip(model.inputs, examples, strict=True))
        raise ExportError(
            f"torch.export cannot trace the model: {first_line(error)} (traced with {shapes}). Make forward free of control flow "
            "that depends on values, or fix the size that the message names by an integer in the model's input specs"
        ) from error
    check_readers(program, model)
    _bound(program, model.inputs, max_sizes)
    return Capture(program, _dim_names(program, model.inputs))


def _check_float32(module: torch.nn.Module) -> None:
    for name, tensor in _unpacked_tensors(module):
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise ExportError(
                f"weights that are not packed must be float32 for export, got {tensor.dtype} at {name}: "
                "convert the model with .float()"
            )


def _unpacked_tensors(module: torch.nn.Module) -> Iterator[tuple[str, Tensor]]:
    for prefix, submodule in module.named_modules():
        if not isinstance(submodule, PackedFactor):
            yield from submodule.named_parameters(prefix, recurse=False)
            yield from submodule.named_buffers(prefix, recurse=False)


def _example_sizes(specs: tuple[TensorSpec, ...], max_sizes: Mapping[str, int]) -> dict[str, int]:
    names = list(dict.fromkeys(dim for spec in specs for dim in spec.dims if isinstance(dim, str)))
    if len(names) > len(_EXAMPLE_SIZES):
        raise ExportError(f"a model may have {len(_EXAMPLE_SIZES)} dynamic sizes at most, got {', '.join(names)}")
    sizes: dict[str, int] = {}
    for name, example in zip(names, _EXAMPLE_SIZES, strict=False):
        size = min(example, max_sizes.get(name, example))
        while size in sizes.values() and size > 2:  # torch.export takes equal sizes for one
            size -= 1
        sizes[name] = size
    return sizes


def _example(spec: TensorSpec, sizes: Mapping[str, int]) -> Tensor:
    """Ones: valid as an index of any table with two rows, and as a mask."""
    dtype = getattr(torch, spec.dtype, None)
    if not isinstance(dtype, torch.dtype):
        raise ExportError(f"input {spec.name} has the unknown dtype {spec.dtype!r}")
    return torch.ones([sizes[dim] if isinstance(dim, str) else dim for dim in spec.dims], dtype=dtype)


def _bound(program: ExportedProgram, specs: tuple[TensorSpec, ...], max_sizes: Mapping[str, int]) -> None:
    """Lower the upper bounds of dynamic sizes: afterwards, since torch.export takes no size below 2 and refuses it as a bound."""
    values = {node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"}
    for spec, input_name in zip(specs, program.graph_signature.user_inputs, strict=True):
        for dim, size in zip(spec.dims, values[input_name].shape, strict=True):
            if isinstance(size, int) or dim not in max_sizes:
                continue
            symbol, ranges = size.node.expr, size.node.shape_env.var_to_range
            bounded = ranges[symbol] & ValueRanges(2, max_sizes[str(dim)])
            ranges[symbol] = program.range_constraints[symbol] = bounded


def _dim_names(program: ExportedProgram, specs: tuple[TensorSpec, ...]) -> dict[str, str]:
    values = {node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"}
    names: dict[str, str] = {}
    for spec, input_name in zip(specs, program.graph_signature.user_inputs, strict=True):
        for dim, size in zip(spec.dims, values[input_name].shape, strict=True):
            if isinstance(dim, str) and not isinstance(size, int) and names.setdefault(str(size), dim) != dim:
                raise ExportError(
                    f"the model needs {dim} of input {spec.name} to equal {names[str(size)]}: "
                    "give both sizes one name in its input specs"
                )
    return names
