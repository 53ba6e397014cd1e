"""Statistics of the inputs of layers and of later stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from edgecomp import context
from edgecomp.calibration import run_module
from edgecomp.columns import ConvColumns, stage_output
from edgecomp.context import Batch, PassContext
from edgecomp.draft import Draft, Use
from edgecomp.errors import CalibrationError
from edgecomp.layers import conv_params, draft_of, find_layers
from edgecomp.progress import ProgressBar
from edgecomp.statistics import InputStatistics, Site, StatisticKind
from edgecomp.tensor import ConvParams, LayerPlan, Stage


def gathered(
    kind: StatisticKind, module: nn.Module, layers: Mapping[str, nn.Module], batches: Sequence[Sequence[Tensor]]
) -> dict[str, Tensor]:
    """The statistic of each layer that is no embedding, by name."""
    modules = {name: layer for name, layer in layers.items() if not isinstance(layer, nn.Embedding)}
    columns = {name: ConvColumns(conv_params(m)) if isinstance(m, nn.Conv2d) else None for name, m in modules.items()}
    statistics = InputStatistics(kind, [Site(Use(name, 0, 0), columns[name]) for name in modules])
    for batch in batches:
        with statistics.watching(modules):
            run_module(module, batch)
    return {use.layer: value for use, value in statistics.results().items()}


def test_energy_is_the_mean_square_of_each_input_column() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 4))
    batches = [torch.randn(2, 5, 3), torch.randn(1, 7, 3)]
    energy = gathered("energy", model, {"0": model[0], "2": model[2]}, [[batch] for batch in batches])
    rows = torch.cat([batch.reshape(-1, 3) for batch in batches])
    torch.testing.assert_close(energy["0"], rows.square().mean(dim=0))
    torch.testing.assert_close(energy["2"], model[0](rows).relu().square().mean(dim=0).detach())


@pytest.mark.parametrize("groups", [1, 2])
def test_energy_of_a_convolution_has_the_order_of_its_matrix(groups: int) -> None:
    layer = nn.Conv2d(4, 4, (3, 2), groups=groups)
    image = torch.randn(2, 4, 8, 9)
    energy = gathered("energy", layer, {"conv": layer}, [[image]])["conv"].reshape(6, -1)
    channels = image.square().mean(dim=(0, 2, 3)).reshape(groups, -1).mean(dim=0)
    for tap in energy:
        torch.testing.assert_close(tap, channels)


def test_layers_that_are_never_called_and_embeddings_have_no_energy() -> None:
    model = nn.ModuleDict({"table": nn.Embedding(4, 2), "fc": nn.Linear(2, 2), "unused": nn.Linear(2, 2)})
    run = nn.Sequential(model["table"], model["fc"])
    assert set(gathered("energy", run, dict(model.items()), [[torch.tensor([1])]])) == {"fc"}


def test_activations_that_are_not_finite_are_refused_by_layer() -> None:
    layer = nn.Linear(2, 2)
    with pytest.raises(CalibrationError, match="inputs of fc hold NaN"):
        gathered("energy", layer, {"fc": layer}, [[torch.tensor([[torch.nan, 1]])]])


def test_hessians_are_those_of_the_layers_inputs() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(6, 8, 3, stride=2, padding=(1, 0), dilation=1), nn.Flatten(), nn.Linear(8 * 4 * 3, 5))
    batches = [torch.randn(2, 6, 7, 7) for _ in range(2)]
    hessians = gathered("gram", model, {"conv": model[0], "fc": model[2]}, [[batch] for batch in batches])
    energy = gathered("energy", model, {"fc": model[2]}, [[batch] for batch in batches])
    torch.testing.assert_close(hessians["fc"].diagonal(), energy["fc"])
    # The convolution's outputs without bias are its patches times its matrix: their mean square is what the Hessian gives.
    outputs = torch.cat([nn.functional.conv2d(batch, model[0].weight, None, 2, (1, 0)) for batch in batches])
    matrix = ConvColumns(conv_params(model[0])).matrix(model[0].weight.detach())
    expected = outputs.square().mean(dim=(0, 2, 3))
    torch.testing.assert_close(((matrix @ hessians["conv"]) * matrix).sum(dim=1), expected)


def test_grouped_convolutions_share_their_columns() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 8, 3, padding="same", groups=2, bias=False)
    image = torch.randn(1, 8, 5, 5)
    hessian = gathered("gram", layer, {"conv": layer}, [[image]])["conv"]
    per_group = [
        gathered("gram", half, {"c": half}, [[part]])["c"] for half, part in zip(halves(), image.split(4, dim=1), strict=True)
    ]
    torch.testing.assert_close(hessian, torch.stack(per_group).mean(dim=0))


def halves() -> list[nn.Module]:
    return [nn.Conv2d(4, 4, 3, padding="same") for _ in range(2)]


def test_inputs_that_are_not_finite_are_refused() -> None:
    layer = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(CalibrationError, match="finite"):
        gathered("gram", layer, {"0": layer[0]}, [[torch.tensor([[torch.nan, 1.0]])]])


def test_layers_that_are_given_the_same_tensor_share_one_sum() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.o = (nn.Linear(4, 4) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.o(self.q(x) * self.k(x))
            return y

    model = Attention()
    grams = gathered("gram", model, dict(model.named_children()), [[torch.randn(3, 4)] for _ in range(2)])
    assert grams["q"] is grams["k"]
    assert grams["o"] is not grams["q"]


def test_inputs_without_rows_count_for_nothing() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    assert gathered("gram", model, {"0": model[0]}, [[torch.ones(0, 2)]]) == {}


def context_of(model: nn.Module, *batches: Tensor) -> PassContext:
    samples = [Batch(f"sample {number}", [batch]) for number, batch in enumerate(batches)]
    return PassContext(model, find_layers(model), samples, ProgressBar(quiet=True))


def chained(model: nn.Module, layer: str, stages: Sequence[tuple[Stage, Tensor]]) -> Draft:
    """The model's draft, with a chain in the place of a layer."""
    draft = draft_of(model)
    del draft.matrices[draft.layers[layer].factor]
    draft.matrices |= {stage.factor: matrix for stage, matrix in stages}
    draft.plans[layer] = replace(draft.plans[layer], terms=(tuple(stage for stage, _ in stages),))
    draft.check()
    return draft


@pytest.mark.parametrize("kind", ["energy", "gram"])
def test_a_later_stage_s_statistic_follows_from_the_layer_s_inputs(kind: StatisticKind) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 6))
    first, second, third = torch.randn(5, 8), torch.randn(4, 5), torch.randn(6, 4)
    draft = chained(model, "0", [(Stage(name, "linear"), m) for name, m in (("a", first), ("b", second), ("c", third))])
    batches = [torch.randn(7, 8), torch.randn(3, 8)]
    found = dict(context_of(model, *batches).inputs_of(draft, ["a", "b", "c"], kind))
    x = torch.cat(batches)
    for name, given in (("a", x), ("b", x @ first.T), ("c", x @ first.T @ second.T)):
        gram = given.T @ given / len(given)
        torch.testing.assert_close(found[name], gram if kind == "gram" else gram.diagonal())


@pytest.mark.parametrize("kind", ["energy", "gram"])
def test_stages_of_convolution_chains_are_run(kind: StatisticKind) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(40, 48, 3, padding=1, bias=False))
    shapes = [ConvParams(40, (1, 1)), ConvParams(64, (3, 3), padding=(1, 1, 1, 1), groups=64), ConvParams(64, (1, 1))]
    outputs = [64, 64, 48]
    stages = [
        (Stage(f"f{i}", "conv", conv), ConvColumns(conv).matrix(torch.randn(n, conv.in_channels // conv.groups, *conv.kernel_size)))
        for i, (conv, n) in enumerate(zip(shapes, outputs, strict=True))
    ]
    draft = chained(model, "0", stages)
    image = torch.randn(2, 40, 5, 5)
    found = dict(context_of(model, image).inputs_of(draft, ["f0", "f1", "f2"], kind))
    value = image
    for stage, matrix in stages:
        assert stage.conv is not None
        rows = ConvColumns(stage.conv).patches(value)
        gram = rows.T @ rows / len(rows)
        if kind == "gram":
            torch.testing.assert_close(found[stage.factor], gram)
        elif stage.conv.kernel_size == (1, 1):
            torch.testing.assert_close(found[stage.factor], gram.diagonal())
        value = stage_output("conv", stage.conv, matrix, value)


def test_a_stage_behind_a_table_counts_each_row_once() -> None:
    model = nn.Sequential(nn.Embedding(10, 6))
    table, coefficients = torch.randn(10, 4), torch.randn(6, 4)
    draft = chained(model, "0", [(Stage("basis", "gather"), table), (Stage("c", "linear"), coefficients)])
    found = dict(context_of(model).inputs_of(draft, ["basis", "c"], "gram"))
    assert found["basis"] is None
    torch.testing.assert_close(found["c"], table.T @ table / 10)


def test_a_factor_of_several_layers_comes_when_the_last_is_known() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(3)))
    draft = draft_of(model)
    draft.plans = {name: LayerPlan(((Stage("basis", "linear"), Stage(f"c{name}", "linear")),)) for name in draft.plans}
    draft.matrices = {"basis": torch.randn(2, 4), **{f"c{i}": torch.randn(4, 2) for i in range(3)}}
    draft.check()
    x = torch.randn(5, 4)
    names, given, value = [], [], x
    for layer in model:
        given.append(value)
        value = layer(value).detach()
    for name, gram in context_of(model, x).inputs_of(draft, list(draft.matrices), "gram"):
        names.append(name)
        if name == "basis":
            assert gram is not None
            torch.testing.assert_close(gram, sum(rows.T @ rows / 5 for rows in given))
    assert names == ["c0", "c1", "basis", "c2"]


@pytest.mark.parametrize("inference", [False, True])
def test_inputs_that_change_in_place_count_as_they_were(inference: bool) -> None:
    class Changing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(4, 4) for _ in range(3))

        @torch.inference_mode(inference)
        def forward(self, x: Tensor) -> Tensor:
            x -= 1
            x = x + 0  # of the inference mode, where that is on
            y = self.q(x) + self.k(x)
            x *= 2
            y += self.v(x)
            return y

    torch.manual_seed(0)
    model, x = Changing(), torch.randn(5, 4)
    given = x.clone()
    found = dict(context_of(model, x).inputs_of(draft_of(model), [f"{name}.weight" for name in "qkv"], "gram"))
    for name, seen in (("q", given - 1), ("k", given - 1), ("v", 2 * given - 2)):
        torch.testing.assert_close(found[f"{name}.weight"], seen.T @ seen / 5)
    assert torch.equal(x, given)
    assert (found["q.weight"] is found["k.weight"]) != inference


@pytest.mark.parametrize(("memory", "parts"), [(1 << 30, 1), (4 * (8 + 8 + 2), 2)])
def test_of_a_chain_s_layer_alone_a_gram_is_gathered_and_counted(memory: int, parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    gathered: list[tuple[StatisticKind, list[str]]] = []

    class Noted(InputStatistics):
        def __init__(self, kind: StatisticKind, sites: Sequence[Site]) -> None:
            super().__init__(kind, sites)
            gathered.append((kind, [site.use.layer for site in sites]))

    torch.manual_seed(0)
    model = nn.Sequential(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)), nn.Identity())
    draft = chained(model, "0.1", [(Stage("a", "linear"), torch.randn(2, 8)), (Stage("b", "linear"), torch.randn(8, 2))])
    monkeypatch.setattr(context, "_STATISTIC_BYTES", memory)
    monkeypatch.setattr(context, "InputStatistics", Noted)
    x = torch.randn(5, 8)
    asked = context_of(model, x)
    assert asked.structure.blocks == ("0", "1")
    runs: list[nn.Module] = []
    model[0][0].register_forward_hook(lambda module, *_: runs.append(module))
    found = dict(asked.inputs_of(draft, ["b", "0.0.weight", "a"], "energy"))
    assert len(runs) == parts
    assert sorted(gathered) == [("energy", ["0.0", "0.1"]), ("gram", ["0.1"])]
    assert torch.equal(found["0.0.weight"], x.double().square().mean(dim=0).float())
