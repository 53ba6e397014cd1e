"""LSTM, GRU and RNN layers and their cells as linear layers and the loop between them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgecomp.errors import ModelError
from edgecomp.modules import stand_in
from edgecomp.recurrence import CELLS, State, run_steps
from edgecomp.unfolding.plain import linear


class Recurrent(nn.Module):
    """`nn.LSTM`, `nn.GRU` and `nn.RNN`: the linear layers `ih_l0`, `hh_l0`, with `_reverse` for backward directions, and `hr_l0`.

    The inputs' part of all steps is one product, `ih`; `hh` is one of each step, of the hidden state's part.
    """

    num_layers: int
    hidden_size: int
    proj_size: int
    bidirectional: bool
    batch_first: bool

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        stand_in(self, layer)
        self._cell = CELLS[layer.mode.lower()]
        self._states = 2 if layer.mode == "LSTM" else 1
        self._projected = layer.proj_size > 0
        self._places = [
            f"l{number}{direction}"
            for number in range(layer.num_layers)
            for direction in ("", "_reverse")[: 1 + layer.bidirectional]
        ]
        for place in self._places:
            for kind in ("ih", "hh"):
                bias = layer.get_parameter(f"bias_{kind}_{place}") if layer.bias else None
                self.add_module(f"{kind}_{place}", linear(layer.get_parameter(f"weight_{kind}_{place}"), bias))
            if self._projected:
                self.add_module(f"hr_{place}", linear(layer.get_parameter(f"weight_hr_{place}"), None))

    def flatten_parameters(self) -> None:
        """Does nothing: there is nothing to flatten."""

    def forward(self, x: Tensor, state: Tensor | State | None = None) -> tuple[Tensor, Tensor | State]:
        """Outputs of all steps, and the last state, as PyTorch's layer gives them.

        Raises:
            ModelError: a packed sequence, whose lengths are values that a graph cannot follow.

        """
        if not isinstance(x, Tensor):
            raise ModelError(
                f"recurrent layers take tensors, got a {type(x).__name__}, whose lengths are values that no graph follows: "
                "give padded tensors, and choose each row's last step by torch.gather"
            )
        single = x.ndim == 2
        if single:
            x = x.unsqueeze(1)
        elif self.batch_first:
            x = x.transpose(0, 1)
        starts = self._starts(x, state, single)
        lasts: list[State] = []
        directions = 2 if self.bidirectional else 1
        for number in range(self.num_layers):
            outputs = []
            for place in self._places[number * directions : (number + 1) * directions]:
                y, last = self._run(place, x, tuple(part[len(lasts)] for part in starts))
                outputs.append(y)
                lasts.append(last)
            x = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-1)
        found = tuple(torch.stack(parts) for parts in zip(*lasts, strict=True))
        if single:
            x, found = x.squeeze(1), tuple(part.squeeze(1) for part in found)
        elif self.batch_first:
            x = x.transpose(0, 1)
        return x, found if self._states == 2 else found[0]

    def _run(self, place: str, x: Tensor, start: State) -> tuple[Tensor, State]:
        hidden = self.get_submodule(f"hh_{place}")
        project = self.get_submodule(f"hr_{place}") if self._projected else None
        gates = self.get_submodule(f"ih_{place}")(x)
        return run_steps(self._cell, gates, start, hidden, project, reverse=place.endswith("_reverse"))

    def _starts(self, x: Tensor, state: Tensor | State | None, single: bool) -> State:
        if state is None:
            widths = [self.proj_size or self.hidden_size, self.hidden_size][: self._states]
            return tuple(x.new_zeros(len(self._places), x.shape[1], width) for width in widths)
        parts = (state,) if isinstance(state, Tensor) else tuple(state)
        return tuple(part.unsqueeze(1) for part in parts) if single else parts


class RecurrentCell(nn.Module):
    """`nn.LSTMCell`, `nn.GRUCell` and `nn.RNNCell`: a step, of the linear layers `ih` and `hh`."""

    hidden_size: int

    def __init__(self, layer: nn.RNNCellBase) -> None:
        super().__init__()
        stand_in(self, layer)
        kinds = {nn.LSTMCell: "lstm", nn.GRUCell: "gru"}
        kind = next((name for base, name in kinds.items() if isinstance(layer, base)), None)
        self._cell = CELLS[kind or f"rnn_{layer.nonlinearity}"]
        self._states = 2 if kind == "lstm" else 1
        self.ih = linear(layer.weight_ih, layer.bias_ih if layer.bias else None)  # type: ignore[arg-type]
        self.hh = linear(layer.weight_hh, layer.bias_hh if layer.bias else None)  # type: ignore[arg-type]

    def forward(self, x: Tensor, state: Tensor | State | None = None) -> Tensor | State:
        """The state after a step."""
        if state is None:
            state = (x.new_zeros(*x.shape[:-1], self.hidden_size),) * self._states
        after = self._cell(self.ih(x), (state,) if isinstance(state, Tensor) else tuple(state), self.hh, None)
        return after if self._states == 2 else after[0]
