"""A draft that runs gives what the installed model gives, of every format, term and stage."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from torch import nn
from toy_methods import SharedBasis, SharedBasisConfig, Sums, SumsConfig

from edgecomp.assembly import dense_tensors, install
from edgecomp.context import Batch, PassContext
from edgecomp.draft import Draft
from edgecomp.formats import dense
from edgecomp.layers import draft_of, find_layers
from edgecomp.learning.running import RunningDraft
from edgecomp.learning.student import LearningSettings, Student, learnable
from edgecomp.passes import run_passes
from edgecomp.passes.lut_kmeans import LutKmeans, LutKmeansConfig
from edgecomp.progress import ProgressBar
from edgecomp.rounding import Rounding
from edgecomp.tensor import Factor


class Mixed(nn.Module):
    """A convolution, two layers of one input, a head, and a bias of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(32, 32, 3, padding="same")
        self.left, self.right, self.head = nn.Linear(32, 48), nn.Linear(32, 48), nn.Linear(48, 40)
        self.right.bias = self.left.bias
        self.norm = nn.BatchNorm1d(40)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x).relu().mean(dim=(2, 3))
        y: torch.Tensor = self.norm(self.head((self.left(x) + self.right(x).tanh()).relu()))
        return y


def drafted(model: nn.Module, inputs: list[torch.Tensor], *passes: Any) -> tuple[Draft, PassContext]:
    context = PassContext(model, find_layers(model), [Batch("sample 0", inputs)], ProgressBar(quiet=True))
    draft = draft_of(model)
    run_passes(passes, draft, context)
    return draft, context


def chains(bits: int) -> tuple[nn.Module, list[torch.Tensor], Draft, PassContext]:
    torch.manual_seed(0)
    model, x = Mixed().eval(), [torch.randn(2, 32, 6, 6)]
    passes = [
        SharedBasis(SharedBasisConfig(match=["left", "right"], rank=24)),
        Sums(SumsConfig(summed="head", chained="conv", rank=48)),
        LutKmeans(LutKmeansConfig(bits=bits, narrow_bits=bits, refits=0, weighting="none", compute="float")),
    ]
    return model, x, *drafted(model, x, *passes)


def installed(model: nn.Module, draft: Draft) -> nn.Module:
    """The model as `compress` would have it."""
    factors: dict[str, Factor] = dict(draft.factors)
    factors |= {name: dense.pack(matrix.float().numpy(), np.float32) for name, matrix in draft.matrices.items()}
    tensors = dense_tensors(model, draft.plans, draft.tensors, Rounding(torch.float32))
    install(model, draft.plans, factors, tensors)
    return model.eval()


@pytest.mark.parametrize("bits", [3, 8])
def test_chains_and_sums_run_as_installed(bits: int) -> None:
    model, x, draft, context = chains(bits)
    draft.tensors |= {"norm.weight": torch.full((40,), 3.0), "norm.running_mean": torch.full((40,), 0.5)}
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    running = RunningDraft(draft, context, model)
    assert running.factors_within("left") == ["basis", "left.coefficients"]
    with torch.no_grad():
        unheld = running.module(*x)
        with running.holding(running.factors_within("")):
            held = running.module(*x)
    assert torch.equal(unheld, held)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    with torch.no_grad():
        torch.testing.assert_close(held, installed(model, draft)(*x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("factory", ["convolutional", "tied_tokens"])
def test_a_model_that_no_pass_has_touched_runs_as_it_is(factory: str) -> None:
    model = getattr(tiny_models, factory)().eval()
    sample = next(iter(tiny_models.images() if factory == "convolutional" else tiny_models.tokens()))
    inputs = [torch.from_numpy(array) for array in sample.values()]
    draft, context = drafted(model, inputs)
    running = RunningDraft(draft, context, model)
    assert [type(part) for part in running.module.modules()] == [type(part) for part in model.modules()]
    with torch.no_grad():
        assert torch.equal(running.module(*inputs), model(*inputs))
    shared = {parameter.data_ptr() for parameter in model.parameters()}
    assert {parameter.data_ptr() for parameter in running.module.parameters()} == shared


def test_a_student_s_gradients_are_those_of_its_weights() -> None:
    model, x, draft, context = chains(3)
    running = RunningDraft(draft, context, model)
    names = learnable(draft, dense=True)
    assert sorted(names) == sorted(running.factors_within(""))
    tensors = running.dense_within("")
    assert {"left.bias", "norm.weight", "head.bias"} <= tensors.keys() and "right.bias" not in tensors
    student = Student(running, draft, context, names, tensors, LearningSettings(1, 1, {}))
    with student.learning():
        running.module(*x).square().sum().backward()
        student.set_gradients()
        assert all(p.grad is not None for _, learned in student.groups for p in learned.parameters.values())
        assert all(tensor.grad is not None for tensor in tensors.values())
        codes = {names[0]: learned.parameters["positions"].grad for names, learned in student.groups if len(names) == 1}
        assert codes["depthwise"].shape == (3, 48, 9) and codes["depthwise"].any()  # type: ignore[union-attr]
        assert codes["last"][..., :48].any() and not codes["last"][..., 48:].any()  # type: ignore[index]
        with torch.no_grad():
            tensors["left.bias"] += 1
        student.take()
    assert torch.equal(draft.tensors["left.bias"], draft.tensors["right.bias"])
    assert not torch.equal(draft.tensors["left.bias"], model.left.bias)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert draft.records["basis"].keys() == {"change"}
    draft.check()


def test_a_running_draft_is_freed_when_it_is_let_go() -> None:
    model, _, draft, context = chains(4)
    gc.disable()
    try:
        module = weakref.ref(RunningDraft(draft, context, model).module)
        assert module() is None
    finally:
        gc.enable()
