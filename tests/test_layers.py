"""Which layers of a model are found, and how a model is put together from packed ones."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from packed_models import conv, conv_factor, gather, linear, plan, random_factor
from torch import nn
from torch.nn.utils import parametrizations, weight_norm

import edgecomp
from edgecomp.assembly import dense_tensors, install, require_complete
from edgecomp.columns import ConvColumns, stage_output
from edgecomp.draft import Draft
from edgecomp.errors import CheckpointError, ModelError
from edgecomp.layers import conv_params, draft_of, find_layers
from edgecomp.passes import PASSES, PassContext
from edgecomp.passes.lut_kmeans import LutKmeans
from edgecomp.rounding import Rounding
from edgecomp.tensor import ConvParams, Factor, LayerPlan, Stage


class Scaled(nn.Linear):
    """A subclass that reads its weight in ways of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * 2


def test_layers_are_found_in_the_order_of_the_model() -> None:
    model = nn.ModuleDict({"z": nn.Embedding(4, 8), "a": nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Conv2d(1, 1, 1))})
    assert list(find_layers(model)) == ["z", "a.0", "a.2"]


@pytest.mark.parametrize(
    "module",
    [
        Scaled(8, 8),
        nn.Embedding(4, 8, max_norm=1.0),
        nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"),
        nn.Conv1d(1, 1, 3),
        nn.MultiheadAttention(8, 2),
        parametrizations.weight_norm(nn.Linear(8, 8)),
        weight_norm(nn.Linear(8, 8)),
    ],
    ids=lambda module: type(module).__name__,
)
def test_layers_that_use_their_weight_otherwise_are_left_alone(module: nn.Module) -> None:
    assert list(find_layers(nn.Sequential(nn.Linear(8, 8), module))) == ["0"]


def test_a_draft_holds_each_matrix_once() -> None:
    model = nn.ModuleDict({"table": nn.Embedding(16, 8), "head": nn.Linear(8, 16), "conv": nn.Conv2d(3, 4, 2)})
    model["head"].weight = model["table"].weight
    draft = draft_of(model)
    assert {name: tuple(matrix.shape) for name, matrix in draft.matrices.items()} == {
        "table.weight": (16, 8),
        "conv.weight": (4, 2 * 2 * 3),
    }
    assert [use.layer for use in draft.uses("table.weight")] == ["table", "head"]
    assert {name: (layer.op, layer.bias, layer.parameters) for name, layer in draft.layers.items()} == {
        "table": ("gather", None, 128),
        "head": ("linear", "head.bias", 128),
        "conv": ("conv", "conv.bias", 48),
    }
    kernel = ConvColumns(conv_params(model["conv"])).kernel(draft.matrices["conv.weight"])
    assert torch.equal(kernel, model["conv"].weight)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused_by_name(value: float) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    model[1].weight.data[2, 3] = value
    with pytest.raises(ModelError, match=r"1\.weight holds 1 NaN or infinite"):
        draft_of(model)


def test_models_without_layers_to_compress_are_refused() -> None:
    with pytest.raises(ModelError, match="this one has none"):
        draft_of(nn.Sequential(nn.LayerNorm(8)))
    with pytest.raises(ModelError, match=r"nn\.Sequential"):
        draft_of(nn.Linear(8, 8))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 8, 3, padding="same"),
        nn.Conv2d(4, 8, (4, 2), padding="same", dilation=(1, 3)),
        nn.Conv2d(4, 8, 3, padding="valid", stride=2),
        nn.Conv2d(4, 8, (3, 1), (2, 1), (2, 0), (1, 2), groups=2),
    ],
    ids=str,
)
def test_geometry_of_a_convolution(layer: nn.Conv2d) -> None:
    params = conv_params(layer)
    image = torch.randn(2, 4, 11, 12)
    top, left, bottom, right = params.padding
    padded = nn.functional.pad(image, (left, right, top, bottom))
    assert layer.bias is not None
    expected = nn.functional.conv2d(padded, layer.weight, layer.bias, params.stride, 0, params.dilation, params.groups)
    torch.testing.assert_close(layer(image), expected)


def test_dense_tensors_are_rounded_and_stay_shared() -> None:
    model = nn.ModuleDict({"fc": nn.Linear(8, 8), "one": nn.LayerNorm(8), "two": nn.LayerNorm(8)})
    model["two"].weight = model["one"].weight
    model.register_buffer("step", torch.tensor([3]))
    tensors = dense_tensors(model, {"fc": replace(plan([linear()]), bias="fc.bias")}, {}, Rounding(torch.float16))
    assert set(tensors) == {"step", "fc.bias", "one.weight", "one.bias", "two.weight", "two.bias"}
    assert tensors["two.weight"] is tensors["one.weight"]
    assert (tensors["one.bias"].dtype, tensors["step"].dtype) == (torch.float16, torch.int64)


def test_infinite_buffers_stay_infinite() -> None:
    model = nn.Module()
    model.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
    assert dense_tensors(model, {}, {}, Rounding(torch.float16))["mask"].tolist() == [0.0, -torch.inf]


CONV = ConvParams(3, (3, 3), padding=(1, 1, 1, 1))
PLANS = {"table": plan([gather("w")]), "fc": replace(plan([linear("w")]), bias="fc.bias"), "conv": plan([conv(CONV, "kernel")])}
FACTORS = {"w": random_factor(40, 64), "kernel": conv_factor(16, CONV)}


def original() -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict(
        {
            "table": nn.Embedding(40, 64),
            "fc": nn.Linear(64, 40),
            "norm": nn.LayerNorm(40),
            "conv": nn.Conv2d(3, 16, 3, padding=1, bias=False),
        }
    )


def test_installed_layers_run_from_their_factors() -> None:
    model = original()
    dense = dense_tensors(model, PLANS, {}, Rounding(torch.float32))
    require_complete(model, PLANS, FACTORS, dense)
    packed = copy.deepcopy(model)
    install(packed, PLANS, FACTORS, dense)
    x = torch.randn(3, 64)
    weights = packed["table"](torch.arange(40))
    torch.testing.assert_close(packed["fc"](x), x @ weights.T + model["fc"].bias)
    assert torch.equal(packed["norm"].weight, model["norm"].weight)
    assert packed["table"].factor("w") is packed["fc"].factor("w")


BAD_PLANS: dict[str, tuple[dict[str, LayerPlan], str]] = {
    "no such layer": ({"fc2": plan([linear("w")])}, "no layer fc2"),
    "a container": ({"": plan([linear("w")])}, "no layer"),
    "a norm": ({"norm": plan([linear("w")])}, "no layer norm"),
    "no such factor": ({"fc": plan([linear("v")])}, r"fc needs the factors \['v'\]"),
    "a factor of another shape": ({"fc": plan([linear("small")])}, "fc must lead from 64 inputs to 40 outputs"),
    "a chain that does not meet": ({"fc": plan([linear("small"), linear("w")])}, "fc must lead"),
    "a second term of another shape": ({"fc": plan([linear("w")], [linear("small")])}, "fc must lead"),
    "a gather in a linear layer": ({"fc": plan([gather("w")])}, "fc must lead from 64 inputs to 40 outputs by linear"),
    "a linear stage in an embedding": ({"table": plan([linear("w")])}, "table must lead from 40 inputs to 64 outputs by gather"),
    "channels that differ": ({"conv": plan([conv(replace(CONV, in_channels=4), "kernel")])}, "conv must lead"),
    "taps that differ": ({"conv": plan([conv(replace(CONV, kernel_size=(3, 2)), "kernel")])}, "conv must lead"),
    "another stride": ({"conv": plan([conv(replace(CONV, stride=(1, 2)), "kernel")])}, "conv must lead .* heights and widths"),
    "another padding": ({"conv": plan([conv(replace(CONV, padding=(1, 0, 1, 0)), "kernel")])}, "conv must lead"),
    "another dilation": ({"conv": plan([conv(replace(CONV, dilation=(3, 3)), "kernel")])}, "conv must lead"),
    "a chain of another stride": (
        {"conv": plan([conv(ConvParams(3, (1, 1), (2, 2)), "three"), conv(CONV, "kernel")])},
        "conv must lead",
    ),
    "rows that groups do not divide": (
        {"conv": plan([conv(CONV, "kernel")], [conv(ConvParams(3, (1, 1)), "five"), conv(ConvParams(5, (1, 1), groups=5), "one")])},
        "conv must lead",
    ),
    "a bias of another shape": ({"fc": replace(plan([linear("w")]), bias="norm.pad")}, r"norm\.pad must have the shape \[40\]"),
    "a bias that is not there": ({"fc": replace(plan([linear("w")]), bias="fc.offset")}, r"lacks fc\.offset"),
}


@pytest.mark.parametrize("what", BAD_PLANS)
def test_plans_that_do_not_make_up_the_model_are_refused(what: str) -> None:
    plans, message = BAD_PLANS[what]
    factors: dict[str, Factor] = {**FACTORS, "small": random_factor(40, 32), "one": conv_factor(16, ConvParams(1, (1, 1)))}
    factors |= {name: conv_factor(n, ConvParams(3, (1, 1))) for name, n in {"three": 3, "five": 5}.items()}
    dense = {**dense_tensors(original(), plans, {}, Rounding(torch.float32)), "norm.pad": torch.zeros(3)}
    with pytest.raises(CheckpointError, match=message):
        require_complete(original(), plans, factors, dense)


def test_tensors_that_are_missing_unknown_or_of_another_shape_are_refused() -> None:
    dense = dense_tensors(original(), PLANS, {}, Rounding(torch.float32))
    with pytest.raises(CheckpointError, match=r"lacks norm\.bias"):
        require_complete(original(), PLANS, FACTORS, {name: t for name, t in dense.items() if name != "norm.bias"})
    with pytest.raises(CheckpointError, match=r"no tensor norm\.offset"):
        install(original(), PLANS, FACTORS, {**dense, "norm.offset": torch.ones(40)})
    with pytest.raises(CheckpointError, match=r"norm\.bias must have the shape \[40\].*\[39\]"):
        install(original(), PLANS, FACTORS, {**dense, "norm.bias": torch.ones(39)})


def test_a_pass_may_add_and_drop_a_bias(tmp_path: Path) -> None:
    """`0` gets one, `1` loses its own, `2` keeps its weight as it is and gets one all the same."""

    class Biases(LutKmeans):
        def run(self, draft: Draft, context: PassContext) -> None:
            super().run(draft, context)
            draft.tensors |= {"0.bias": torch.full((32,), 2.0), "2.bias": torch.full((8,), 3.0)}
            for name, bias in {"0": "0.bias", "1": None, "2": "2.bias"}.items():
                draft.plans[name] = replace(draft.plans[name], bias=bias)

    model = nn.Sequential(nn.Linear(32, 32, bias=False), nn.Linear(32, 32), nn.Linear(32, 8, bias=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PASSES, "lut-kmeans", Biases)
        passes = [{"method": "lut-kmeans", "bits": 8, "weighting": "none", "skip": ["2"]}]
        passes += [{"method": "jlcm", "steps": 1, "dense_rate": 0.5}]
        samples = [{"x": np.ones((1, 32), np.float32) * i} for i in range(9)]
        packed = edgecomp.compress(model, {"version": 1, "passes": passes[:1]}, samples)
        learned = edgecomp.compress(model, {"version": 1, "passes": [passes[0] | {"bits": 4}, passes[1]]}, samples)
    assert {name: tensor.tolist() for name, tensor in packed.dense.items()} == {"0.bias": [2.0] * 32, "2.bias": [3.0] * 8}
    assert learned.dense.keys() == packed.dense.keys()
    packed.save(tmp_path / "model.ec")
    x = torch.randn(1, 32)
    expected = nn.functional.linear(nn.functional.linear(model[0](x) + 2, model[1].weight), model[2].weight) + 3
    for module in (packed.module, edgecomp.load(tmp_path / "model.ec", model=model).module):
        assert torch.allclose(module(x), expected, rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    ("tensors", "bias", "message"),
    [
        ({"0.biass": torch.ones(8)}, None, "0.biass is none"),
        ({"1.weight": torch.ones(4, 8)}, None, "1.weight is none"),
        ({"1.bias": torch.ones(5)}, None, r"1\.bias must have the shape \[4\]"),
        ({"0.bias": torch.ones(5)}, "0.bias", r"0\.bias must have the shape \[8\]"),
        ({}, "0.bias", r"the bias of 0 must be 0\.bias"),
        ({}, "1.bias", r"the bias of 0 must be 0\.bias"),
    ],
)
def test_dense_tensors_that_a_pass_cannot_have_meant_are_refused(
    tensors: dict[str, torch.Tensor], bias: str | None, message: str
) -> None:
    draft = draft_of(nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 4)))
    draft.check()
    draft.tensors |= tensors
    draft.plans["0"] = replace(draft.plans["0"], bias=bias)
    with pytest.raises(ModelError, match=message):
        draft.check()


@pytest.mark.parametrize(
    ("chain", "fits"),
    [
        ([ConvParams(3, (1, 1)), ConvParams(4, (3, 3), (2, 3), (1, 1, 1, 1))], True),
        ([ConvParams(3, (3, 1), (2, 1), (1, 0, 1, 0)), ConvParams(4, (1, 3), (1, 3), (0, 1, 0, 1))], True),
        ([ConvParams(3, (3, 3), (2, 3), (2, 0, 0, 2))], True),
        ([ConvParams(3, (3, 3), (2, 3), (1, 1, 0, 1))], False),  # as many rows for odd heights alone
        ([ConvParams(3, (1, 1), (2, 3)), ConvParams(4, (3, 3), (1, 1), (1, 1, 1, 1))], True),
        ([ConvParams(3, (3, 3), (2, 1), (1, 1, 1, 1)), ConvParams(4, (1, 1), (1, 2))], False),
    ],
)
def test_chains_of_convolutions_give_the_layer_s_sizes(chain: list[ConvParams], fits: bool) -> None:
    draft = draft_of(nn.Sequential(nn.Conv2d(3, 4, 3, (2, 3), 1)))
    sizes = [(nn.Conv2d(3, 4, 3, (2, 3), 1)(torch.zeros(1, 3, h, h + 3)).shape) for h in range(9, 16)]
    made = []
    for h in range(9, 16):
        x = torch.zeros(1, 3, h, h + 3)
        for params in chain:
            x = stage_output("conv", params, torch.zeros(4, ConvColumns(params).count), x)
        made.append(x.shape)
    assert (made == sizes) == fits
    del draft.matrices["0.weight"]
    draft.matrices |= {f"stage {i}": torch.zeros(4, ConvColumns(params).count) for i, params in enumerate(chain)}
    stages = tuple(Stage(f"stage {i}", "conv", params) for i, params in enumerate(chain))
    draft.plans["0"] = LayerPlan((stages,), "0.bias")
    with (
        nullcontext()
        if fits
        else pytest.raises(ModelError, match="0 must lead from 3 inputs to 4 outputs by conv with the heights")
    ):
        draft.check()


def test_the_uses_of_factors_are_indexed_once_and_follow_the_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    index = Draft._indexed
    monkeypatch.setattr(Draft, "_indexed", lambda draft: made.append(draft) or index(draft))
    draft = draft_of(nn.Sequential(*(nn.Linear(8, 8) for _ in range(20))))
    assert all(len(draft.uses(factor)) == 1 for factor in draft.matrices)
    assert len(made) == 1
    draft.plans["3"] = replace(draft.plans["3"], terms=draft.plans["4"].terms)
    assert (len(draft.uses("3.weight")), len(draft.uses("4.weight")), len(made)) == (0, 2, 2)
    del draft.plans["4"]
    assert (len(draft.uses("4.weight")), len(made)) == (1, 3)
