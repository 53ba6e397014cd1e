"""Input specs from samples: axes that vary among the samples are dynamic, the others fixed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from edgecomp.calibration import LABELS, Sample
from edgecomp.errors import CalibrationError, ModelError
from edgecomp.tensor import TensorSpec

BATCH = "batch"


def specs_of(samples: Sequence[Sample]) -> tuple[tuple[TensorSpec, ...], frozenset[str]]:
    """The inputs that samples have. Axes whose sizes always agree with each other share a name.

    A sample is a batch: the first axis of the first input, and those that always agree with it, are `batch`, dynamic even where the
    samples do not vary it. Other axes that vary are named after the first input that has them, such as `tokens_1`.

    Returns:
        The inputs, in the order of the first sample, and the dynamic sizes that the samples do not vary.

    Raises:
        CalibrationError: samples that have not the same names, dtypes and numbers of axes.

    """
    names = [name for name in samples[0] if name != LABELS] if samples else []
    arrays = {name: [_array(sample, name, names, number) for number, sample in enumerate(samples)] for name in names}
    for name, values in arrays.items():
        for number, array in enumerate(values):
            if (array.dtype, array.ndim) != (values[0].dtype, values[0].ndim):
                raise CalibrationError(
                    f"samples must hold the same inputs; {name} is {_kind(values[0])} in the first one, and {_kind(array)} in "
                    f"sample {number}"
                )
    called: dict[tuple[int, ...], str] = {}  # sizes by sample -> name
    batched = next((name for name in names if arrays[name][0].ndim), None)
    if batched is not None:
        called[tuple(array.shape[0] for array in arrays[batched])] = BATCH
    specs = []
    for name in names:
        dims: list[int | str] = []
        for axis in range(arrays[name][0].ndim):
            sizes = tuple(array.shape[axis] for array in arrays[name])
            varies = len(set(sizes)) > 1
            if varies:
                called.setdefault(sizes, f"{name}_{axis}")
            dims.append(called[sizes] if varies or (axis == 0 and sizes in called) else sizes[0])
        specs.append(TensorSpec(name, arrays[name][0].dtype.name, tuple(dims)))
    used = {dim for spec in specs for dim in spec.dims}
    return tuple(specs), frozenset(dim for sizes, dim in called.items() if dim in used and len(set(sizes)) == 1)


def sizes_of(samples: Sequence[Sample], specs: Sequence[TensorSpec]) -> dict[str, int]:
    """The largest value of each dynamic size among the samples."""
    sizes: dict[str, int] = {}
    for sample in samples:
        for spec in specs:
            for dim, size in zip(spec.dims, np.shape(sample[spec.name]), strict=True):
                if isinstance(dim, str):
                    sizes[dim] = max(size, sizes.get(dim, 0))
    return sizes


def _array(sample: Sample, name: str, names: Sequence[str], number: int) -> np.ndarray:
    if {*sample} - {LABELS} != {*names}:
        raise CalibrationError(
            f"samples must hold the same inputs, {sorted(names)} as the first one; sample {number} holds {sorted(sample)}"
        )
    return np.asarray(sample[name])


def _kind(array: np.ndarray) -> str:
    return f"{array.dtype} of {array.ndim} axes"


def check_alike(samples: Sequence[Sample], specs: Sequence[TensorSpec], minimums: Mapping[str, int] | None = None) -> None:
    """Check that samples hold every input and no other, with its number of axes, its fixed sizes, and no size below its minimum.

    Raises:
        CalibrationError: naming the sample, what must hold, and what it holds.

    """
    names = {spec.name for spec in specs}
    for number, sample in enumerate(samples):
        held = {*sample} - ({LABELS} - names)
        if held != names:
            raise CalibrationError(
                f"a sample must hold the inputs {sorted(names)} of the model; sample {number} holds {sorted(held)}"
            )
        for spec in specs:
            shape = np.shape(sample[spec.name])
            fits = len(shape) == len(spec.dims) and all(
                isinstance(dim, str) or dim == size for dim, size in zip(spec.dims, shape, strict=True)
            )
            if not fits:
                raise CalibrationError(
                    f"the input {spec.name} has the sizes {_text(spec.dims)}; sample {number} has {list(shape)} "
                    f"(`--dim {spec.name}=...` says which sizes are fixed: numbers, and which are not: names)"
                )
            for dim, size in zip(spec.dims, shape, strict=True):
                if size < (minimums or {}).get(str(dim), size):
                    raise CalibrationError(
                        f"the model takes {dim} of {spec.name} from {(minimums or {})[str(dim)]} on; sample {number} has {size}"
                    )


def resized(spec: TensorSpec, sizes: Mapping[str, Sequence[int | str]]) -> TensorSpec:
    """The spec with the sizes that are given for its name, as many as it has.

    Raises:
        ModelError: another number of them.

    """
    given = sizes.get(spec.name)
    if given is None:
        return spec
    if len(given) != len(spec.dims):
        raise ModelError(
            f"the input {spec.name} has {len(spec.dims)} axes, {_text(spec.dims)}, got {len(given)} sizes: {_text(given)}"
        )
    return replace(spec, dims=tuple(given))


def _text(dims: Sequence[int | str]) -> str:
    return f"[{', '.join(map(str, dims))}]"
