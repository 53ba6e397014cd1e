"""Random `lut` factors, and a check of all native operators against the numpy oracle.

Run as a script it is the subprocess of tests/test_native.py: EDGECOMP_FORCE_ISA is read once a process.
"""

from __future__ import annotations

import functools
import itertools

import empty_cases
import numpy as np

from edgecomp import native
from edgecomp.formats import lut, lut_narrow, unpack
from edgecomp.tensor import COMPUTE_MODES, ConvParams, Factor

SHAPES = [(1, 1, 32), (16, 32, 32), (17, 31, 32), (31, 33, 64), (33, 257, 32), (5, 640, 160), (48, 1031, 1056)]
ROWS = (1, 2, 7, 9, 33)


def random_factor(
    n: int, k: int, bits: int, block_size: int, *, books: int = 1, permuted: bool = False, rng: np.random.Generator
) -> Factor:
    """A factor of random codes, codebooks and scales; with `permuted` its rows are shuffled over one tile more than they need."""
    tiles = lut.round_up(n, 16) // 16 + permuted
    rows = tiles * 16 if permuted else n
    row_index = None
    if permuted:
        row_index = np.full(rows, -1, np.int32)
        row_index[rng.permutation(rows)[:n]] = np.arange(n)
    wide = lut.storage_bits(bits) == 8
    return lut.pack(
        rng.integers(-127, 128, (rows, k)) if wide else rng.integers(0, 2**bits, (rows, k)),
        rng.integers(-127, 128, (books, 2**bits)).astype(np.int8),
        rng.integers(-127, 128, (rows, lut.round_up(k, 32) // block_size)).astype(np.int8),
        rng.uniform(-1e-3, 1e-3, rows).astype(np.float32),
        bits=bits,
        block_size=block_size,
        tile_book=None if wide else rng.integers(0, books, tiles).astype(np.uint16),
        row_index=row_index,
    )


def narrow_factor(n: int, params: ConvParams, *, bits: int = 4, seed: int = 0) -> Factor:
    """A random `lut_narrow` factor of the kernel of a convolution with `n` output channels, of about unit variance over sqrt(k)."""
    k = lut_narrow.conv_columns(params)
    rng = np.random.default_rng([seed, n, k, bits])
    steps = rng.uniform(0.3, 1.5, n) / (70 * k**0.5)
    scale, exponent = lut_narrow.quantize_steps(steps)
    codes = rng.integers(-127, 128, (n, k)) if lut.storage_bits(bits) == 8 else rng.integers(0, 2**bits, (n, k))
    return lut_narrow.pack(codes, rng.integers(-127, 128, 2**bits).astype(np.int8), scale, bits=bits, exponent=exponent)


def conv_weights(factor: Factor, conv: ConvParams) -> np.ndarray:
    """The weights as [out, in / groups, kernel_h, kernel_w]."""
    channels = conv.in_channels // conv.groups
    return unpack(factor).reshape(factor.shape[0], *conv.kernel_size, -1)[..., :channels].transpose(0, 3, 1, 2)


def conv2d(x: np.ndarray, factor: Factor, conv: ConvParams, bias: np.ndarray) -> np.ndarray:
    """The convolution in float64, tap by tap."""
    top, left, bottom, right = conv.padding
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (top, bottom), (left, right)))
    weights = conv_weights(factor, conv)
    outputs, channels, kernel_h, kernel_w = weights.shape
    height = (padded.shape[2] - conv.dilation[0] * (kernel_h - 1) - 1) // conv.stride[0] + 1
    width = (padded.shape[3] - conv.dilation[1] * (kernel_w - 1) - 1) // conv.stride[1] + 1
    y: np.ndarray = np.zeros((len(x), outputs, height, width)) + bias[:, None, None]
    for group, tap_y, tap_x in itertools.product(range(conv.groups), range(kernel_h), range(kernel_w)):
        first_y, first_x = tap_y * conv.dilation[0], tap_x * conv.dilation[1]
        rows = slice(first_y, first_y + (height - 1) * conv.stride[0] + 1, conv.stride[0])
        columns = slice(first_x, first_x + (width - 1) * conv.stride[1] + 1, conv.stride[1])
        inputs = slice(group * channels, (group + 1) * channels)
        out = slice(group * (outputs // conv.groups), (group + 1) * (outputs // conv.groups))
        y[:, out] += np.einsum("bcyx,oc->boyx", padded[:, inputs, rows, columns], weights[out, :, tap_y, tap_x])
    return y


def assert_close(got: np.ndarray, expected: np.ndarray, tolerance: float, what: object) -> None:
    """The largest difference is below `tolerance` of the largest value."""
    assert got.shape == expected.shape and got.dtype == np.float32, (what, got.shape, expected.shape, got.dtype)
    difference = np.abs(got - expected).max() / np.abs(expected).max()
    assert difference < tolerance, (what, difference)


def check_all() -> int:
    """Check every operator over a grid of shapes; returns the number of comparisons."""
    rng = np.random.default_rng(0)
    checks = 0
    for bits, (n, k, block_size), permuted in itertools.product(range(1, 9), SHAPES, (False, True)):
        factor = random_factor(n, k, bits, block_size, books=1 if bits >= 7 else 3, permuted=permuted, rng=rng)
        indices = rng.integers(-n, n, (2, 3))
        assert np.array_equal(native.lut_gather(indices, factor), lut.unpack(factor)[indices]), (bits, n, k)
        for m, compute in itertools.product(ROWS, COMPUTE_MODES):
            x = rng.standard_normal((m, k)).astype(np.float32)
            bias = rng.standard_normal(n).astype(np.float32) if m % 2 else None
            expected = lut.matmul(x, factor, compute=compute, bias=bias)
            assert_close(
                native.lut_matmul(x, factor, compute=compute, bias=bias), expected, 1e-4, (bits, n, k, block_size, m, compute)
            )
            checks += 1
    for conv, outputs in (
        (ConvParams(3, (3, 3), padding=(1, 1, 1, 1)), 20),
        (ConvParams(33, (2, 3), (2, 1), (1, 0, 2, 1), (1, 2)), 16),
        (ConvParams(8, (3, 3), (1, 1), (1, 1, 1, 1), groups=8), 8),
        (ConvParams(6, (3, 3), (2, 2), (1, 1, 0, 0), (2, 1), groups=2), 10),
    ):
        k = conv.kernel_size[0] * conv.kernel_size[1] * lut.round_up(conv.in_channels // conv.groups, 32)
        factor = random_factor(outputs, k, 3, 32, permuted=True, rng=rng)
        x, bias = (
            rng.standard_normal((2, conv.in_channels, 9, 8)).astype(np.float32),
            rng.standard_normal(outputs).astype(np.float32),
        )
        expected = conv2d(x, factor, conv, bias)
        assert_close(native.lut_conv2d(x, factor, conv, compute="float", bias=bias), expected, 1e-5, conv)
        assert_close(native.lut_conv2d(x, factor, conv, compute="int8", bias=bias), expected, 0.03, conv)
        checks += 2
        for bits in range(1, 9):
            narrow = narrow_factor(outputs, conv, bits=bits)
            assert_close(
                native.lut_narrow_conv2d(x, narrow, conv, compute="float", bias=bias),
                conv2d(x, narrow, conv, bias),
                1e-5,
                (conv, bits),
            )
            checks += 1
    return checks + check_empty(rng)


def check_empty(rng: np.random.Generator) -> int:
    """No rows, no indices and images of no pixels."""
    checks = 0
    for permuted, compute in itertools.product((False, True), COMPUTE_MODES):
        factor = random_factor(empty_cases.ROWS, empty_cases.WIDTH, 3, 32, permuted=permuted, rng=rng)
        bias = rng.standard_normal(empty_cases.ROWS).astype(np.float32)
        no_rows = np.zeros((0, empty_cases.WIDTH), np.float32)
        assert lut.matmul(no_rows, factor, compute=compute, bias=bias).shape == (0, empty_cases.ROWS)
        for name, case in empty_cases.CASES.items():
            if name == "matmul":
                checks += case.check(functools.partial(native.lut_matmul, factor=factor, compute=compute, bias=bias), name)
            elif name == "gather":
                checks += case.check(functools.partial(native.lut_gather, factor=factor), name)
            else:
                outputs, conv = empty_cases.CONVOLUTIONS[name]
                k = conv.kernel_size[0] * conv.kernel_size[1] * lut.round_up(conv.in_channels // conv.groups, 32)
                kernel = random_factor(outputs, k, 3, 32, permuted=permuted, rng=rng)
                run = functools.partial(native.lut_conv2d, factor=kernel, conv=conv, compute=compute, bias=bias[:outputs])
                checks += case.check(run, name)
                narrow = narrow_factor(outputs, conv)
                checks += case.check(
                    functools.partial(native.lut_narrow_conv2d, factor=narrow, conv=conv, compute="int8", bias=bias[:outputs]), name
                )
    return checks


if __name__ == "__main__":
    print(native.selected_variant(), check_all())  # noqa: T201
