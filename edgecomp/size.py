"""The one function that counts bytes, from which every bits per weight and every ratio of the project comes.

    bits per weight = 8 * packed bytes / parameters

Packed bytes are those of all arrays that a deployed model needs (codes, codebooks, scales, permutations, exceptions, and the
tensors that stay dense); parameters are the uncompressed model's, a matrix that several layers share counted once. A file also
holds its graph and padding: file bytes are given separately.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgecomp.errors import ConfigError
from edgecomp.tensor import Factor, LayerPlan

DENSE = "dense tensors"


@dataclass(frozen=True)
class SizeReport:
    """Bytes of a compressed model.

    Args:
        packed_bytes: all of it.
        parameters: of the uncompressed model.
        factor_bytes: by factor name.
        array_bytes: by `format.array` of the packed formats (`lut.codes`, `lut.scales`), and `dense tensors`.

    """

    packed_bytes: int
    parameters: int
    factor_bytes: Mapping[str, int]
    array_bytes: Mapping[str, int]

    @property
    def bits_per_weight(self) -> float:
        """8 * packed bytes / parameters, with everything counted."""
        return 8 * self.packed_bytes / self.parameters

    def ratio_to(self, bits: int) -> float:
        """How many times smaller than the same parameters at `bits` bits (32 or 16)."""
        return bits / self.bits_per_weight

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values, derived figures included."""
        return {
            **asdict(self),
            "bits_per_weight": self.bits_per_weight,
            "ratio_to_float32": self.ratio_to(32),
            "ratio_to_float16": self.ratio_to(16),
        }


def count_bytes(factors: Mapping[str, Factor], dense_tensors: Mapping[str, np.ndarray], parameters: int) -> SizeReport:
    """Count the bytes of a compressed model.

    Args:
        factors: every packed factor once, however many layers use it.
        dense_tensors: every tensor that stays as it is (biases, norms, uncompressed layers), once.
        parameters: of the uncompressed model, see `count_parameters`.

    Raises:
        ConfigError: `parameters` is not positive.

    """
    if parameters < 1:
        raise ConfigError(f"bits per weight need a positive number of parameters, got {parameters}")
    arrays: Counter[str] = Counter()
    for factor in factors.values():
        for name, array in factor.arrays.items():
            arrays[f"{factor.format}.{name}"] += array.nbytes
    dense = sum(tensor.nbytes for tensor in dense_tensors.values())
    if dense:
        arrays[DENSE] = dense
    return SizeReport(
        packed_bytes=sum(arrays.values()),
        parameters=parameters,
        factor_bytes={name: factor.packed_bytes for name, factor in factors.items()},
        array_bytes=dict(arrays),
    )


def layer_parameters(plan: LayerPlan, factors: Mapping[str, Factor]) -> int:
    """Weights of the uncompressed layer, without its bias.

    Every term of a plan has the layer's own input and output, so the first tells: rows of its last factor times columns of its
    first; for convolutions the real input channels, not the padded ones, times the size of the kernel that the chain amounts to.
    """
    first, last = plan.terms[0][0], plan.terms[0][-1]
    rows = factors[last.factor].shape[0]
    if first.op == "gather":
        # A gather picks rows: the first factor's rows are the table's, and the features are the last factor's output.
        table = factors[first.factor].shape
        return table[0] * (table[1] if first is last else rows)
    if first.conv is None:
        return rows * factors[first.factor].shape[1]
    taps = 1
    for stage in plan.terms[0]:
        if stage.conv is not None:
            taps *= stage.conv.kernel_size[0] * stage.conv.kernel_size[1]
    return rows * (first.conv.in_channels // first.conv.groups) * taps


def count_parameters(plans: Mapping[str, LayerPlan], factors: Mapping[str, Factor], dense_tensors: Mapping[str, np.ndarray]) -> int:
    """Parameters of the uncompressed model: its layers, each tied matrix once, and the floating-point tensors that stay dense."""
    matrices = {weights_key(plan): layer_parameters(plan, factors) for plan in plans.values()}
    dense = sum(tensor.size for tensor in dense_tensors.values() if tensor.dtype.kind == "f")
    return sum(matrices.values()) + dense


def weights_key(plan: LayerPlan) -> tuple[tuple[str, ...], ...]:
    """Equal for layers that are one matrix (tied embedding and head): the same factors in the same places."""
    return tuple(tuple(stage.factor for stage in term) for term in plan.terms)
