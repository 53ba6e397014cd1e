"""Recurrent layers through both targets, unrolled and as loops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_strangers import assert_same, floats, packed
from torch import Tensor, nn

from edgecomp.errors import ExportError
from edgecomp.exporters import ExportOptions, export


class Recurrent(nn.Module):
    """A layer as long as its input, with its last state given out."""

    def __init__(self, kind: type[nn.RNNBase], **settings: Any) -> None:
        super().__init__()
        self.recurrent = kind(32, 16, **settings)
        self.linear = nn.Linear(2 * 16 if settings.get("bidirectional") else 16, 32)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y, state = self.recurrent(x)
        return self.linear(y), *(state if isinstance(state, tuple) else (state,))


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        pytest.param(nn.LSTM, {"batch_first": True, "bidirectional": True}, marks=pytest.mark.long),
        (nn.GRU, {"batch_first": True, "bias": False}),
        pytest.param(nn.RNN, {"batch_first": True, "nonlinearity": "relu", "num_layers": 2}, marks=pytest.mark.long),
    ],
)
def test_recurrent_layers_of_dynamic_length_are_exported(kind: type[nn.RNNBase], settings: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    samples = [{"x": floats(1, length, 32)} for length in (5, 70)]
    model = packed(Recurrent(kind, **settings).eval(), samples)
    assert model.inputs[0].dims == ("batch", "x_1", 32)
    assert_same(model, samples, tmp_path)


def test_recurrent_layers_of_few_steps_are_unrolled(tmp_path: Path) -> None:
    torch.manual_seed(0)
    samples = [{"x": floats(1, 3, 32)}]
    model = packed(Recurrent(nn.LSTM, batch_first=True).eval(), samples)
    assert model.inputs[0].dims == ("batch", 3, 32)
    assert_same(model, samples, tmp_path)


def test_a_loop_of_dynamic_batch_is_refused_for_executorch(tmp_path: Path) -> None:
    model = packed(Recurrent(nn.GRU).eval(), [{"x": floats(n, 3, 32)} for n in (5, 9)])
    assert model.inputs[0].dims == ("batch", 3, 32)  # the first axis is called so, whatever it is
    model = packed(Recurrent(nn.GRU, batch_first=True).eval(), [{"x": floats(2, n, 32)} for n in (5, 9)])
    with pytest.raises(ExportError, match=r"node scan .* in module recurrent has a dynamic one.*--max-size batch=1"):
        export(model, "executorch", tmp_path / "model.pte", options=ExportOptions(max_sizes={"batch": 4, "x_1": 16}))
    assert not list(tmp_path.iterdir())
