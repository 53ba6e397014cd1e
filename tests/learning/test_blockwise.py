"""Learning one block after the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from torch import Tensor, nn
from toy_methods import SharedBasis

import edgecomp
from edgecomp.checkpoint import CompressedModel
from edgecomp.errors import CalibrationError, ConfigError
from edgecomp.formats import unpack
from edgecomp.learning import blockwise
from edgecomp.passes import PASSES


class Residual(nn.Module):
    """A linear layer with a way around it, a norm, and a keyword."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc = nn.Linear(width, width)

    def forward(self, x: Tensor, *, gain: float) -> tuple[Tensor, None]:
        return x + gain * self.fc(self.norm(x)).relu(), None


class Stacked(nn.Module):
    """An embedding, residual blocks of which two share a weight, and a head tied to the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(96, 64)
        self.blocks = nn.ModuleList(Residual(64) for _ in range(4))
        self.blocks[3].fc.weight = self.blocks[1].fc.weight
        self.head = nn.Linear(64, 96, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.table(ids)
        for block in self.blocks:
            x, _ = block(x, gain=0.5)
        y: Tensor = self.head(x)
        return y


def stacked() -> nn.Module:
    torch.manual_seed(0)
    return Stacked()


def tokens() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [{"ids": rng.integers(0, 96, (1, 24))} for _ in range(4)]


def recipe(**settings: Any) -> dict[str, Any]:
    passes = [
        {"method": "lut-kmeans", "bits": 2, "refits": 1, "compute": "float", "layers": [{"ops": ["gather"], "bits": 6}]},
        {"method": "jlcm", "block_steps": 20, "steps": 0, "batch": 2, "map_gradient": "straight-through", **settings},
    ]
    return {"version": 1, "dense_dtype": "float32", "passes": passes}


def distance(model: CompressedModel, original: nn.Module) -> float:
    """Mean squared difference of what the head is given, over the mean square of the original's."""
    inputs = [torch.from_numpy(sample["ids"]) for sample in tokens()]
    outputs = []
    for module in (model.module, original):
        last: list[Tensor] = []
        handle = module.get_submodule("blocks.3").register_forward_hook(lambda *call, last=last: last.append(call[2][0]))
        with torch.no_grad():
            for ids in inputs:
                module(ids)
        handle.remove()
        outputs.append(torch.cat(last))
    return float((outputs[0] - outputs[1]).square().mean() / outputs[1].square().mean())


def test_models_without_blocks_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"one after the other.*block_steps = 0"):
        edgecomp.compress(tiny_models.tied_tokens(), recipe(), tiny_models.tokens())


def test_learning_brings_the_blocks_nearer_to_the_original() -> None:
    original = stacked().eval()
    before = {name: tensor.clone() for name, tensor in original.state_dict().items()}
    kmeans = edgecomp.compress(original, recipe() | {"passes": recipe()["passes"][:1]}, tokens())
    learned = edgecomp.compress(original, recipe(), tokens())
    assert distance(learned, original) < 0.75 * distance(kmeans, original)
    assert learned.factors.keys() == kmeans.factors.keys()
    assert not torch.equal(learned.dense["blocks.1.norm.weight"], original.blocks[1].norm.weight)
    for key, array in kmeans.factors["table.weight"].arrays.items():  # no block's
        np.testing.assert_array_equal(array, learned.factors["table.weight"].arrays[key])
    assert all(torch.equal(tensor, before[name]) for name, tensor in original.state_dict().items())


def test_both_stages_together_do_best_on_the_outputs() -> None:
    original, inputs = stacked().eval(), tokens()

    def error(model: CompressedModel) -> float:
        with torch.no_grad():
            pairs = [(model.module(ids), original(ids)) for ids in (torch.from_numpy(sample["ids"]) for sample in inputs)]
        return float(sum((got - expected).square().mean() / expected.square().mean() for got, expected in pairs))

    blocks, both = (edgecomp.compress(original, recipe(steps=steps), inputs) for steps in (0, 20))
    assert error(both) < error(blocks)


def test_an_interrupted_run_continues_with_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = edgecomp.compress(stacked(), recipe(), tokens())
    optimise, learned = blockwise.optimise, []

    def interrupted(*arguments: Any, **settings: Any) -> None:
        if len(learned) == 2:
            learned.append("interrupted")
            raise KeyboardInterrupt
        learned.append(settings["state"])
        optimise(*arguments, **settings)

    monkeypatch.setattr(blockwise, "optimise", interrupted)
    with pytest.raises(KeyboardInterrupt):
        edgecomp.compress(stacked(), recipe(), tokens(), work_folder=tmp_path / "work")
    continued = edgecomp.compress(stacked(), recipe(), tokens(), work_folder=tmp_path / "work")
    assert learned == [f"state, body.blocks.{i}" if isinstance(i, int) else i for i in (0, 1, "interrupted", 2, 3)]
    for name, factor in whole.factors.items():
        for key, array in factor.arrays.items():
            np.testing.assert_array_equal(array, continued.factors[name].arrays[key])
    assert all(torch.equal(tensor, continued.dense[name]) for name, tensor in whole.dense.items())


def test_chains_of_blocks_are_learned_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PASSES, "shared-basis", SharedBasis)
    basis = {"method": "shared-basis", "match": ["blocks.0.fc", "blocks.2.fc"], "rank": 40}
    made = recipe() | {"passes": [basis, *recipe(block_steps=60, position_rate=3e-2)["passes"]]}
    original = stacked().eval()
    kmeans = edgecomp.compress(original, made | {"passes": made["passes"][:2]}, tokens())
    learned = edgecomp.compress(original, made, tokens())
    assert distance(learned, original) < 0.9 * distance(kmeans, original)
    for name in ("basis", "blocks.0.fc.coefficients", "blocks.2.fc.coefficients", "blocks.1.fc.weight"):
        assert not np.array_equal(unpack(learned.factors[name]), unpack(kmeans.factors[name])), name


def test_a_block_that_gives_no_number_names_the_sample() -> None:
    inputs = tokens()
    model = stacked()
    with torch.no_grad():
        model.get_submodule("table").weight[95] = 1e30  # type: ignore[index, union-attr]
    inputs[2]["ids"][:] = 95
    for number in (0, 1, 3):
        inputs[number]["ids"] %= 95
    unweighted = recipe()["passes"][0] | {"weighting": "none", "skip": ["table", "head"]}
    with pytest.raises(CalibrationError, match=r"blocks.\d gives NaN or infinity for sample 2"):
        edgecomp.compress(model, recipe() | {"passes": [unweighted, recipe()["passes"][1]]}, inputs)


def test_a_block_without_anything_to_learn_is_left_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    class Sign(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(64, 64)

        def forward(self, x: Tensor) -> Tensor:
            return x + (self.fc(x) > 0)

    torch.manual_seed(0)
    model = nn.Sequential(nn.Sequential(nn.Linear(64, 64), nn.Tanh()), Sign(), nn.Sequential(nn.Linear(64, 64), nn.Tanh()))
    inputs = [{"x": np.full((2, 64), 0.1 * number, np.float32)} for number in range(4)]
    made = recipe(block_steps=1, dense_rate=0.0)
    made["passes"][0] |= {"weighting": "none", "layers": []}
    edgecomp.compress(model, made, inputs, quiet=False)
    assert "since what 1 gives does not depend on them: 1.fc.weight" in capsys.readouterr().err
