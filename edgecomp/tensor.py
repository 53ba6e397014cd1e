"""The two data types that every part shares: packed factors, and the plan of a layer as a sum of chains of factors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np

from edgecomp.errors import CheckpointError

StageOp = Literal["linear", "gather", "conv"]
Compute = Literal["int8", "float"]
COMPUTE_MODES: tuple[Compute, ...] = ("int8", "float")


@dataclass(frozen=True)
class Factor:
    """A packed matrix.

    Args:
        format: key of `edgecomp.formats.FORMATS`.
        shape: `(N, K)`, rows and columns of the matrix that the arrays encode.
        attributes: the format's integers, for `lut` `bits` and `block_size`.
        arrays: the format's arrays by name, C-contiguous.

    """

    format: str
    shape: tuple[int, int]
    attributes: Mapping[str, int]
    arrays: Mapping[str, np.ndarray]

    @property
    def packed_bytes(self) -> int:
        """Bytes of all arrays: codes, codebooks, scales and permutation alike."""
        return sum(array.nbytes for array in self.arrays.values())


@dataclass(frozen=True)
class TensorSpec:
    """An input of a model: numpy dtype name, and sizes, where a name such as `batch` is a dynamic size shared by all its uses."""

    name: str
    dtype: str
    dims: tuple[int | str, ...]


@dataclass(frozen=True)
class ConvParams:
    """Geometry of a two-dimensional convolution, in PyTorch's terms; `padding` is (top, left, bottom, right)."""

    in_channels: int
    kernel_size: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def attributes(self) -> dict[str, Any]:
        """As attributes of the operator table, which names them as ONNX Conv does."""
        return {
            "kernel_shape": list(self.kernel_size),
            "strides": list(self.stride),
            "pads": list(self.padding),
            "dilations": list(self.dilation),
            "group": self.groups,
        }


@dataclass(frozen=True)
class Stage:
    """One factor applied to the running value: `linear` x -> x Wᵀ, `gather` i -> W[i], `conv` x -> W * x.

    `factor` is a key of the model's factor table; several layers may name the same factor.
    """

    factor: str
    op: StageOp
    conv: ConvParams | None = None


@dataclass(frozen=True)
class LayerPlan:
    """`layer(x) = sum over terms ( stage_n( ... stage_1(x) ) ) + bias`.

    Args:
        terms: the chains.
        bias: names a dense tensor of the model.
        compute: for the stages whose operator knows the difference: `int8` quantises activations on the fly (fast), `float` keeps
            them (exact to the packed weights).

    """

    terms: tuple[tuple[Stage, ...], ...]
    bias: str | None = None
    compute: Compute = "int8"

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON values."""
        return asdict(self)

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> LayerPlan:
        """The plan that `to_json` wrote.

        Raises:
            CheckpointError: the value has missing, surplus or mistyped entries.

        """
        try:
            _require_keys(value, LayerPlan)
            terms = tuple(tuple(_stage(stage) for stage in term) for term in value["terms"])
            plan = LayerPlan(terms, value["bias"], value["compute"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"a layer plan must hold terms of stages and a bias, got {value!r} ({error})") from error
        if not plan.terms or not all(plan.terms) or not isinstance(plan.bias, str | None):
            raise CheckpointError(
                f"a layer plan must hold at least one term, each term a stage, and a bias's name or null, got {value!r}"
            )
        if plan.compute not in COMPUTE_MODES:
            raise CheckpointError(f"a layer plan must compute in {' or '.join(COMPUTE_MODES)}, got {plan.compute!r}")
        return plan


def _require_keys(value: Mapping[str, Any], of: type) -> None:
    """What a newer version added may change the meaning of the rest: it is not passed over."""
    expected = {field.name for field in fields(of)}
    if set(value) != expected:
        raise ValueError(f"a {of.__name__} has the entries {sorted(expected)}")


def _stage(value: Mapping[str, Any]) -> Stage:
    _require_keys(value, Stage)
    conv = value["conv"]
    if value["op"] not in ("linear", "gather", "conv") or not isinstance(value["factor"], str):
        raise ValueError(f"unknown stage {value!r}")
    if (value["op"] == "conv") != (conv is not None):
        raise ValueError("a conv stage, and no other, has conv parameters")
    if conv is None:
        return Stage(value["factor"], value["op"])
    _require_keys(conv, ConvParams)
    sizes = {key: tuple(int(v) for v in conv[key]) for key in ("kernel_size", "stride", "padding", "dilation")}
    params = ConvParams(in_channels=int(conv["in_channels"]), groups=int(conv["groups"]), **sizes)  # type: ignore[arg-type]
    lengths = [len(sizes[key]) for key in ("kernel_size", "stride", "dilation", "padding")]
    positive = (params.in_channels, params.groups, *params.kernel_size, *params.stride, *params.dilation)
    if lengths != [2, 2, 2, 4] or min(positive) < 1 or min(params.padding) < 0 or params.in_channels % params.groups:
        raise ValueError("sizes of a convolution are positive, paddings not negative, and groups divide the channels")
    return Stage(value["factor"], value["op"], params)
