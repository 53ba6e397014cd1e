"""`torch.export` of a model with its dynamic sizes: what every target lowers, and what tells before the passes that none could."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import re
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import sympy
import torch
from torch import SymInt, Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from edgecomp.decisions import Decision, Question, decisions, noted
from edgecomp.errors import ExportError, first_line
from edgecomp.graph import describe, input_sizes, written_by
from edgecomp.models import LoadedModel, body_of
from edgecomp.models.bound import Bound
from edgecomp.recurrence import Loops
from edgecomp.tensor import TensorSpec

# Example sizes of dynamic dimensions, in order of appearance. Primes that no model has as a fixed size, since torch.export takes a
# dimension for fixed where the model compares it with a size of its own. The first are large enough to survive a convolutional
# network's strides, the second small enough for short tables of positions.
_EXAMPLE_SIZES = ((3, 37, 41, 43, 47, 53, 59, 61), (2, 7, 11, 13, 17, 19, 23, 29))
_TORCH = Path(torch.__file__).parent


@dataclass(frozen=True)
class Trace:
    """What a model became.

    Args:
        program: its graph.
        decisions: what its forward asked of sizes; other sizes than those that answer alike may want another graph.
        kept: attributes that forward leaves for its next run, and that an exported file has not.

    """

    program: ExportedProgram
    decisions: tuple[Decision, ...] = ()
    kept: tuple[str, ...] = ()


def trace(model: LoadedModel, max_sizes: Mapping[str, int] | None = None) -> Trace:
    """Trace a bound model of float32 weights with dynamic sizes where its specs have names.

    Of the ways that forward has for different sizes, it is that of the model's examples, if it has some.

    Args:
        model: the model.
        max_sizes: upper bounds of sizes by their name; a size of at most 1 is fixed.

    Raises:
        ExportError: the model cannot be traced, changes its buffers, or a named size is not free: with the module, the line, and
            the remedy.

    """
    bounds = {**model.limits, **(max_sizes or {})}
    failure: ExportError | None = None
    found: list[Trace] = []
    for sizes in _attempts(model, bounds):
        examples = [_example(spec, sizes) for spec in model.inputs]
        try:
            traced = _export(model, examples, sizes, bounds)
            if isinstance(model.module, Bound) and _changes_inputs(traced.program):
                # Runtimes would give the changed input back as one more output, or change their caller's memory.
                copying = copy.copy(model.module)
                copying.copies_inputs = True
                traced = _export(replace(model, module=copying), examples, sizes, bounds)
        except ExportError as error:
            if _depends_on_values(error) or error.__cause__ is None:  # other sizes would not help
                raise
            failure = failure or error
            continue
        if all(decision.holds(model.examples) for decision in traced.decisions):
            return traced
        found.append(traced)
    if found:
        return found[0]
    assert failure is not None  # there is an attempt
    raise failure


def _require_stateless(program: ExportedProgram, assigned: list[str]) -> None:
    buffers = program.graph_signature.inputs_to_buffers
    written = {buffers[node.name] for part in program.graph.nodes for node in written_by(part) if node.name in buffers}
    changed = {*assigned, *(name.removeprefix("body.") for name in written)}
    if changed:
        names = ", ".join(sorted(changed)[:5])
        raise ExportError(
            f"forward changes the buffers {names}, and what it leaves in them would be lost between two runs of an exported file: "
            "take them as inputs and return what they become, which --state of compress does for registered buffers "
            "(self.register_buffer)"
        )


def _changes_inputs(program: ExportedProgram) -> bool:
    inputs = set(program.graph_signature.user_inputs)
    return any(node.name in inputs for part in program.graph.nodes for node in written_by(part))


def _export(model: LoadedModel, examples: list[Tensor], sizes: Mapping[str, int], bounds: Mapping[str, int]) -> Trace:
    # DYNAMIC, not named Dims: those demand the exact range that the model implies (such as sequence <= 512), which only it knows.
    shapes: tuple[Any, ...] = tuple(
        {axis: Dim.DYNAMIC for axis, dim in enumerate(spec.dims) if isinstance(dim, str) and bounds.get(dim) != 1}
        for spec in model.inputs
    )
    if isinstance(model.module, Bound):
        shapes = (shapes,)  # the one parameter *inputs
    printed = io.StringIO()  # torch.export prints graphs where it fails, and logs what the error says
    run = _Run(model.module)
    with run.watched(), noted() as questions, quiet_logger("torch._subclasses.fake_tensor"):
        try:
            with torch.no_grad(), Loops(), contextlib.redirect_stderr(printed), warnings.catch_warnings():
                # Of attributes that layers renew at each run, such as lists of weights; tensors that change are refused below.
                warnings.filterwarnings("ignore", message="The tensor attributes? .* during export", category=UserWarning)
                program = torch.export.export(model.module, tuple(examples), dynamic_shapes=shapes, strict=False)
        except Exception as error:  # torch.export raises errors of many unrelated classes
            given = ", ".join(f"{spec.name} {list(example.shape)}" for spec, example in zip(model.inputs, examples, strict=True))
            where = next((f", in module {name}" for name in reversed(run.running) if name), "")
            raise ExportError(
                f"the model must be traceable, but {_cause(error, model.inputs)}{where}{_line_of(error)} (traced with {given}). "
                f"{_remedy(error, model.inputs)}"
            ) from error
    sys.stderr.write(printed.getvalue())
    if not (isinstance(model.module, Bound) and model.module.keeps):
        _require_stateless(program, run.assigned)
    dynamic = {str(dim): size for _, dim, size in input_sizes(program, model.inputs) if isinstance(size, SymInt)}
    asked = [*questions, *_keep_dynamic_axes(program)]
    return Trace(program, decisions(asked, dynamic, sizes), tuple(run.kept))


def _keep_dynamic_axes(program: ExportedProgram) -> list[Question]:
    """Have no node drop an axis of dynamic size, as none did in the trace, whose sizes are never 1; gives what it asked thereby.

    Runtimes take such nodes by their word, and refuse an axis that is longer.
    """
    found = []
    for node in program.graph.nodes:
        if node.op != "call_function" or node.target not in _SQUEEZES:
            continue
        shape = node.args[0].meta["val"].shape
        given = node.args[1] if len(node.args) > 1 else range(len(shape))
        axes = [axis % len(shape) for axis in ((given,) if isinstance(given, int) else given)]
        dynamic = [size for axis in axes if isinstance(size := shape[axis], SymInt)]
        if dynamic:
            found += [Question(sympy.Ne(size.node.expr, 1), f"squeeze, {describe(node)}") for size in dynamic]
            fixed = [axis for axis in axes if shape[axis] == 1 and isinstance(shape[axis], int)]
            node.target = torch.ops.aten.squeeze.dims if fixed else torch.ops.aten.clone.default
            node.args = (node.args[0], fixed) if fixed else node.args[:1]
    program.graph_module.recompile()
    return found


_SQUEEZES = (torch.ops.aten.squeeze.default, torch.ops.aten.squeeze.dim, torch.ops.aten.squeeze.dims)


@contextlib.contextmanager
def quiet_logger(name: str) -> Iterator[None]:
    """A logger says errors alone meanwhile, and not these where they are raised too."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _depends_on_values(error: BaseException) -> bool:
    return any("DataDependent" in type(link).__name__ or "data-dependent" in str(link) for link in _chain(error))


def _cause(error: Exception, inputs: Sequence[TensorSpec]) -> str:
    if _depends_on_values(error):
        return "its forward chooses by values of tensors"
    fixed = _fixed_sizes(error, inputs)
    if fixed:
        return f"its forward takes {' and '.join(f'{size} of {name}' for name, size in fixed.items())} for fixed"
    return f"torch.export fails: {first_line(error)}"


def _remedy(error: Exception, inputs: Sequence[TensorSpec]) -> str:
    if _depends_on_values(error):
        return "Replace `if tensor...` and `.item()` by torch.where or a mask, or choose outside of the model"
    fixed = _fixed_sizes(error, inputs)
    if fixed:
        dims = {spec.name: ",".join("NUMBER" if dim in fixed.values() else str(dim) for dim in spec.dims) for spec in inputs}
        given = " ".join(f"--dim {name}={dims[name]}" for name in fixed)
        return f"Fix it, with samples of that size alone (`{given}` of compress, or TensorSpecs), or free forward of loops over it"
    return (
        "Make forward free of control flow that depends on values, or fix sizes: by integers in the model's TensorSpecs, or by "
        "`--dim INPUT=SIZES` of compress"
    )


def _fixed_sizes(error: Exception, inputs: Sequence[TensorSpec]) -> dict[str, str]:
    """Dynamic sizes that torch.export names as fixed by the model, by input."""
    found: dict[str, str] = {}
    if "Constraints violated" in str(error):
        for which, axis in re.findall(r"L\['(?:inputs'\]\[)?(\w+)'?\]\.size\(\)\[(\d+)\]", str(error)):
            spec = inputs[int(which)] if which.isdecimal() else next((spec for spec in inputs if spec.name == which), None)
            if spec is not None:
                found.setdefault(spec.name, str(spec.dims[int(axis)]))
    return found


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _line_of(error: Exception) -> str:
    """The innermost line of the model's own code, if the error came from one."""
    for link in _chain(error):
        frames = [frame for frame in traceback.extract_tb(link.__traceback__) if _TORCH not in Path(frame.filename).parents]
        frames = [frame for frame in frames if Path(frame.filename) != Path(__file__) and frame.name == "forward"]
        if frames:
            return f', at "{frames[-1].line}"'
    return ""


class _Run:
    """One run of a model: which modules run, outermost first, and what it leaves behind in their attributes."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._names = {id(part): name for name, part in body_of(module).named_modules()}
        self._before: dict[str, object] = {}
        self.running: list[str] = []  # as it was when an error left them
        self.assigned: list[str] = []  # tensors, buffers among them, in whose place there are others
        self.kept: list[str] = []  # numbers that are others, and tensors where there were none

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        hooks = [register_module_forward_pre_hook(self._enter), register_module_forward_hook(self._leave)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _enter(self, part: nn.Module, _: Any) -> None:
        self.running.append(self._names.get(id(part), ""))
        if part is self._module:
            self._before = self._held()

    def _leave(self, part: nn.Module, _: Any, __: Any) -> None:
        self.running.pop()
        if part is self._module:
            changed = [(name, value) for name, value in self._held().items() if value != self._before.get(name)]
            self.assigned = [name for name, value in changed if isinstance(self._before.get(name), _Identity)]
            self.kept = [name for name, value in changed if name not in self.assigned and value is not None]

    def _held(self) -> dict[str, object]:
        """Buffers and attributes, as far as what they are can be told by a comparison."""
        return {
            f"{path}.{name}" if path else name: _told(value)
            for path, part in body_of(self._module).named_modules()
            for name, value in (*vars(part).items(), *part._buffers.items())
            if name not in _NO_STATE
        }


# Attributes of every module, and a recurrent layer's list of its own weights, which it makes anew.
_NO_STATE = frozenset({*vars(nn.Module()), "_flat_weights"})


class _Identity(int):
    """Which tensor it is."""


def _told(value: object) -> object:
    """What a value is: which tensor, which number, or which tensors in a tuple, list or dictionary; None of anything else."""
    if isinstance(value, Tensor):
        return _Identity(id(value))
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, tuple | list) and any(isinstance(part, Tensor) for part in value):
        return tuple(_told(part) for part in value)
    return None


def _attempts(model: LoadedModel, bounds: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Example sizes by name to trace with, the first that can be: made ones, those of the samples, small ones."""
    names = list(dict.fromkeys(dim for spec in model.inputs for dim in spec.dims if isinstance(dim, str)))
    most = len(_EXAMPLE_SIZES[0])
    if len(names) > most:
        raise ExportError(f"a model may have {most} dynamic sizes at most, got {', '.join(names)}")
    large, small = (dict(zip(names, sizes, strict=False)) for sizes in _EXAMPLE_SIZES)
    yield _distinct(large, bounds)
    if not names:
        return
    if model.examples:
        yield _distinct({**large, **{name: size for name, size in model.examples.items() if name in names}}, bounds)
    yield _distinct(small, bounds)


def _distinct(wanted: Mapping[str, int], bounds: Mapping[str, int]) -> dict[str, int]:
    """The sizes within their bounds, no two the same: torch.export takes equal sizes for one."""
    sizes: dict[str, int] = {}
    for name, size in wanted.items():
        fitting = min(max(size, 2), bounds.get(name, sys.maxsize))
        while fitting in sizes.values() and fitting > 2:
            fitting -= 1
        sizes[name] = fitting
    return sizes


def _example(spec: TensorSpec, sizes: Mapping[str, int]) -> Tensor:
    """Ones: valid as an index of any table with two rows, and as a mask."""
    dtype = getattr(torch, spec.dtype, None)
    if not isinstance(dtype, torch.dtype):
        raise ExportError(f"input {spec.name} has the unknown dtype {spec.dtype!r}")
    return torch.ones([sizes[dim] if isinstance(dim, str) else dim for dim in spec.dims], dtype=dtype)
