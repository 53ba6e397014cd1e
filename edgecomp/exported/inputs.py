"""Inputs for a model that only its signature is known of: token ids, masks of ones, normal noise, an empty past."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgecomp.errors import ConfigError

LARGEST_INPUT = 2**28  # values of an input that is made up
_DTYPES = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool")


@dataclass(frozen=True)
class InputSpec:
    """An input of a model: its name, numpy dtype, and shape with names, or None, for dynamic sizes."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True)
class InputSizes:
    """Values of dynamic sizes: `batch` and `sequence` by meaning, any other by its name in the model."""

    batch: int = 1
    sequence: int = 128
    named: Mapping[str, int] = field(default_factory=dict)


def make_inputs(specs: Sequence[InputSpec], sizes: InputSizes, *, token_ids: int = 100, seed: int = 0) -> dict[str, np.ndarray]:
    """Arrays for a model's inputs.

    By name: masks are ones, `token_type_ids` zeros, `position_ids` counts up. Other integers are token ids drawn from
    `[1, token_ids)`; floats are standard normal.

    Raises:
        ConfigError: a type that is not supported, a dynamic size without a value, or more values than anything made up should have.

    """
    random = np.random.default_rng(seed)
    return {spec.name: _values(spec, _shape(spec, sizes), token_ids, random) for spec in specs}


def count_items(inputs: Mapping[str, np.ndarray]) -> int:
    """Batch of one inference: the first axis of the first input, 1 where that has no axes or is empty."""
    first = next(iter(inputs.values()), np.zeros(1))
    return max(first.shape[0], 1) if first.ndim else 1


def count_tokens(inputs: Mapping[str, np.ndarray]) -> int | None:
    """Tokens of one inference, batch x sequence, where the model takes token ids `[batch, sequence]`; else None."""
    ids = inputs.get("input_ids")
    return int(ids.size) if ids is not None and ids.ndim == 2 else None


def _values(spec: InputSpec, shape: tuple[int, ...], token_ids: int, random: np.random.Generator) -> np.ndarray:
    if spec.dtype not in _DTYPES:
        raise ConfigError(
            f"input {spec.name} has type {spec.dtype}; inputs can be made of {', '.join(_DTYPES)}: give --inputs FILE.npz"
        )
    if any(size < 0 for size in shape) or math.prod(shape) > LARGEST_INPUT:
        raise ConfigError(
            f"input {spec.name} must have {LARGEST_INPUT:,} values at most to be made up, got {shape}: give an .npz file"
        )
    dtype = np.dtype(spec.dtype)
    if "mask" in spec.name:
        return np.ones(shape, dtype)
    if spec.name.endswith("token_type_ids"):
        return np.zeros(shape, dtype)
    if spec.name.endswith("position_ids"):
        return np.broadcast_to(np.arange(shape[-1], dtype=dtype), shape).copy()
    if dtype.kind == "f":
        return random.standard_normal(shape).astype(dtype)
    return random.integers(0 if dtype.kind == "b" else 1, 2 if dtype.kind == "b" else token_ids, shape).astype(dtype)


def _shape(spec: InputSpec, sizes: InputSizes) -> tuple[int, ...]:
    return tuple(dim if isinstance(dim, int) else _dynamic_size(spec.name, dim, axis, sizes) for axis, dim in enumerate(spec.shape))


def _dynamic_size(input_name: str, dim: str | None, axis: int, sizes: InputSizes) -> int:
    name = (dim or "").lower()
    if dim is not None and dim in sizes.named:
        return sizes.named[dim]
    if "batch" in name:
        return sizes.batch
    if "past" in name and "+" not in name and "total" not in name:
        return 0  # a language model's first call has no past
    if "seq" in name or "total" in name or "+" in name:
        return sizes.sequence
    if dim is None and axis < 2:
        return (sizes.batch, sizes.sequence)[axis]
    if axis == 0:
        return sizes.batch
    remedy = (
        "give the inputs as an .npz file (`edgecomp bench --inputs FILE.npz`)"
        if dim is None
        else f"give it by name (`edgecomp bench --size {dim}=VALUE`)"
    )
    raise ConfigError(f"axis {axis} of input {input_name} has the dynamic size {dim!r}, whose value is not known: {remedy}")
