"""A model's blocks, and a model run block by block."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_models
import torch
from torch import Tensor, nn

from edgecomp.models import load_model
from edgecomp.walk import Walk, find_structure, first_tensor

CPU = torch.device("cpu")


def test_blocks_are_found_where_they_are_a_list_that_runs_in_order() -> None:
    layered = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 64), nn.Linear(64, 2)))
    assert find_structure(layered, [torch.ones(1, 4)], {}).blocks == ("0", "1", "2")


def test_models_without_blocks_have_none() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.layers[0](self.layers[1](x))
            return y

    assert find_structure(Backwards(), [torch.ones(1, 4)], {}).blocks == ()


@pytest.mark.parametrize("save", ["save_llama", "save_bert", "save_gpt2"])
def test_blocks_of_transformers_are_their_layers_and_give_what_the_model_gives(save: str, tmp_path: Path) -> None:
    model = load_model(str(getattr(tiny_models, save)(tmp_path)))
    batches = [[ids, torch.ones_like(ids)] for ids in (torch.arange(6)[None], torch.arange(9)[None] + 3)]
    structure = find_structure(model.module, batches[0], {})
    assert [name.rpartition(".")[2] for name in structure.blocks] == ["0", "1"]
    walk = Walk(model.module, structure, {}, batches, CPU)
    *units, last = walk.units()
    for unit in units:
        outputs = list(unit.run())
    with torch.no_grad():
        expected = [first_tensor(model.module(*batch)) for batch in batches]
    for got, reference in zip(last.run(), expected, strict=True):
        torch.testing.assert_close(first_tensor(got), reference)
    assert len(outputs) == 2
    assert all(not part._forward_hooks and not part._forward_pre_hooks for part in model.module.modules())


def test_a_unit_can_be_run_with_gradients() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    batches = [[torch.ones(1, 4)]]
    walk = Walk(model, find_structure(model, batches[0], {}), {}, batches, CPU)
    before, first, _, _ = walk.units()
    list(before.run())
    with walk.opened(first), torch.enable_grad():
        first.output(0).sum().backward()
    assert model[0].weight.grad is not None and model[1].weight.grad is None
    torch.testing.assert_close(walk.values[0], torch.ones(1, 4))
