"""Calls of the operators of attention: their inputs and attributes by name, with the variant that runs as a program."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edgecomp import native
from edgecomp.ops import CACHES, KV_APPEND, KV_ATTENTION, Operator

CONTEXT = 1300


@dataclass(frozen=True)
class Case:
    """Sizes of a call.

    Args:
        batch, sequence, heads, kv_heads, size, places: as edgecomp/operators.md names them.
        before: the first place of each row's new tokens.
        rotated: half of the values of a head that are turned.

    """

    batch: int
    sequence: int
    heads: int
    kv_heads: int
    size: int
    places: int
    before: tuple[int, ...]
    rotated: int = 0
    window: int = 0
    cap: float = 0.0

    @property
    def total(self) -> int:
        return max(self.before) + self.sequence if self.before else 0


CASES = {
    "a token behind many": Case(1, 1, 9, 3, 64, 300, (299,), 32),
    "a token in a larger cache": Case(1, 1, 9, 3, 64, 700, (410,), 32),
    "rows of other lengths": Case(3, 1, 8, 8, 80, 1200, (1199, 3, 500)),
    "a head that no vector divides": Case(2, 5, 4, 2, 20, 11, (0, 11), 4),
    "a prompt": Case(1, 130, 9, 3, 64, 0, (0,), 32),
    "a prompt behind another": Case(1, 40, 4, 1, 128, 500, (430,), 64, window=100, cap=5.0),
    "a narrow window": Case(2, 3, 2, 1, 16, 7, (4, 0), 8, window=2),
    "many queries of one head": Case(1, 3, 34, 2, 32, 3, (0,), 16),
    "one value": Case(1, 2, 1, 1, 1, 2, (0,)),
    "no tokens": Case(2, 0, 2, 1, 16, 5, (0, 5), 8),
    "no rows": Case(0, 3, 2, 1, 16, 5, (), 8),
}


class Calls:
    """The calls of a case, keys and values appended to a random cache and then attended to."""

    def __init__(self, case: Case, cache: str, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.case, self.cache = case, cache
        dtype, extra = CACHES[cache]
        width = (case.heads + 2 * case.kv_heads) * case.size
        self.x = rng.standard_normal((case.batch, case.sequence, width)).astype(np.float32)
        shape = case.batch, case.kv_heads, case.places, case.size + extra
        if cache == "int8":
            self.past = [rng.integers(-127, 128, shape).astype(np.int8) for _ in range(2)]
            for past in self.past:
                past[..., -2:] = rng.integers((-9, 0), (-5, 128), (*shape[:3], 2))
        else:
            self.past = [rng.standard_normal(shape).astype(dtype) for _ in range(2)]
        angles = rng.random((CONTEXT, case.rotated)).astype(np.float32)
        self.cos, self.sin = np.cos(angles), np.sin(angles)
        self.before = np.array(case.before, np.int32)

    def append(self, values: bool) -> tuple[Operator, dict[str, np.ndarray], dict[str, int | float]]:
        """The operator, its inputs and its attributes."""
        case = self.case
        none = np.zeros((1, 0), np.float32)
        inputs = {
            "past": self.past[values],
            "x": self.x,
            "before": self.before,
            "total": np.array(case.total, np.int32),
            "cos": none if values else self.cos,
            "sin": none if values else self.sin,
        }
        return KV_APPEND[self.cache], inputs, {"first": (case.heads + values * case.kv_heads) * case.size}

    def attention(self, keys: np.ndarray, values: np.ndarray) -> tuple[Operator, dict[str, np.ndarray], dict[str, int | float]]:
        """As `append`."""
        case = self.case
        inputs = {"x": self.x, "keys": keys, "values": values, "before": self.before, "cos": self.cos, "sin": self.sin}
        sizes = {"heads": case.heads, "head_size": case.size, "window": case.window}
        return KV_ATTENTION[self.cache], inputs, {**sizes, "scale": case.size**-0.5, "cap": case.cap}


def run_native(operator: Operator, inputs: dict[str, np.ndarray], attributes: dict[str, int | float]) -> np.ndarray:
    """By the kernels that are selected."""
    first, *others = operator.inputs
    return native.run(operator, inputs[first.name], None, **{i.name: inputs[i.name] for i in others}, **attributes)


def results() -> Iterator[tuple[str, np.ndarray]]:
    """Of all cases, by the kernels that are selected."""
    for cache in CACHES:
        for name, case in CASES.items():
            calls = Calls(case, cache)
            keys, values = (run_native(*calls.append(which)) for which in (False, True))
            yield f"{name} {cache} keys", keys
            yield f"{name} {cache} values", values
            yield f"{name} {cache} y", run_native(*calls.attention(keys, values))


if __name__ == "__main__":  # arguments: a file for the results
    np.savez(sys.argv[1], **dict(results()))
    sys.stdout.write(native.selected_variants()["kv_attention_float32"])
