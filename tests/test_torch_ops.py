"""The PyTorch operators against the numpy reference of the format, and against torch's own layers."""

from __future__ import annotations

from collections.abc import Callable

import empty_cases
import numpy as np
import pytest
import torch
from packed_models import chain_model, conv, conv_factor, features, gather, linear, plan, random_factor
from torch import Tensor, nn
from torch.export import Dim

from edgecomp import torch_ops  # noqa: F401  (registers the operators)
from edgecomp.columns import ConvColumns
from edgecomp.errors import FormatError
from edgecomp.formats import lut, unpack
from edgecomp.modules import PackedFactor, PackedLayer
from edgecomp.ops import NO_EPILOGUE
from edgecomp.tensor import COMPUTE_MODES, Compute, ConvParams, Factor, TensorSpec

ARRAYS = ("codes", "codebooks", "tile_book", "scales", "row_scale", "row_index")

PLAIN = NO_EPILOGUE


def arrays_of(factor: Factor) -> list[Tensor | None]:
    return [torch.from_numpy(factor.arrays[name]) if name in factor.arrays else None for name in ARRAYS]


def attributes_of(factor: Factor) -> dict[str, int]:
    return {"N": factor.shape[0], "K": factor.shape[1], **factor.attributes}


def x(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("compute", ["int8", "float"])
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("permuted", [False, True], ids=["plain", "permuted"])
def test_matmul_is_the_reference(compute: Compute, bits: int, permuted: bool) -> None:
    factor = random_factor(21, 72, bits=bits, block_size=96 if permuted else 32, books=2, permuted=permuted)
    bias = np.linspace(-1, 1, 21, dtype=np.float32)
    inputs = x(2, 3, 72)
    got = torch.ops.edgecomp.lut_matmul(
        inputs, *arrays_of(factor), torch.from_numpy(bias), None, **attributes_of(factor), **PLAIN, compute=compute
    )
    expected = lut.matmul(inputs.reshape(6, 72).numpy(), factor, compute=compute, bias=bias).reshape(2, 3, 21)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bits", [1, 3, 8])
@pytest.mark.parametrize("permuted", [False, True], ids=["plain", "permuted"])
def test_gather_is_the_rows(bits: int, permuted: bool) -> None:
    factor = random_factor(21, 40, bits=bits, books=2, permuted=permuted)
    indices = torch.tensor([[0, 20, 5], [5, -1, -21]])
    got = torch.ops.edgecomp.lut_gather(indices, *arrays_of(factor), **attributes_of(factor))
    assert np.array_equal(got.numpy(), unpack(factor)[indices.numpy()])
    assert torch.ops.edgecomp.lut_gather(indices[:0], *arrays_of(factor), **attributes_of(factor)).shape == (0, 3, 40)


@pytest.mark.parametrize("compute", COMPUTE_MODES)
@pytest.mark.parametrize("name", empty_cases.CASES)
def test_empty_inputs_give_empty_outputs(name: str, compute: Compute) -> None:
    stage = {"matmul": linear(), "gather": gather()}.get(name)
    factor = random_factor(empty_cases.ROWS, empty_cases.WIDTH, bits=3)
    if stage is None:
        outputs, params = empty_cases.CONVOLUTIONS[name]
        stage, factor = conv(params), conv_factor(outputs, params, bits=3)
    layer = PackedLayer(plan([stage], compute=compute), {"w": PackedFactor(factor)}, None)
    assert empty_cases.CASES[name].check(lambda array: layer(torch.from_numpy(array)).numpy(), name)


@pytest.mark.parametrize("index", [21, 31, -22])
def test_gather_refuses_rows_that_are_not_there(index: int) -> None:
    factor = random_factor(21, 40)
    with pytest.raises(IndexError, match=r"in \[-21, 20\]"):
        torch.ops.edgecomp.lut_gather(torch.tensor([0, index]), *arrays_of(factor), **attributes_of(factor))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_activations_that_are_not_finite_show(value: float) -> None:
    factor = random_factor(16, 64)
    inputs = x(2, 64)
    inputs[0, 40] = value
    y = torch.ops.edgecomp.lut_matmul(inputs, *arrays_of(factor), None, None, **attributes_of(factor), **PLAIN, compute="int8")
    assert y[0].isnan().all()
    assert y[1].isfinite().all()


def test_zero_activations_give_zero() -> None:
    factor = random_factor(16, 64)
    y = torch.ops.edgecomp.lut_matmul(
        torch.zeros(2, 64), *arrays_of(factor), None, None, **attributes_of(factor), **PLAIN, compute="int8"
    )
    assert not y.any()


def test_unknown_compute_modes_are_refused() -> None:
    factor = random_factor(16, 64)
    with pytest.raises(FormatError, match="int8, float, got 'int4'"):
        torch.ops.edgecomp.lut_matmul(x(1, 64), *arrays_of(factor), None, None, **attributes_of(factor), **PLAIN, compute="int4")


CONVOLUTIONS = {
    "pointwise": (20, ConvParams(40, (1, 1))),
    "strided": (24, ConvParams(3, (3, 3), (2, 2), (1, 1, 1, 1))),
    "lopsided": (16, ConvParams(8, (3, 2), (1, 2), (2, 0, 1, 3), (2, 1))),
    "grouped": (36, ConvParams(12, (3, 3), (1, 1), (1, 1, 1, 1), groups=3)),
    "depthwise": (40, ConvParams(40, (3, 3), (2, 1), (1, 1, 1, 1), (1, 2), groups=40)),
}


def run_conv(factor: Factor, params: ConvParams, inputs: Tensor, bias: Tensor, compute: Compute) -> Tensor:
    y: Tensor = PackedLayer(plan([conv(params)], bias=True, compute=compute), {"w": PackedFactor(factor)}, bias)(inputs)
    return y


@pytest.mark.parametrize("permuted", [False, True], ids=["plain", "permuted"])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_float_convolution_is_the_one_with_the_unpacked_kernel(name: str, permuted: bool) -> None:
    n, params = CONVOLUTIONS[name]
    factor = conv_factor(n, params, bits=3, permuted=permuted)
    inputs, bias = x(2, params.in_channels, 9, 11), x(n)
    top, left, bottom, right = params.padding
    kernel = ConvColumns(params).kernel(torch.from_numpy(unpack(factor)))
    padded = nn.functional.pad(inputs, (left, right, top, bottom))
    expected = nn.functional.conv2d(padded, kernel, bias, params.stride, 0, params.dilation, params.groups)
    torch.testing.assert_close(run_conv(factor, params, inputs, bias, "float"), expected, rtol=1e-4, atol=1e-5)


def patches_of(image: np.ndarray, params: ConvParams) -> tuple[np.ndarray, tuple[int, int]]:
    """Columns (kernel row, kernel column, padded channel) of every output pixel of one image `[C, H, W]`, pixel by pixel."""
    top, left, bottom, right = params.padding
    padded = np.pad(image, ((0, -len(image) % 32), (top, bottom), (left, right)))
    reach = [d * (k - 1) + 1 for d, k in zip(params.dilation, params.kernel_size, strict=True)]
    height = (padded.shape[1] - reach[0]) // params.stride[0] + 1
    width = (padded.shape[2] - reach[1]) // params.stride[1] + 1
    patches = []
    for row in range(height):
        for column in range(width):
            y, z = row * params.stride[0], column * params.stride[1]
            patch = padded[:, y : y + reach[0] : params.dilation[0], z : z + reach[1] : params.dilation[1]]
            patches.append(patch.transpose(1, 2, 0).reshape(-1))
    return np.stack(patches), (height, width)


def on_grid(image: np.ndarray) -> np.ndarray:
    """An image after the quantisation of lut.md "Convolution", from its formulas."""
    least, most = np.minimum(image.min(), 0), np.maximum(image.max(), 0)
    inverse = np.float32(255) / (most - least)
    zero = np.rint(-least * inverse)
    q = np.minimum(np.rint(image * inverse) + zero, 255)
    grid: np.ndarray = (q - zero) * ((most - least) / np.float32(255))
    return grid


@pytest.mark.parametrize("name", ["pointwise", "strided", "lopsided"])
def test_int8_convolution_is_the_matmul_over_patches_of_images_on_their_grid(name: str) -> None:
    n, params = CONVOLUTIONS[name]
    factor = conv_factor(n, params, bits=4)
    inputs, bias = x(2, params.in_channels, 9, 11), x(n)
    expected = []
    for image in inputs.numpy():
        patches, (height, width) = patches_of(on_grid(image), params)
        expected.append(lut.matmul(patches, factor, compute="float", bias=bias.numpy()).T.reshape(n, height, width))
    got = run_conv(factor, params, inputs, bias, "int8")
    np.testing.assert_allclose(got, np.stack(expected), rtol=1e-4, atol=1e-5)


def test_a_kernel_survives_the_order_of_the_format() -> None:
    kernel = x(8, 5, 3, 2)
    columns = ConvColumns(ConvParams(10, (3, 2), groups=2))
    matrix = columns.matrix(kernel)
    assert matrix.shape == (8, 3 * 2 * 5)
    padded = columns.padded(matrix)
    assert padded.shape == (8, 3 * 2 * 32)
    assert torch.equal(padded.reshape(8, 3, 2, 32)[:, 2, 1, :5], kernel[:, :, 2, 1])
    assert torch.equal(padded[:, columns.real()], matrix)
    assert torch.equal(columns.kernel(matrix), kernel)
    assert torch.equal(columns.kernel(padded), kernel)


def image_of(params: ConvParams) -> TensorSpec:
    return TensorSpec("x", "float32", ("batch", params.in_channels, "height", "width"))


def strided_conv() -> tuple[nn.Module, Tensor, Tensor, dict[int, Dim]]:
    n, params = CONVOLUTIONS["strided"]
    model = chain_model({"conv": plan([conv(params)], bias=True)}, {"w": conv_factor(n, params)}, image_of(params))
    return model.module, x(2, 3, 9, 12), x(3, 3, 10, 7), {0: Dim("batch"), 2: Dim("height", min=4), 3: Dim("width", min=4)}


def matmul_model() -> tuple[nn.Module, Tensor, Tensor, dict[int, Dim]]:
    model = chain_model({"fc": plan([linear()], bias=True)}, {"w": random_factor(24, 64)}, features(64, "batch", "sequence"))
    return model.module, x(2, 5, 64), x(3, 1, 64), {0: Dim("batch"), 1: Dim("sequence")}


def gather_model() -> tuple[nn.Module, Tensor, Tensor, dict[int, Dim]]:
    ids = TensorSpec("x", "int64", ("batch", "sequence"))
    model = chain_model({"table": plan([gather()])}, {"w": random_factor(24, 64)}, ids)
    return model.module, torch.arange(6).reshape(2, 3), torch.arange(20).reshape(4, 5), {0: Dim("batch"), 1: Dim("sequence")}


@pytest.mark.parametrize("make", [matmul_model, gather_model, strided_conv])
def test_exported_programs_run_at_other_sizes(make: Callable[[], tuple[nn.Module, Tensor, Tensor, dict[int, Dim]]]) -> None:
    module, traced, other, dims = make()
    program = torch.export.export(module, (traced,), dynamic_shapes=(dims,))
    shape = next(node for node in program.graph.nodes if node.op == "output").args[0][0].meta["val"].shape
    assert isinstance(shape[0], torch.SymInt)
    (expected,) = module(other)
    (got,) = program.module()(other)
    assert torch.equal(got, expected)
