"""What a `.pte` file says about itself: inputs, outputs, the operators that it calls, our manifest.

Reads ExecuTorch's file format directly (`schema/program.fbs` and `docs/source/pte-file-format.md` of its repository), since its
Python package imports PyTorch, and a device has neither. Field numbers are those of the schema, which only ever grows.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgecomp.bounded import parse_json
from edgecomp.errors import CheckpointError, ModelError
from edgecomp.exported.executorch_calls import (
    PLAN_DELEGATES,
    PLAN_OPERATORS,
    PLAN_VALUES,
    STRING,
    TENSOR,
    VALUE,
    VALUE_TYPE,
    instructions,
    qualified,
)
from edgecomp.exported.executorch_delegates import Delegates
from edgecomp.exported.files import data_missing
from edgecomp.exported.flatbuffer import Table
from edgecomp.exported.inputs import InputSpec
from edgecomp.files import outside
from edgecomp.ops import DOMAIN_VERSION, NAMESPACE, OPERATORS

METHOD = "forward"
# Methods without inputs, for every reader of programs: our manifest as JSON, and the names of inputs and outputs by position.
MANIFEST_METHOD, INPUT_NAMES_METHOD, OUTPUT_NAMES_METHOD = "edgecomp_manifest", "edgecomp_input_names", "edgecomp_output_names"
IDENTITY_METHOD = "edgecomp_identity"  # edgecomp.identity
MANIFEST_SCHEMA = 1
_OWN_NAMES = frozenset(name for operator in OPERATORS.values() for name in operator.executorch_names)

_PROGRAM_IDENTIFIER, _PROGRAM_HEADER = b"ET12", b"eh00"
_BASE = 24  # of the header's field that tells where segments begin
_DATA_IDENTIFIER, _DATA_HEADER = b"FT01", b"FH01"
_PROGRAM_PLANS = 1
_PLAN_NAME, _PLAN_INPUTS, _PLAN_OUTPUTS, _PLAN_BUFFERS = 0, 3, 4, 8
_TENSOR_SCALAR, _TENSOR_SIZES, _TENSOR_DYNAMISM = 0, 2, 8

# ExecuTorch's ScalarType by numpy's names.
_DTYPES = {
    0: "uint8",
    1: "int8",
    2: "int16",
    3: "int32",
    4: "int64",
    5: "float16",
    6: "float32",
    7: "float64",
    11: "bool",
    27: "uint16",
    28: "uint32",
    29: "uint64",
}


@dataclass(frozen=True)
class ProgramTensor(InputSpec):
    """An input or output, named by the manifest or by its position; a dynamic size has a name by the manifest alone.

    Args:
        max_shape: sizes; the largest value of a dynamic one.

    """

    max_shape: tuple[int, ...]

    def describe(self) -> str:
        """Dtype and shape, such as `int64 [batch <= 4, 16]`."""
        dims = (
            str(largest) if isinstance(size, int) else f"{size or 'any'} <= {largest}"
            for size, largest in zip(self.shape, self.max_shape, strict=True)
        )
        return f"{self.dtype} [{', '.join(dims)}]"


@dataclass(frozen=True)
class ExecutorchFile:
    """A program on disk.

    Args:
        path: the `.pte` file.
        inputs: of the method `forward`, in order.
        outputs: as above.
        operators: names of the operators that it calls, such as `edgecomp::lut_matmul.out`.
        backends: names of the backends that it delegates to.
        instructions: what each instruction calls: an operator or a backend; empty where it only moves values or jumps.
        activation_bytes: what the program plans for its activations.
        manifest: ours, or empty for a program of another tool.
        checked: the files themselves, links followed, as they were when they were checked, in the order of `files`.

    """

    path: Path
    inputs: tuple[ProgramTensor, ...]
    outputs: tuple[ProgramTensor, ...]
    operators: frozenset[str]
    backends: frozenset[str]
    instructions: tuple[str, ...]
    activation_bytes: int
    manifest: Mapping[str, Any]
    checked: tuple[Path, ...] = ()

    @property
    def uses_edgecomp(self) -> bool:
        """Whether it calls operators of ours, without which it does not run."""
        return bool(self.own_operators)

    @property
    def own_operators(self) -> list[str]:
        """The operators of ours that it calls."""
        return sorted(self.operators & _OWN_NAMES)

    @property
    def data(self) -> Path | None:
        """The file of the external constants."""
        name = self.manifest.get("data")
        return None if name is None else self.path.parent / str(name)

    @property
    def files(self) -> tuple[Path, ...]:
        """The program and its external constants."""
        return (self.path,) if self.data is None else (self.path, self.data)


def read_executorch(path: Path) -> ExecutorchFile:
    """Read the structure of a program, and check that it and its constants are complete and that this edgecomp runs it.

    Raises:
        ModelError: no such file.
        CheckpointError: the file is no program, cut short, or made for other operators than this edgecomp's; its data file is
            missing or cut short.

    """
    if not path.is_file():
        raise ModelError(f"no ExecuTorch program at {path}: the path must name an existing .pte file")
    try:
        mapped = _map(path)
        _check_complete(mapped, _PROGRAM_IDENTIFIER, _PROGRAM_HEADER)
        program = _read_program(path, mapped)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is not a complete ExecuTorch program ({error}; {path.stat().st_size} bytes); copy or export it again"
        ) from error
    _check_manifest(program)
    unknown = sorted(name for name in program.operators - _OWN_NAMES if name.startswith(f"{NAMESPACE}::"))
    if unknown:
        raise CheckpointError(
            f"{path} calls {', '.join(unknown)}, which this edgecomp's library does not have: install the edgecomp that it was "
            "exported by, or export the model again"
        )
    _check_data(program)
    return replace(program, checked=tuple(file.resolve() for file in program.files))


def _map(path: Path) -> memoryview:
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))  # of an empty file, a ValueError


def _check_complete(data: memoryview, identifier: bytes, header: bytes) -> None:
    """The extended header says where the segments behind the FlatBuffer end."""
    if bytes(data[4:8]) != identifier:
        raise ValueError(f"it does not begin with {identifier.decode()}")
    if bytes(data[8:12]) != header:
        if header == _PROGRAM_HEADER:
            return  # a program without segments is a FlatBuffer and no more
        raise ValueError("it has no header that tells its size")
    if len(data) < 48:
        raise ValueError("it is shorter than its header")
    sizes = struct.unpack_from("<4Q", data, 16)
    end = sizes[1] + sizes[2] if header == _PROGRAM_HEADER else sizes[2] + sizes[3]
    needed = max(end, sizes[0] if header == _PROGRAM_HEADER else sizes[0] + sizes[1])
    if len(data) < needed:
        raise ValueError(f"its header tells {needed} bytes")


def _read_program(path: Path, data: memoryview) -> ExecutorchFile:
    root = Table.root(data)
    plans: dict[str, Table] = {}
    for plan in root.tables(_PROGRAM_PLANS):
        if plans.setdefault(plan.text(_PLAN_NAME), plan) is not plan:
            raise ValueError("two of its methods have one name")  # of which ExecuTorch runs the first
    if METHOD not in plans:
        raise ValueError(f"it has no method {METHOD}")
    manifest = _read_manifest(plans[MANIFEST_METHOD]) if MANIFEST_METHOD in plans else {}
    plan = plans[METHOD]
    values = list(plan.tables(PLAN_VALUES))
    delegates = Delegates(root, data, struct.unpack_from("<Q", data, _BASE)[0] if bytes(data[8:12]) == _PROGRAM_HEADER else 0)
    called = {name: tuple(instructions(method, delegates)) for name, method in plans.items()}
    return ExecutorchFile(
        path=path,
        inputs=_tensors(values, plan.numbers(_PLAN_INPUTS, "i"), "input", _described(manifest, "inputs")),
        outputs=_tensors(
            values, plan.numbers(_PLAN_OUTPUTS, "i"), "output", [{"name": n} for n in _described(manifest, "outputs")]
        ),
        operators=frozenset(qualified(operator) for operator in plan.tables(PLAN_OPERATORS)),
        backends=frozenset(delegate.text(0) for delegate in plan.tables(PLAN_DELEGATES)),
        instructions=called[METHOD],
        activation_bytes=sum(plan.numbers(_PLAN_BUFFERS, "q")),
        manifest=manifest,
    )


def _read_manifest(plan: Table) -> dict[str, Any]:
    outputs = plan.numbers(_PLAN_OUTPUTS, "i")
    values = list(plan.tables(PLAN_VALUES))
    text = _value(values, outputs[0], STRING).text(0) if outputs else ""
    manifest = parse_json(text)
    if not isinstance(manifest, dict):
        raise ValueError("its manifest is no JSON object")
    return manifest


def _described(manifest: Mapping[str, Any], key: str) -> list[Any]:
    entries = manifest.get(key, [])
    if not isinstance(entries, list):
        raise ValueError(f"its manifest has no list of {key}")
    return entries


def _value(values: list[Table], index: int, kind: int) -> Table:
    if not 0 <= index < len(values) or values[index].number(VALUE_TYPE, "B") != kind:
        raise ValueError(f"value {index} is not of the type that it is used as")
    value = values[index].table(VALUE)
    if value is None:
        raise ValueError(f"value {index} is empty")
    return value


def _tensors(values: list[Table], indices: tuple[int, ...], kind: str, entries: list[Any]) -> tuple[ProgramTensor, ...]:
    tensors = []
    for position, index in enumerate(indices):
        tensor = _value(values, index, TENSOR)
        sizes = tensor.numbers(_TENSOR_SIZES, "i")
        scalar = tensor.number(_TENSOR_SCALAR, "b")
        entry = entries[position] if position < len(entries) and isinstance(entries[position], dict) else {}
        fixed = tensor.number(_TENSOR_DYNAMISM, "b") == 0
        dims = entry.get("dims")
        shape = (
            tuple(dims) if isinstance(dims, list) and len(dims) == len(sizes) else tuple(sizes if fixed else [None] * len(sizes))
        )
        dtype = _DTYPES.get(scalar, f"type {scalar}")
        tensors.append(ProgramTensor(str(entry.get("name", f"{kind}_{position}")), dtype, shape, sizes))
    return tuple(tensors)


def _check_manifest(program: ExecutorchFile) -> None:
    manifest = program.manifest
    if not manifest:
        return
    if manifest.get("schema") != MANIFEST_SCHEMA or manifest.get("operators") != DOMAIN_VERSION:
        from edgecomp import __version__

        raise CheckpointError(
            f"{program.path} was exported by edgecomp {manifest.get('edgecomp')} for operators of version "
            f"{manifest.get('operators')}, and this edgecomp {__version__} has those of version {DOMAIN_VERSION}: "
            "install that edgecomp, or export the model again"
        )


def _check_data(program: ExecutorchFile) -> None:
    data = program.data
    if data is None:
        return
    if Path(str(program.manifest["data"])).name != program.manifest["data"]:
        raise CheckpointError(f"{program.path} refers to constants outside its folder ({program.manifest['data']}); it is not run")
    if outside(data, program.path.parent):
        raise CheckpointError(
            f"{program.path} refers to constants outside its folder ({data.name} is a link to {data.resolve()}); it is not run"
        )
    if not data.is_file():
        raise CheckpointError(data_missing(program.path, data.name))
    try:
        _check_complete(_map(data), _DATA_IDENTIFIER, _DATA_HEADER)
    except ValueError as error:
        raise CheckpointError(f"{data} must be complete: {error} ({data.stat().st_size} bytes); copy or export it again") from error
