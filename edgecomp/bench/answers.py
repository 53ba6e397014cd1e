"""What a device answers of a model, held to what it must be (`edgecomp.devices.answers`): its inputs and outputs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from edgecomp.bench.record import Output
from edgecomp.devices.answers import first_problem
from edgecomp.errors import DeviceError, first_line
from edgecomp.exported.inputs import LARGEST_INPUT, InputSpec


class _Input(BaseModel):
    model_config = ConfigDict(strict=True)

    name: str
    dtype: str
    shape: list[int | str | None] = Field(max_length=16)


_INPUTS = TypeAdapter(list[_Input])


def described_inputs(value: Any, url: str) -> Sequence[InputSpec]:
    """What a device says of a model's inputs.

    Raises:
        DeviceError: it is something else, or a size is none.

    """
    try:
        inputs = _INPUTS.validate_python(value)
    except ValidationError as error:
        raise DeviceError(f"{url}: the answer is not what this version expects: {first_problem(error)}") from error
    for entry in inputs:
        sizes = [size for size in entry.shape if isinstance(size, int)]
        if any(size < 0 for size in sizes) or np.prod(sizes, dtype=float) > LARGEST_INPUT:
            raise DeviceError(f"{url}: an input must have {LARGEST_INPUT:,} values at most, and {entry.name} has {entry.shape}")
    return [InputSpec(entry.name, entry.dtype, tuple(entry.shape)) for entry in inputs]


def read_output(path: Path, output: Output, url: str) -> np.ndarray:
    """An output that was brought back.

    Raises:
        DeviceError: it is no array, or another than was measured.

    """
    try:
        with path.open("rb") as file:
            array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:  # numpy's reader of headers raises errors of many unrelated classes
        raise DeviceError(f"{url}: the output {output.name} must be an array: {first_line(error)}") from error
    if array.dtype.kind not in "biuf" or not array.dtype.isnative:
        raise DeviceError(f"{url}: the output {output.name} must hold numbers, got {array.dtype}")
    if hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest() != output.sha256:
        raise DeviceError(f"{url}: the output {output.name} was brought back with other bytes than were computed")
    return array
