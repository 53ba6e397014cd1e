"""What ExecuTorch computes from an exported program with our kernels equals the packed PyTorch module, and ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from lut_cases import narrow_factor
from packed_models import Chain, compressed, conv, conv_factor, linear, plan, random_factor
from torch import Tensor, nn

from edgecomp.checkpoint import CompressedModel
from edgecomp.exported.executorch_session import ExecutorchModel
from edgecomp.exported.session import OnnxModel
from edgecomp.exporters import ExportOptions, export
from edgecomp.modules import PackedFactor, PackedLayer
from edgecomp.tensor import Compute, ConvParams, Factor, LayerPlan, TensorSpec

# Starting ExecuTorch takes seconds: one program holds every case, each an output of its own.
WIDTH = 96
LINEAR: dict[str, tuple[LayerPlan, dict[str, Factor]]] = {
    f"bits{bits}": (plan([linear()], bias=bits % 2 == 0), {"w": random_factor(40, WIDTH, bits=bits, books=2)})
    for bits in range(1, 9)
} | {
    "permuted": (plan([linear()], bias=True), {"w": random_factor(40, WIDTH, bits=3, block_size=96, permuted=True)}),
    "one_row": (plan([linear()]), {"w": random_factor(1, WIDTH)}),
    "chain": (
        plan([linear("basis"), linear("coefficients")], [linear("rest")], bias=True),
        {
            "basis": random_factor(20, WIDTH, bits=3),
            "coefficients": random_factor(48, 20, bits=2),
            "rest": random_factor(48, WIDTH),
        },
    ),
}
CONVOLUTIONS = {
    "pointwise": (20, ConvParams(8, (1, 1))),
    "strided": (24, ConvParams(8, (3, 3), (2, 2), (1, 1, 1, 1))),
    "lopsided": (16, ConvParams(8, (3, 2), (1, 2), (2, 0, 1, 3), (2, 1))),
    "grouped": (16, ConvParams(8, (3, 3), (1, 1), (1, 1, 1, 1), groups=4)),
    "depthwise": (8, ConvParams(8, (3, 3), (2, 2), (1, 1, 1, 1), groups=8)),
}


class Parallel(nn.Module):
    """Every layer on the same input."""

    def __init__(self, layers: dict[str, nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(layers)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(layer(x) for layer in self.layers.values())


def parallel_model(cases: dict[str, tuple[LayerPlan, dict[str, Factor]]], spec: TensorSpec, compute: Compute) -> CompressedModel:
    plans, factors, layers = {}, {}, {}
    generator = torch.Generator().manual_seed(0)
    for name, (layer_plan, own) in cases.items():
        renamed = LayerPlan(
            tuple(tuple(type(s)(f"{name}.{s.factor}", s.op, s.conv) for s in term) for term in layer_plan.terms),
            layer_plan.bias,
            compute,
        )
        rows = own[layer_plan.terms[0][-1].factor].shape[0]
        bias = torch.randn(rows, generator=generator) if layer_plan.bias else None
        named = {f"{name}.{factor}": array for factor, array in own.items()}
        factors |= named
        plans[f"layers.{name}"] = renamed
        layers[name] = PackedLayer(renamed, {key: PackedFactor(value) for key, value in named.items()}, bias)
    model = compressed(Parallel(layers), plans, factors, [spec])
    return type(model)(**{**model.__dict__, "outputs": tuple(cases)})


def assert_parity(
    model: CompressedModel, folder: Path, inputs: Sequence[np.ndarray], options: ExportOptions, *, like_onnx: bool
) -> None:
    export(model, "executorch", folder / "m.pte", options=options)
    name = model.inputs[0].name
    onnx = None
    if like_onnx:
        export(model, "onnx", folder / "m.onnx")
        onnx = OnnxModel(folder / "m.onnx")
    with ExecutorchModel(folder / "m.pte", threads=2) as program:
        for x in inputs:
            got = program.run({name: x})
            with torch.no_grad():
                expected = dict(zip(model.outputs, model.module(torch.from_numpy(x)), strict=True))
            for output, reference in expected.items():
                assert got[output].shape == tuple(reference.shape), output
                scale = np.abs(reference.numpy()).max(initial=1e-30)
                assert np.abs(got[output] - reference.numpy()).max(initial=0) <= 1e-4 * scale, output
            if onnx is not None:
                for output, value in onnx.run({name: x}).items():
                    np.testing.assert_array_equal(got[output], value, output)


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("compute", ["float", "int8"])
def test_linear_layers(tmp_path: Path, compute: Compute) -> None:
    model = parallel_model(LINEAR, TensorSpec("x", "float32", ("batch", WIDTH)), compute)
    inputs = [normal(rows, WIDTH) for rows in (1, 2, 7, 0)]
    assert_parity(model, tmp_path, inputs, ExportOptions(max_sizes={"batch": 7}), like_onnx=compute == "int8")


@pytest.mark.parametrize("compute", ["float", "int8"])
def test_convolutions(tmp_path: Path, compute: Compute) -> None:
    cases = {
        name: (plan([conv(params)], bias=name != "strided"), {"w": conv_factor(n, params, bits=3)})
        for name, (n, params) in CONVOLUTIONS.items()
    }
    for bits, name in ((3, "strided"), (4, "grouped"), (7, "depthwise"), (8, "lopsided")):
        n, params = CONVOLUTIONS[name]
        cases[f"narrow_{name}"] = (plan([conv(params)], bias=bits < 7), {"w": narrow_factor(n, params, bits=bits)})
    # Height and width are fixed: with symbolic ones the lowering of this program takes minutes.
    model = parallel_model(cases, TensorSpec("x", "float32", ("batch", 8, 11, 14)), compute)
    inputs = [normal(1, 8, 11, 14), normal(2, 8, 11, 14), normal(0, 8, 11, 14)]
    assert_parity(model, tmp_path, inputs, ExportOptions(max_sizes={"batch": 2}), like_onnx=compute == "int8")


def test_our_operators_among_those_of_xnnpack(tmp_path: Path) -> None:
    """With external constants, and dense layers and norms on both sides."""
    params = ConvParams(8, (3, 3), (1, 1), (1, 1, 1, 1))
    packed_plan, factor = plan([conv(params)]), conv_factor(16, params)
    torch.manual_seed(0)
    layers: dict[str, nn.Module] = {
        "stem": nn.Conv2d(3, 8, 3, padding=1),
        "conv": PackedLayer(packed_plan, {"w": PackedFactor(factor)}, None),
        "norm": nn.BatchNorm2d(16),
        "relu": nn.ReLU(),
        "last": nn.Conv2d(16, 4, 1),
        "pool": nn.AdaptiveAvgPool2d(1),
        "flat": nn.Flatten(),
        "head": nn.Linear(4, 3),
    }
    spec = TensorSpec("x", "float32", ("batch", 3, 12, 12))
    model = compressed(Chain(layers), {"layers.conv": packed_plan}, {"w": factor}, [spec])
    options = ExportOptions(max_sizes={"batch": 3}, external_weights=True)
    assert_parity(model, tmp_path, [normal(3, 3, 12, 12)], options, like_onnx=False)
