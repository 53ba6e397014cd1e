"""Layers that run a plan: sums of terms, chains of stages, shared and dense factors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from packed_models import conv, conv_factor, gather, linear, plan, random_factor
from torch import Tensor, nn

from edgecomp.errors import ModelError
from edgecomp.formats import dense, unpack
from edgecomp.modules import PackedFactor, PackedLayer, set_module
from edgecomp.tensor import ConvParams, Factor, LayerPlan


def layer(layer_plan: LayerPlan, factors: dict[str, Factor], bias: Tensor | None = None) -> PackedLayer:
    return PackedLayer(layer_plan, {name: PackedFactor(factor) for name, factor in factors.items()}, bias)


def x(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_a_module_gives_back_its_factor() -> None:
    factor = random_factor(20, 64, permuted=True)
    back = PackedFactor(factor).to_factor()
    assert (back.format, back.shape, back.attributes) == (factor.format, factor.shape, factor.attributes)
    assert back.arrays.keys() == factor.arrays.keys()
    assert all(np.array_equal(back.arrays[name], array) for name, array in factor.arrays.items())


def test_terms_add_up_and_the_bias_counts_once() -> None:
    factors = {"basis": random_factor(20, 64), "coefficients": random_factor(48, 20), "rest": random_factor(48, 64, seed=1)}
    terms = plan([linear("basis"), linear("coefficients")], [linear("rest")], bias=True)
    weights = unpack(factors["coefficients"]) @ unpack(factors["basis"]) + unpack(factors["rest"])
    inputs, bias = x(3, 64), x(48)
    expected = inputs.numpy() @ weights.T + bias.numpy()
    np.testing.assert_allclose(layer(terms, factors, bias)(inputs).numpy(), expected, rtol=1e-4, atol=1e-4)


def test_a_gather_can_be_followed_by_a_linear_stage() -> None:
    factors = {"rows": random_factor(30, 8), "out": random_factor(48, 8)}
    indices = torch.tensor([[3, 29, 0]])
    got = layer(plan([gather("rows"), linear("out")]), factors)(indices)
    np.testing.assert_allclose(got, unpack(factors["rows"])[indices] @ unpack(factors["out"]).T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_dense_factors_run_on_the_operators_of_torch(dtype: type) -> None:
    weights = np.random.default_rng(0).standard_normal((24, 64)).astype(dtype)
    factors = {"w": dense.pack(weights, dtype)}
    rounded, bias = torch.from_numpy(weights.astype(np.float32)), x(24)
    inputs, rows = x(3, 64), torch.tensor([0, 23])
    torch.testing.assert_close(layer(plan([linear()], bias=True), factors, bias)(inputs), inputs @ rounded.T + bias)
    assert torch.equal(layer(plan([gather()]), factors)(rows), rounded[rows])


def test_a_dense_convolution_is_the_one_of_its_unpacked_kernel() -> None:
    params = ConvParams(6, (3, 2), (2, 1), (1, 0, 2, 1), (1, 2), groups=2)
    packed = conv_factor(8, params)
    factors = {"w": dense.pack(unpack(packed), np.float32)}
    inputs, bias = x(2, 6, 9, 8), x(8)
    terms = plan([conv(params)], bias=True)
    torch.testing.assert_close(layer(terms, factors, bias)(inputs), layer(terms, {"w": packed}, bias)(inputs))


def test_a_format_that_nothing_runs_is_an_error() -> None:
    factor = Factor("sell16", (4, 4), {}, {"values": np.ones(4, np.float32)})
    with pytest.raises(ModelError, match=r"linear stage of format 'sell16' \(factor w\)"):
        layer(plan([linear()]), {"w": factor})(x(1, 4))


def test_layers_share_the_module_of_a_factor() -> None:
    shared = {"w": PackedFactor(random_factor(16, 32))}
    layers = nn.ModuleList(PackedLayer(plan([linear()]), shared, None) for _ in range(2))
    assert layers[0].factor("w") is layers[1].factor("w")
    assert len({id(buffer) for buffer in layers.buffers()}) == len(shared["w"].to_factor().arrays)


def test_convolution_attributes_carry_the_names_of_onnx() -> None:
    assert ConvParams(6, (3, 1), (2, 1), (1, 0, 2, 0), (1, 4), groups=3).attributes == {
        "kernel_shape": [3, 1],
        "strides": [2, 1],
        "pads": [1, 0, 2, 0],
        "dilations": [1, 4],
        "group": 3,
    }


def test_modules_are_replaced_by_name() -> None:
    model, new = nn.Sequential(nn.Sequential(nn.Linear(2, 2))), nn.Identity()
    set_module(model, "0.0", new)
    assert model[0][0] is new
