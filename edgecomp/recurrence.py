"""PyTorch's recurrent layers as loops that a graph can hold: `torch.export` knows them only for a length that it can unroll."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._higher_order_ops.scan import scan
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

State = tuple[Tensor, ...]
Multiply = Callable[[Tensor], Tensor]
# A step: the input's part of its gates, the state before it, what gives the hidden state's part, and a projection of the output.
Cell = Callable[[Tensor, State, Multiply, Multiply | None], State]

_UNROLLED = 32  # steps up to which a fixed length is unrolled, which runtimes run faster than a loop


class Loops(TorchFunctionMode):
    """While it is entered, LSTM, GRU and RNN layers of many steps or of a dynamic number of them compute by `scan`.

    For `x` float32 `[T, B, K]`, each layer and direction multiplies all steps by `W_ih` at once and leaves the hidden state's part
    to the loop. Formulas are those of `torch.nn.LSTM` (with projections), `GRU` and `RNN`.
    """

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """The layer's outputs, as `func` gives them."""
        name = getattr(func, "__name__", "")
        if name not in CELLS or kwargs or not isinstance(args[1], Tensor | tuple | list) or not isinstance(args[3], bool):
            return func(*args, **(kwargs or {}))  # others, and packed sequences
        x, state, weights, biased, layers, _, training, bidirectional, batch_first = args
        steps = x.shape[1 if batch_first else 0]
        if training or (isinstance(steps, int) and steps <= _UNROLLED):
            return func(*args)
        with torch._C.DisableTorchFunction():
            states = (state,) if isinstance(state, Tensor) else tuple(state)
            y, last = _layers(
                CELLS[name], x.transpose(0, 1) if batch_first else x, states, _grouped(weights, layers, bidirectional), biased
            )
        return (y.transpose(0, 1) if batch_first else y, *last)


def _grouped(weights: Sequence[Tensor], layers: int, bidirectional: bool) -> list[list[Sequence[Tensor]]]:
    """By layer and direction."""
    directions = 2 if bidirectional else 1
    each = len(weights) // (layers * directions)
    parts = [weights[start : start + each] for start in range(0, len(weights), each)]
    return [parts[start : start + directions] for start in range(0, len(parts), directions)]


def _layers(cell: Cell, x: Tensor, states: State, weights: list[list[Sequence[Tensor]]], biased: bool) -> tuple[Tensor, State]:
    lasts: list[State] = []
    for directions in weights:
        outputs = []
        for backward, parts in enumerate(directions):
            start = tuple(state[len(lasts)].clone() for state in states)
            w_ih, w_hh, *rest = parts
            b_ih, b_hh = (rest.pop(0), rest.pop(0)) if biased else (None, None)
            hidden = partial(linear, weight=w_hh, bias=b_hh)
            project = partial(linear, weight=rest[0]) if rest else None
            y, last = _loop(cell, linear(x, w_ih, b_ih), start, hidden, project, reverse=bool(backward))
            outputs.append(y)
            lasts.append(last)
        x = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-1)
    return x, tuple(torch.stack(parts) for parts in zip(*lasts, strict=True))


def run_steps(
    cell: Cell, gates: Tensor, start: State, hidden: Multiply, project: Multiply | None, *, reverse: bool
) -> tuple[Tensor, State]:
    """The outputs of all steps `[T, B, H]`, and the state after the last.

    Args:
        cell: a step, of `CELLS`.
        gates: the inputs' part of each step's gates, float32 `[T, B, ...]`.
        start: the state before the first step.
        hidden: gives the hidden state's part.
        project: makes a step's output smaller, as an LSTM's `proj_size`; None for none.
        reverse: from the last step to the first.

    """
    steps = gates.shape[0]
    if torch.compiler.is_exporting() and not (isinstance(steps, int) and steps <= _UNROLLED):
        # Layers by their forward: calls of modules run the hooks of who watches the trace, which a loop's body cannot hold.
        hidden, project = getattr(hidden, "forward", hidden), getattr(project, "forward", project)
        return _loop(cell, gates, tuple(part.clone() for part in start), hidden, project, reverse=reverse)
    outputs, state = [], start
    for gate in reversed(gates.unbind()) if reverse else gates.unbind():
        state = cell(gate, state, hidden, project)
        outputs.append(state[0])
    return torch.stack(outputs[::-1] if reverse else outputs), state


def _loop(
    cell: Cell, gates: Tensor, start: State, hidden: Multiply, project: Multiply | None, *, reverse: bool
) -> tuple[Tensor, State]:
    def step(state: State, gate: Tensor) -> tuple[State, Tensor]:
        after = cell(gate, state, hidden, project)
        return after, after[0].clone()  # what is carried may not be what is given out

    last, y = scan(step, start, gates, dim=0, reverse=reverse)
    return y, last


def _lstm(gate: Tensor, state: State, hidden: Multiply, project: Multiply | None) -> State:
    h, c = state
    i, f, g, o = (gate + hidden(h)).chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    h = torch.sigmoid(o) * torch.tanh(c)
    return (h if project is None else project(h)), c


def _gru(gate: Tensor, state: State, hidden: Multiply, _: Multiply | None) -> State:
    (h,) = state
    r, z, n = gate.chunk(3, -1)
    r_h, z_h, n_h = hidden(h).chunk(3, -1)
    n = torch.tanh(n + torch.sigmoid(r + r_h) * n_h)
    z = torch.sigmoid(z + z_h)
    return ((1 - z) * n + z * h,)


def _rnn(activation: Callable[[Tensor], Tensor]) -> Cell:
    def cell(gate: Tensor, state: State, hidden: Multiply, _: Multiply | None) -> State:
        return (activation(gate + hidden(state[0])),)

    return cell


CELLS: dict[str, Cell] = {"lstm": _lstm, "gru": _gru, "rnn_tanh": _rnn(torch.tanh), "rnn_relu": _rnn(torch.relu)}
