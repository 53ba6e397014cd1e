"""Combinations of bias, addend, activation and gate: PyTorch, ONNX Runtime with and without our library, ExecuTorch."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from lut_cases import narrow_factor
from packed_models import compressed, conv, conv_factor, linear, plan, random_factor
from torch import Tensor, nn

from edgecomp.checkpoint import CompressedModel
from edgecomp.exported.executorch_session import ExecutorchModel
from edgecomp.exported.library import AUTO, NONE
from edgecomp.exported.session import OnnxModel
from edgecomp.exporters import ExportOptions, export
from edgecomp.formats.lut_stack import stack
from edgecomp.modules import PackedFactor, PackedLayer
from edgecomp.ops import ACTIVATIONS, STAGE_OPERATORS
from edgecomp.tensor import Compute, ConvParams, Factor, Stage, TensorSpec

WIDTH = 64
FEW = ("none", "silu")  # activations of most combinations


class Fused(PackedLayer):
    """A layer of one stage with any epilogue, as no plan asks for yet."""

    def __init__(self, stage: Stage, factor: Factor, bias: Tensor | None, compute: Compute, activation: str, gated: int) -> None:
        super().__init__(plan([stage], bias=bias is not None, compute=compute), {stage.factor: PackedFactor(factor)}, bias)
        self.activation, self.gated = activation, gated

    def forward(self, x: Tensor, addend: Tensor | None = None) -> Tensor:
        (stage,) = self.plan.terms[0]
        factor = self.factor(stage.factor)
        operator = STAGE_OPERATORS[factor.format, stage.op]
        known = {"N": factor.shape[0], "K": factor.shape[1], **factor.attributes, "compute": self.plan.compute}
        known |= {"activation": self.activation, "gated": self.gated, **({} if stage.conv is None else stage.conv.attributes)}
        arrays = [getattr(factor, declared.name, None) for declared in operator.factor.arrays]
        attributes = {declared.name: known[declared.name] for declared in operator.attributes}
        y: Tensor = getattr(torch.ops.edgecomp, operator.name)(x, *arrays, self.bias, addend, **attributes)
        return y


class Cases(nn.Module):
    """Every layer on the same input, some with one of three addends. Nothing but our operators, which nothing is delegated of."""

    def __init__(self, layers: dict[str, Fused], addend_of: dict[str, int | None]) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(layers)
        self.addend_of = addend_of

    def forward(self, x: Tensor, addend0: Tensor, addend1: Tensor, addend2: Tensor) -> tuple[Tensor, ...]:
        addends, outputs = (addend0, addend1, addend2), []
        for name, layer in self.layers.items():
            index = self.addend_of[name]
            outputs.append(layer(x) if index is None else layer(x, addends[index]))
        return tuple(outputs)


def model_of(
    cases: dict[str, tuple[Stage, Factor, bool, int | None, str, int]], specs: list[TensorSpec], compute: Compute
) -> CompressedModel:
    layers, plans, factors, addend_of = {}, {}, {}, {}
    generator = torch.Generator().manual_seed(0)
    for name, (stage, factor, has_bias, addend, activation, gated) in cases.items():
        own = Stage(f"{name}.w", stage.op, stage.conv)
        bias = torch.randn(factor.shape[0], generator=generator) if has_bias else None
        layers[name] = Fused(own, factor, bias, compute, activation, gated)
        plans[f"layers.{name}"], factors[own.factor], addend_of[name] = layers[name].plan, factor, addend
    model = compressed(Cases(layers, addend_of), plans, factors, specs)
    return type(model)(**{**model.__dict__, "outputs": tuple(cases)})


def assert_agreement(model: CompressedModel, folder: Path, inputs: list[dict[str, np.ndarray]], options: ExportOptions) -> None:
    export(model, "onnx", folder / "m.onnx")
    export(model, "executorch", folder / "m.pte", options=options)
    library, stock = OnnxModel(folder / "m.onnx", AUTO), OnnxModel(folder / "m.onnx", NONE)
    compute = next(iter(model.module.layers.children())).plan.compute
    with ExecutorchModel(folder / "m.pte", threads=2) as program:
        for given in inputs:
            with torch.no_grad():
                expected = model.module(*map(torch.from_numpy, given.values()))
            ours, portable, executorch = library.run(given), stock.run(given), program.run(given)
            for name, reference in zip(model.outputs, expected, strict=True):
                scale = np.abs(reference.numpy()).max()
                np.testing.assert_array_equal(executorch[name], ours[name], name)
                assert ours[name].shape == tuple(reference.shape) == portable[name].shape, name
                assert np.abs(ours[name] - reference.numpy()).max() <= 1e-4 * scale, name
                # The function computes in float: int8 compute differs by the rounding of activations.
                bound = 1e-4 if compute == "float" else 0.05
                assert np.abs(portable[name] - reference.numpy()).max() <= bound * scale, name


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("compute", ["float", "int8"])
def test_matrix_products(tmp_path: Path, compute: Compute) -> None:
    factors = {
        "pairs": random_factor(64, WIDTH, bits=4, books=2),  # halves of whole tiles
        "rest": random_factor(42, WIDTH, bits=3, books=2),
        "permuted": random_factor(64, WIDTH, bits=5, permuted=True),
    }
    columns = [factor.shape[0] for factor in factors.values()]
    specs = [TensorSpec("x", "float32", ("batch", WIDTH))]
    specs += [TensorSpec(f"addend{i}", "float32", ("batch", n)) for i, n in enumerate(columns)]
    cases = {}
    for index, (kind, factor) in enumerate(factors.items()):
        # The kernels' tests have every combination on every path of them; here it is runtimes that differ.
        for bias, addend, gated, activation in itertools.product((0, 1), (0, 1), (0, 1), ACTIVATIONS):
            if kind != "pairs" and bias == addend:
                continue
            if activation not in FEW and not (kind == "pairs" and compute == "float" and bias and addend):
                continue
            name = f"{kind}_{bias}{addend}{gated}_{activation}"
            cases[name] = (linear(), factor, bool(bias), index if addend else None, activation, gated)
    model = model_of(cases, specs, compute)
    inputs = [
        {"x": normal(0, rows, WIDTH), **{f"addend{i}": normal(i + 1, rows, n) for i, n in enumerate(columns)}} for rows in (1, 7)
    ]
    assert_agreement(model, tmp_path, inputs, ExportOptions(max_sizes={"batch": 7}))


@pytest.mark.parametrize("compute", ["float", "int8"])
def test_convolutions(tmp_path: Path, compute: Compute) -> None:
    plain, grouped = ConvParams(8, (3, 3), (2, 1), (1, 1, 1, 1)), ConvParams(8, (3, 3), (2, 1), (1, 1, 1, 1), groups=8)
    specs = [TensorSpec("x", "float32", ("batch", 8, 9, 7))]
    specs += [TensorSpec(f"addend{i}", "float32", ("batch", 16, 5, 7)) for i in range(3)]
    cases = {}
    for params, bias, addend, activation in itertools.product((plain, grouped), (0, 1), (0, 1), ACTIVATIONS):
        if activation not in FEW and not (compute == "float" and bias and addend):
            continue
        name = f"groups{params.groups}_{bias}{addend}_{activation}"
        for kind, factor in (("lut", conv_factor(16, params, bits=3)), ("narrow", narrow_factor(16, params, bits=3))):
            own = len(cases) % 3 if addend else None  # each of the three addends is used
            cases[f"{kind}_{name}"] = (conv(params), factor, bool(bias), own, activation, 0)
    model = model_of(cases, specs, compute)
    inputs = [
        {"x": normal(0, batch, 8, 9, 7), **{f"addend{i}": normal(i + 1, batch, 16, 5, 7) for i in range(3)}} for batch in (1, 2)
    ]
    assert_agreement(model, tmp_path, inputs, ExportOptions(max_sizes={"batch": 2}))


@pytest.mark.parametrize(
    "rows", [((48, False), (16, False), (20, False)), ((20, False), (33, False)), ((16, True), (20, False))], ids=str
)
@pytest.mark.parametrize("bits", [3, 8])
@pytest.mark.parametrize("compute", ["float", "int8"])
def test_stacked_matrices_give_what_each_gives(rows: tuple[tuple[int, bool], ...], bits: int, compute: Compute) -> None:
    from edgecomp import native

    factors = [random_factor(n, WIDTH, bits=bits, books=2, permuted=p, seed=i) for i, (n, p) in enumerate(rows)]
    stacked = stack(factors)
    assert ("row_index" in stacked.arrays) == any(permuted or n % 16 for n, permuted in rows[:-1])
    for m in (1, 6, 40):
        x = normal(m, m, WIDTH)
        parts = [native.lut_matmul(x, factor, compute=compute) for factor in factors]
        assert np.array_equal(native.lut_matmul(x, stacked, compute=compute), np.concatenate(parts, axis=1))
