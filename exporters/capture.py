"""The one capture that every target lowers: `torch.export` of the packed model, with its dynamic sizes named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.utils._sympy.value_ranges import ValueRanges

from edgecomp.checkpoint import CompressedModel
from edgecomp.decisions import conditions
from edgecomp.errors import ExportError
from edgecomp.exporters.packed import check_readers
from edgecomp.graph import input_sizes
from edgecomp.models.bound import Bound
from edgecomp.modules import PackedFactor
from edgecomp.tensor import TensorSpec
from edgecomp.trace import trace


@dataclass(frozen=True)
class Capture:
    """An exported program.

    Args:
        program: the graph, in which packed layers are calls of our operators.
        dim_names: the name in the model's `TensorSpec`s of each of the program's symbols.
        conditions: that sizes must meet for the program to be right; empty where all do.

    """

    program: ExportedProgram
    dim_names: Mapping[str, str]
    conditions: Sequence[str] = ()

    @property
    def limits(self) -> dict[str, int]:
        """The largest value of each dynamic size that has one, by name."""
        bounds = {str(symbol): ranges.upper for symbol, ranges in self.program.range_constraints.items()}
        return {
            name: int(bounds[symbol]) for symbol, name in self.dim_names.items() if getattr(bounds.get(symbol), "is_Integer", False)
        }


def capture(model: CompressedModel, max_sizes: Mapping[str, int] | None = None) -> Capture:
    """Trace the packed model with dynamic sizes where its specs have names.

    Args:
        model: the model.
        max_sizes: upper bounds of sizes by their name; a size of at most 1 is fixed. Without one a size is as free as the model
            leaves it.

    Raises:
        ExportError: the model is not float32 or cannot be traced, a named size is not free, or forward reads packed buffers itself.

    """
    if not (isinstance(model.module, Bound) and model.module.keeps):  # a cache may be of another type
        _check_float32(model.module)
    found = trace(model, max_sizes)
    program = found.program
    check_readers(program, model)
    bounds = {**model.limits, **(max_sizes or {})}
    _bound(program, model.inputs, bounds)
    names = _dim_names(program, model.inputs)
    wanted = [f"{name} >= {size}" for name, size in model.minimums.items() if name in names.values()]
    return Capture(program, names, [*wanted, *conditions(found.decisions, bounds)])


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


def _bound(program: ExportedProgram, specs: tuple[TensorSpec, ...], max_sizes: Mapping[str, int]) -> None:
    """Lower the upper bounds of dynamic sizes: afterwards, since torch.export takes no size below 2 and refuses it as a bound."""
    for _, dim, size in input_sizes(program, specs):
        if isinstance(size, int) or dim not in max_sizes:
            continue
        symbol, ranges = size.node.expr, size.node.shape_env.var_to_range
        bounded = ranges[symbol] & ValueRanges(2, max_sizes[str(dim)])
        ranges[symbol] = program.range_constraints[symbol] = bounded


def _dim_names(program: ExportedProgram, specs: tuple[TensorSpec, ...]) -> dict[str, str]:
    names: dict[str, str] = {}
    for spec, dim, size in input_sizes(program, specs):
        if isinstance(dim, str) and not isinstance(size, int) and names.setdefault(str(size), dim) != dim:
            raise ExportError(
                f"the model needs {dim} of input {spec.name} to equal {names[str(size)]}: "
                "give both sizes one name in its input specs"
            )
    return names
