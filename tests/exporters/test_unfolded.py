"""Layers of other kinds and parameters that a forward multiplies itself, packed in both targets."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from test_strangers import assert_same, floats, ids, packed
from torch import Tensor, nn
from torch.nn.functional import embedding, linear

import edgecomp
from edgecomp.calibration import Sample
from edgecomp.checkpoint import load
from edgecomp.errors import CheckpointError, ModelError


class Sound(nn.Module):
    """Convolutions over time, down and up again, a cell and attention."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(32, 32, 5, 2, padding=2, padding_mode="replicate")
        self.narrow = nn.utils.parametrizations.weight_norm(nn.Conv1d(32, 32, 4, padding="same", groups=8))
        self.attention = nn.MultiheadAttention(32, 2, batch_first=True)
        self.up, self.uneven = nn.ConvTranspose1d(32, 32, 4, 2, 1), nn.ConvTranspose1d(32, 32, 3, 2)
        self.cell = nn.GRUCell(32, 32)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.narrow(self.stem(x).relu()).mT
        y = self.up((y + self.attention(y, y, y, need_weights=False)[0]).mT)
        return self.uneven(y), self.cell(y.mean(dim=-1))


class Volume(nn.Module):
    """Convolutions over three axes, and transposed ones of images whose taps are not alike."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.up = nn.Conv3d(2, 32, (2, 3, 3), (2, 1, 1), padding=1), nn.ConvTranspose2d(32, 16, 3, 2, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.conv(x).mean(dim=2))


class Shifted(nn.Embedding):
    def forward(self, positions: Tensor) -> Tensor:
        return super().forward(positions + 2)


class Turned(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T + self.bias


class Padded(nn.Conv1d):
    """Looks back, as causal convolutions do."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(nn.functional.pad(x, (self.dilation[0] * (self.kernel_size[0] - 1), 0)))


class Raw(nn.Module):
    """Parameters of its own, a table that is its head too, and subclasses."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.places = nn.Embedding(50, 32), Shifted(34, 32)
        self.mix, self.rows = nn.Parameter(torch.randn(32, 32) / 6), nn.ParameterList([torch.randn(20, 32)])
        self.turned, self.causal = Turned(32, 32), Padded(32, 32, 3, dilation=2)
        self.bag = nn.EmbeddingBag(50, 32)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.table(ids) + self.places(torch.arange(ids.shape[1])) + self.bag(ids)[:, None]
        x = self.turned(x @ self.mix) + embedding(ids % 20, self.rows[0]) + self.rows[0][ids % 7]
        return linear(self.causal(x.mT).mT, self.table.weight)


@pytest.mark.parametrize(
    ("make", "samples", "layers"),
    [
        pytest.param(
            Sound, [{"x": floats(2, 32, 16)}, {"x": floats(2, 32, 22)}],
            ["stem.conv", "narrow.conv", "attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.out_proj",
             "up.convs.0", "uneven.convs.0", "uneven.convs.1", "cell.ih", "cell.hh"], marks=pytest.mark.long,
        ),
        (
            Volume, [{"x": floats(2, 2, 4, 5, 6)}, {"x": floats(3, 2, 4, 5, 6)}],
            ["conv.conv", "up.convs.0", "up.convs.1", "up.convs.2", "up.convs.3"],
        ),
        (
            Raw, [{"ids": ids(2, 9)}, {"ids": ids(2, 12)}],
            ["mix_product", "table.weight_product", "table.weight_table", "places.weight_table", "rows.0_table",
             "turned.weight_product", "causal.weight_convolution.conv", "bag.table"],
        ),
    ],
)  # fmt: skip
def test_packed_in_both_targets(make: type[nn.Module], samples: list[Sample], layers: list[str], tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = make().eval()
    model = packed(module, samples, strict=True)
    assert sorted(model.plans) == sorted(layers)
    assert model.provenance["float"]["share"] < 0.05
    assert_same(model, samples, tmp_path)
    model.save(tmp_path / "model.ec")
    again = load(tmp_path / "model.ec", model=make())
    for sample in samples:
        with torch.no_grad():
            original = module(*(torch.from_numpy(value) for value in sample.values()))
        for (name, value), expected in zip(
            model.run(sample).items(), original if isinstance(original, tuple) else (original,), strict=True
        ):
            np.testing.assert_array_equal(again.run(sample)[name], value)
            assert np.linalg.norm(value - expected.numpy()) < 0.3 * np.linalg.norm(expected)  # 4 bits, not another layer


class Scaled(nn.Module):
    """A weight that is computed of a parameter at each run."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.mix = nn.Linear(32, 8), nn.Parameter(torch.randn(32, 32))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(linear(x, self.mix * 0.5))


def test_what_stays_float_is_listed_said_and_refused_where_asked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    samples = [{"x": floats(2, 32)}]
    with caplog.at_level(logging.WARNING, "edgecomp"):
        model = edgecomp.compress(Scaled(), "lut-4bit", samples, overrides=["passes.0.refits=0"])
    share, rows = model.provenance["float"]["share"], model.provenance["float"]["tensors"]
    assert share == pytest.approx((1024 + 8) / model.parameters)
    assert [(row["names"], row["parameters"], row["bytes"]) for row in rows] == [(["mix"], 1024, 4096), (["head.bias"], 8, 32)]
    assert rows[0]["reason"] == "weights of no layer, read by node mul (aten.mul.Tensor) in the model"
    assert any(message.startswith("edgecomp: warning: 80% of the weights stay float (4,096 bytes") for message in caplog.messages)
    with pytest.raises(ModelError, match=r"with --strict .*may stay float, but 80% .*aten\.mul\.Tensor.*: mix"):
        edgecomp.compress(Scaled(), "lut-4bit", samples, strict=True)
    with pytest.raises(ModelError, match="but 100% of the weights stay float"):  # known after the passes alone
        edgecomp.compress(nn.Sequential(nn.Linear(32, 2)), "lut-4bit", samples, overrides=["passes.0.skip=['0']"], strict=True)
    model.save(tmp_path / "m.ec")
    from edgecomp.inspect.model import inspect_checkpoint

    found = inspect_checkpoint(tmp_path / "m.ec")
    assert found.float_share == share
    assert "80.1% of the parameters stay float: 4,096 bytes of weights of no layer, read by node mul" in found.summary()
    assert "| stays float, since | parameters | bytes | tensors |" in found.to_markdown()


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    model = edgecomp.compress(
        nn.Sequential(nn.Conv1d(32, 32, 3)), "lut-4bit", [{"x": floats(1, 32, 8)}], overrides=["passes.0.refits=0"]
    )
    model.save(tmp_path / "m.ec")
    with pytest.raises(CheckpointError, match="0 must be a layer of the kind convolution, got Linear"):
        load(tmp_path / "m.ec", model=nn.Sequential(nn.Linear(32, 32)))
