"""Factors of the lut format: a valid one with some of its parts changed. What `validate` lets through, the kernels must compute."""

from __future__ import annotations

import atheris
import harness
import numpy as np

with harness.instrumented("edgecomp"):
    from edgecomp import native
    from edgecomp.formats import lut
    from edgecomp.tensor import Factor

DTYPES = (np.int8, np.uint8, np.uint16, np.int32, np.float32, np.float64, np.int64)
ARRAYS = ("codes", "codebooks", "tile_book", "scales", "row_scale", "row_index", "surplus")


def check(data: bytes) -> None:
    """Validate a changed factor, and compare the two readers on a valid one."""
    given = atheris.FuzzedDataProvider(data)
    factor = _change(_valid(given), given)
    lut.validate(factor)
    weights = lut.unpack(factor)
    rows = np.arange(-factor.shape[0], factor.shape[0])
    if not np.array_equal(native.lut_gather(rows, factor), weights[rows], equal_nan=True):  # huge scales overflow
        raise AssertionError("the two readers of the format differ")
    x = np.ones((2, factor.shape[1]), np.float32)
    native.lut_matmul(x, factor, compute="int8")
    lut.matmul(x, factor, compute="int8")


def _valid(given: atheris.FuzzedDataProvider) -> Factor:
    n, k = given.ConsumeIntInRange(1, 40), given.ConsumeIntInRange(1, 100)
    bits = given.ConsumeIntInRange(1, 8)
    block_size = given.PickValueInList(lut.fitting_block_sizes(k))
    permuted = given.ConsumeBool()
    rng = np.random.default_rng(given.ConsumeIntInRange(0, 255))
    rows = lut.round_up(n, lut.TILE_ROWS) if permuted else n
    row_index = np.full(rows, -1, np.int32)
    row_index[rng.permutation(rows)[:n]] = np.arange(n)
    wide = bits >= 7
    return lut.pack(
        rng.integers(-127, 128, (rows, k)) if wide else rng.integers(0, 2**bits, (rows, k)),
        rng.integers(-127, 128, (1, 2**bits)).astype(np.int8),
        rng.integers(-127, 128, (rows, lut.round_up(k, 32) // block_size)).astype(np.int8),
        rng.standard_normal(rows).astype(np.float32),
        bits=bits,
        block_size=block_size,
        row_index=row_index if permuted else None,
    )


def _change(factor: Factor, given: atheris.FuzzedDataProvider) -> Factor:
    shape, attributes, arrays = factor.shape, dict(factor.attributes), dict(factor.arrays)
    for _ in range(given.ConsumeIntInRange(0, 3)):
        name = given.PickValueInList(list(ARRAYS))
        match given.ConsumeIntInRange(0, 5):
            case 0:
                shape = (given.ConsumeInt(8), given.ConsumeInt(8))
            case 1:
                attributes[given.PickValueInList(["bits", "block_size", "more"])] = given.ConsumeInt(8)
            case 2:
                arrays.pop(name, None)
            case 3:
                sizes = [given.ConsumeIntInRange(0, 5) for _ in range(given.ConsumeIntInRange(0, 5))]
                arrays[name] = np.zeros(sizes, given.PickValueInList(list(DTYPES)))
            case 4 if name in arrays:
                changed = arrays[name].copy()
                data = changed.reshape(-1).view(np.uint8)
                if data.size:
                    data[given.ConsumeIntInRange(0, data.size - 1)] = given.ConsumeIntInRange(0, 255)
                arrays[name] = changed
            case 5 if name in arrays:
                arrays[name] = arrays[name].astype(given.PickValueInList(list(DTYPES)))
    return Factor("lut", shape, attributes, arrays)


harness.fuzz(check)
