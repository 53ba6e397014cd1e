"""A model run unit by unit gives what it gives at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_models
import torch
from torch import Tensor, nn

import edgecomp.walk
from edgecomp.errors import CalibrationError
from edgecomp.layers import find_layers
from edgecomp.models import body_of, load_model
from edgecomp.walk import Structure, Unit, Walk, find_structure

CPU = torch.device("cpu")


class Residual(nn.Module):
    """A linear layer with a way around it, called with a keyword, that returns two values."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(16, 16)

    def forward(self, x: Tensor, *, gain: Tensor) -> tuple[Tensor, None]:
        return x + gain * self.fc(x).relu(), None


class Stacked(nn.Module):
    """Layers before, in, and behind the blocks; one layer both before and behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.twice, self.head = nn.Embedding(20, 16), nn.Linear(16, 16), nn.Linear(16, 4)
        self.blocks = nn.ModuleList(Residual() for _ in range(3))

    def forward(self, ids: Tensor) -> Tensor:
        x, gain = self.twice(self.table(ids)), torch.full((1,), 0.5)
        for block in self.blocks:
            x, _ = block(x, gain=gain)
        y: Tensor = self.head(self.twice(x))
        return y


def stacked() -> Stacked:
    torch.manual_seed(0)
    return Stacked().eval()


IDS = [torch.arange(6)[None], torch.arange(9)[None] + 5]


def walk_over(module: nn.Module, layers: dict[str, nn.Module], batches: list[list[Tensor]]) -> Walk:
    return Walk(module, find_structure(module, batches[0], layers), layers, batches, CPU)


def outputs(units: list[Unit]) -> list[list[Tensor]]:
    return [list(unit.run()) for unit in units]


def test_what_belongs_where() -> None:
    model = stacked()
    structure = find_structure(model, [IDS[0]], find_layers(model))
    blocks = ("blocks.0", "blocks.1", "blocks.2")
    assert structure == Structure(blocks, (2, 2, 2), frozenset({"table"}), frozenset(find_layers(model)))
    units = walk_over(model, find_layers(model), [[ids] for ids in IDS]).units()
    assert [(unit.name, unit.layers) for unit in units] == [
        ("", ("table",)),
        *((f"blocks.{i}", (f"blocks.{i}.fc",)) for i in range(3)),
        ("", ("twice", "head")),  # complete only when both of its calls were seen
    ]


def test_units_give_what_the_model_gives_at_once() -> None:
    model = stacked()
    *_, last = outputs(walk_over(model, find_layers(model), [[ids] for ids in IDS]).units())
    for ids, output in zip(IDS, last, strict=True):
        torch.testing.assert_close(output, model(ids).detach(), rtol=0, atol=0)
    assert all("forward" not in vars(part) for part in model.modules())


def test_running_values_stay_in_their_memory() -> None:
    model = stacked()
    walk = walk_over(model, {}, [[ids] for ids in IDS])
    before, *blocks, _ = walk.units()
    yielded = list(before.run())
    first = [value.clone() for value in yielded]
    places = [value.data_ptr() for value in walk.values]
    for block in blocks:
        for output, value in zip(list(block.run()), walk.values, strict=True):
            assert torch.equal(output, value)
            assert output is not value
    assert [value.data_ptr() for value in walk.values] == places
    for value, still in zip(yielded, first, strict=True):
        assert torch.equal(value, still)


def test_blocks_that_are_given_the_model_s_input_leave_it() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 6)).eval()
    x = torch.randn(3, 4)
    given = x.clone()
    walk = walk_over(model, {}, [[x]])
    *_, last = outputs(walk.units())  # the last block's values have another shape
    assert torch.equal(x, given)
    torch.testing.assert_close(last[0], model(x).detach(), rtol=0, atol=0)


def test_a_unit_that_is_not_kept_can_run_again() -> None:
    model = stacked()
    before, first, *_ = walk_over(model, {}, [[ids] for ids in IDS]).units()
    list(before.run())
    once = list(first.run(keep=False))
    for value, again in zip(once, first.run(), strict=True):
        assert torch.equal(value, again)


@pytest.mark.parametrize("save", ["save_llama", "save_bert", "save_gpt2"])
def test_transformers(save: str, tmp_path: Path) -> None:
    loaded = load_model(str(getattr(tiny_models, save)(tmp_path)))
    batches = [
        [ids, torch.ones_like(ids)] for ids in (torch.arange(6)[None], torch.arange(12).reshape(2, 6), torch.arange(9)[None])
    ]
    layers = find_layers(body_of(loaded.module))
    walk = walk_over(loaded.module, layers, batches)
    units = walk.units()
    assert [unit.name.rpartition(".")[2] for unit in units] == ["", "0", "1", ""]
    assert sorted(name for unit in units for name in unit.layers) == sorted(layers)
    *_, last = outputs(units)
    for batch, (output, *_) in zip(batches, last, strict=True):
        with torch.no_grad():
            torch.testing.assert_close(output, loaded.module(*batch)[0], rtol=0, atol=0)
    masks = [tensor for calls in walk.calls for call in calls for tensor in call.keywords.values() if isinstance(tensor, Tensor)]
    assert len({id(mask) for mask in masks}) <= len(batches) * 2  # blocks, and samples that are alike, share them


def test_only_a_unit_s_weights_are_float32_at_a_time() -> None:
    model, reference = stacked().to(torch.bfloat16), stacked().to(torch.bfloat16).float()
    seen: dict[str, list[torch.dtype]] = {}

    def note(module: nn.Module, _: object) -> None:
        seen[next(name for name, part in model.named_modules() if part is module)] = [p.dtype for p in model.parameters()]

    for part in (model.blocks[1].fc, model.head):
        part.register_forward_pre_hook(note)
    walk = walk_over(model, find_layers(model), [[IDS[0]]])
    *_, last = outputs(walk.units())
    torch.testing.assert_close(last[0], reference(IDS[0]).detach(), rtol=0, atol=0)
    float32 = {name: sum(dtype == torch.float32 for dtype in dtypes) for name, dtypes in seen.items()}
    assert float32 == {"blocks.1.fc": 2, "head": 5}  # of 11
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("place", [0, 3, 6])
def test_outputs_are_compared_wherever_they_differ(place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edgecomp.walk, "_COMPARED", 3)
    expected = torch.tensor([1.0, -2.0, torch.inf, 3.0, torch.nan, 1e-9, 2.0])
    value = expected.clone()
    assert edgecomp.walk._close(value, expected)
    value[place] += 1e-4
    assert edgecomp.walk._close(value, expected)
    value[place] += 1e-2
    assert not edgecomp.walk._close(value, expected)
    assert edgecomp.walk._close(expected[:0], expected[:0])


def test_modules_that_are_no_chain_are_one_unit() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.layers[0](self.layers[1](x))
            return y

    shared = nn.Linear(4, 4)
    twice = nn.Sequential(nn.Sequential(shared, nn.ReLU()), nn.Sequential(shared, nn.ReLU()))
    for model in (Backwards(), twice):
        x = torch.ones(1, 4)
        (unit,) = walk_over(model, find_layers(model), [[x]]).units()
        (output,) = unit.run()
        assert torch.equal(output, model(x))
        assert set(unit.layers) == set(find_layers(model))


def test_a_unit_can_be_run_with_gradients() -> None:
    model = stacked()
    walk = walk_over(model, {}, [[ids] for ids in IDS])
    before, first, *_ = walk.units()
    list(before.run())
    with walk.opened(first), torch.enable_grad():
        first.output(0).sum().backward()
    assert model.blocks[0].fc.weight.grad is not None
    assert model.table.weight.grad is None and model.blocks[1].fc.weight.grad is None


class Pyramid(nn.Module):
    """What every block gives goes to the head."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(3))
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        given = []
        for block in self.blocks:
            x = block(x)
            given.append(x)
        y: Tensor = self.head(torch.stack(given).sum(dim=0))
        return y


class Bias(nn.Module):
    """A block that takes a bias, or makes it where there is none yet, as T5's first one does."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        bias = self.fc.bias if bias is None else bias
        return self.fc(x) + bias, bias


class Biased(nn.Module):
    """All blocks take the bias that the first one makes."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Bias() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        bias = None
        for block in self.blocks:
            x, bias = block(x, bias)
        return x


class Demanding(Biased):
    """The same, with code between the blocks that does not run without the bias."""

    def forward(self, x: Tensor) -> Tensor:
        bias = None
        for block in self.blocks:
            x, bias = block(x, bias)
            bias = bias.clone()
        return x


@pytest.mark.parametrize(
    ("kind", "why"),
    [(Pyramid, "more than one value passes"), (Biased, "more than one value passes"), (Demanding, "which fails: AttributeError")],
)
def test_blocks_between_which_more_passes_than_one_value_are_one_unit(kind: type[nn.Module], why: str) -> None:
    torch.manual_seed(0)
    model, said = kind().eval(), list[str]()
    assert find_structure(model, [torch.ones(2, 8)], {}, said.append) == Structure((), (), frozenset(), frozenset())
    (message,) = said
    assert "blocks.0 to blocks.2 run one after the other" in message and why in message


def test_a_module_that_is_used_in_a_block_and_outside_makes_one_unit() -> None:
    class Reusing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                x = block(x)
            y: Tensor = self.blocks[0][0](x)
            return y

    model = Reusing().eval()
    assert find_structure(model, [torch.ones(2, 8)], find_layers(model)).blocks == ()


class InPlace(nn.Module):
    """A block that changes what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x += self.fc(x)
        return x


def test_blocks_and_models_that_change_their_inputs_can_run_again() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), InPlace(), InPlace()).eval()
    behind = nn.Sequential(nn.Sequential(InPlace(), nn.Linear(8, 8)), InPlace()).eval()
    for module in (model, behind):
        given = torch.randn(2, 8)
        x = given.clone()
        units = walk_over(module, find_layers(module), [[x]]).units()
        for unit in units:
            (once,) = [output.clone() for output in unit.run(keep=False) if output is not None]
            (again,) = unit.run()
            assert torch.equal(once, again)
        torch.testing.assert_close(again, module(given.clone()).detach(), rtol=0, atol=0)
        assert torch.equal(x, given)


@pytest.mark.parametrize("rounds", [0, 2])
def test_a_sample_that_does_not_run_the_blocks_as_the_first_does_is_named(rounds: int) -> None:
    class Varying(Pyramid):
        def forward(self, x: Tensor) -> Tensor:
            for _ in range(1 if len(x) == 1 else rounds):
                for block in self.blocks:
                    x = block(x)
            y: Tensor = self.head(x)
            return y

    batches = [[torch.ones(1, 8)], [torch.ones(2, 8)]]
    model = Varying().eval()
    structure = find_structure(model, batches[0], {})
    walk = Walk(model, structure, {}, batches, CPU, ["sample a", "sample b"])
    units = walk.units()
    with pytest.raises(CalibrationError, match=r"blocks.0 to blocks.2 once each and in order.*but sample b does not"):
        outputs(units)


class Cache:
    """What blocks have seen, kept by the block."""

    def __init__(self) -> None:
        self.seen: dict[nn.Module, list[Tensor]] = {}

    def with_all(self, block: nn.Module, x: Tensor) -> Tensor:
        self.seen.setdefault(block, []).append(x)
        return torch.cat(self.seen[block]).sum(dim=0)


class Caching(nn.Module):
    """A block that writes to a cache, and keeps to it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x: Tensor, cache: Cache, mask: Tensor) -> Tensor:
        y: Tensor = self.fc(x) + mask * cache.with_all(self, x)
        return y


class Cached(Pyramid):
    """Its blocks are given a new cache at each run."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Caching() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        cache, mask = Cache(), torch.full((8,), 0.5)
        for block in self.blocks:
            x = block(x, cache, mask)
        y: Tensor = self.head(x)
        return y


def test_blocks_that_write_to_a_cache_find_it_as_it_was() -> None:
    torch.manual_seed(0)
    model, batch = Cached().eval(), [torch.randn(2, 8)]
    walk = walk_over(model, find_layers(model), [batch])
    before, *units = walk.units()
    list(before.run())
    assert [unit.name for unit in units] == ["blocks.0", "blocks.1", "blocks.2", ""]
    for unit in units:
        (once,) = unit.run(keep=False)
        (again,) = unit.run()
        assert torch.equal(once, again)
    torch.testing.assert_close(again, model(*batch).detach(), rtol=0, atol=0)
