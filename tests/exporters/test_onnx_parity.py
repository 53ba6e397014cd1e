"""What a stock ONNX Runtime computes from an exported file equals the packed PyTorch module."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from lut_cases import narrow_factor
from packed_models import chain_model, conv, conv_factor, features, gather, linear, plan, random_factor

from edgecomp.checkpoint import CompressedModel
from edgecomp.exporters import export
from edgecomp.tensor import ConvParams, TensorSpec

ort = pytest.importorskip("onnxruntime")

IDS = TensorSpec("ids", "int64", ("batch", "sequence"))


def assert_parity(model: CompressedModel, folder: Path, *inputs: np.ndarray) -> None:
    """Export, run on a stock ONNX Runtime at sizes other than traced, compare with the module."""
    path = folder / "model.onnx"
    export(model, "onnx", path, overwrite=True)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    got = session.run(None, {spec.name: value for spec, value in zip(model.inputs, inputs, strict=True)})
    with torch.no_grad():
        expected = model.module(*map(torch.from_numpy, inputs))
    assert len(got) == len(expected)
    for actual, reference in zip(got, expected, strict=True):
        assert actual.shape == tuple(reference.shape)
        assert np.abs(actual - reference.numpy()).max() <= 1e-4 * np.abs(reference.numpy()).max()


def x(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("permuted", [False, True], ids=["plain", "permuted"])
def test_linear_of_every_width(tmp_path: Path, bits: int, permuted: bool) -> None:
    factor = random_factor(40, 96, bits=bits, block_size=96 if permuted else 32, books=2, permuted=permuted)
    model = chain_model({"fc": plan([linear()], bias=permuted)}, {"w": factor}, features(96))
    assert_parity(model, tmp_path, x(5, 96))


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("permuted", [False, True], ids=["plain", "permuted"])
def test_gather_of_every_width(tmp_path: Path, bits: int, permuted: bool) -> None:
    factor = random_factor(40, 72, bits=bits, books=3, permuted=permuted)
    model = chain_model({"table": plan([gather()])}, {"w": factor}, IDS)
    assert_parity(model, tmp_path, np.array([[0, 39, 17, -1], [16, 15, -40, 3]]))


@pytest.mark.parametrize(("n", "k"), [(1, 1), (16, 32), (17, 33), (100, 5)])
@pytest.mark.parametrize("batch", [1, 6])
def test_sizes_that_do_not_fill_tiles(tmp_path: Path, n: int, k: int, batch: int) -> None:
    model = chain_model({"fc": plan([linear()], bias=True)}, {"w": random_factor(n, k)}, features(k))
    assert_parity(model, tmp_path, x(batch, k))


@pytest.mark.parametrize("shape", [(1, 1), (2, 9), (5, 70)])
def test_three_dimensional_input(tmp_path: Path, shape: tuple[int, int]) -> None:
    model = chain_model({"fc": plan([linear()])}, {"w": random_factor(24, 64)}, features(64, "batch", "sequence"))
    assert_parity(model, tmp_path, x(*shape, 64))


def test_sums_and_chains_of_mixed_widths(tmp_path: Path) -> None:
    factors = {
        "basis": random_factor(20, 64, bits=3),
        "coefficients": random_factor(48, 20, bits=2, permuted=True),
        "rest": random_factor(48, 64, bits=5, seed=1),
    }
    terms = plan([linear("basis"), linear("coefficients")], [linear("rest")], bias=True)
    assert_parity(chain_model({"fc": terms}, factors, features(64)), tmp_path, x(7, 64))


@pytest.mark.parametrize("permuted", [False, True], ids=["plain", "permuted"])
def test_tied_table_and_head(tmp_path: Path, permuted: bool) -> None:
    factor = random_factor(50, 64, permuted=permuted)
    model = chain_model({"table": plan([gather()]), "head": plan([linear()], bias=True)}, {"w": factor}, IDS)
    assert_parity(model, tmp_path, np.array([[1, 2, 3], [49, 0, 16]]))


CONVOLUTIONS = {
    "pointwise": (20, ConvParams(40, (1, 1))),
    "strided": (24, ConvParams(3, (3, 3), (2, 2), (1, 1, 1, 1))),
    "lopsided": (16, ConvParams(8, (3, 2), (1, 2), (2, 0, 1, 3), (2, 1))),
    "grouped": (36, ConvParams(12, (3, 3), (1, 1), (1, 1, 1, 1), groups=3)),
    "depthwise": (40, ConvParams(40, (3, 3), (2, 2), (1, 1, 1, 1), groups=40)),
}


@pytest.mark.parametrize("permuted", [False, True], ids=["plain", "permuted"])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution(tmp_path: Path, name: str, permuted: bool) -> None:
    n, params = CONVOLUTIONS[name]
    factor = conv_factor(n, params, bits=3, permuted=permuted)
    image = TensorSpec("x", "float32", ("batch", params.in_channels, "height", "width"))
    model = chain_model({"conv": plan([conv(params)], bias=permuted)}, {"w": factor}, image)
    assert_parity(model, tmp_path, x(2, params.in_channels, 11, 14))


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("name", ["strided", "lopsided", "grouped", "depthwise"])
def test_narrow_convolution(tmp_path: Path, name: str, bits: int) -> None:
    n, params = CONVOLUTIONS[name]
    image = TensorSpec("x", "float32", ("batch", params.in_channels, "height", "width"))
    model = chain_model({"conv": plan([conv(params)], bias=bits % 2 == 0)}, {"w": narrow_factor(n, params, bits=bits)}, image)
    assert_parity(model, tmp_path, x(2, params.in_channels, 11, 14))
