"""The one function that counts bytes, from which every bits per weight and every ratio of the project comes.

    bits per weight = 8 * packed bytes / parameters

Packed bytes are those of all arrays that a deployed model needs (codes, codebooks, scales, permutations, exceptions, and the
tensors that stay dense); parameters are the uncompressed model's, a matrix that several layers share counted once. A file also
holds its graph and padding, which for a small model are most of it: of files `shipped` tells the same figures by their own bytes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgecomp.errors import ConfigError
from edgecomp.tensor import Factor

DENSE = "dense tensors"


@dataclass(frozen=True)
class LeftFloat:
    """Tensors that stay float for one reason.

    Args:
        reason: why.
        names: of the tensors, those that share one under the first.
        parameters: numbers in them; buffers hold none.
        bytes: as they are stored.

    """

    reason: str
    names: tuple[str, ...]
    parameters: int
    bytes: int

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> LeftFloat:
        """Of what `to_json` gave."""
        return cls(str(row["reason"]), tuple(map(str, row["names"])), int(row["parameters"]), int(row["bytes"]))

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "names": list(self.names)}


def share_left_float(rows: Sequence[LeftFloat], parameters: int) -> float:
    """The share of a model's parameters that stays float."""
    return sum(row.parameters for row in rows) / parameters if parameters else 0.0


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
        return bits / self.bits_per_weight if self.packed_bytes else math.inf

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values, derived figures included."""
        return {
            **asdict(self),
            "bits_per_weight": self.bits_per_weight,
            "ratio_to_float32": self.ratio_to(32),
            "ratio_to_float16": self.ratio_to(16),
        }


def shipped(file_bytes: int, parameters: int | None) -> str:
    """What to say of an artifact's bytes, against the uncompressed model's parameters where they are known."""
    total = f"total: {file_bytes:,} bytes"
    if not parameters:
        return total
    return f"{total} in the files for {parameters:,} parameters, {compared(file_bytes, parameters)}"


def compared(size: int, parameters: int) -> str:
    """Such as `2.03x smaller than float32, 1.02x than float16`; what is larger is called so."""
    if size < 1 or parameters < 1:
        return "nothing to compare"
    ratios = {bits: bits * parameters / (8 * size) for bits in (32, 16)}
    words = ["smaller" if ratio >= 1 else "larger" for ratio in ratios.values()]
    first, second = (f"{max(ratio, 1 / ratio):.2f}x" for ratio in ratios.values())
    return f"{first} {words[0]} than float32, {second} {'' if words[0] == words[1] else f'{words[1]} '}than float16"


def count_bytes(factors: Mapping[str, Factor], dense_tensors: Mapping[str, np.ndarray], parameters: int) -> SizeReport:
    """Count the bytes of a compressed model.

    Args:
        factors: every packed factor once, however many layers use it.
        dense_tensors: every tensor that stays as it is (biases, norms, uncompressed layers), once.
        parameters: of the uncompressed model.

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
