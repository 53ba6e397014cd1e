"""Inputs go to the parameters of their names, and outputs have names, whatever a model's forward looks like."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from edgecomp.errors import ModelError
from edgecomp.models.bound import Bound, ByName, bind, named_tensors


def module(forward: Callable[..., Any]) -> nn.Module:
    made = nn.Module()
    made.forward = forward  # type: ignore[method-assign]
    return made


def optional(x: Tensor, scale: Tensor | None = None, mask: Tensor | None = None) -> tuple[Any, ...]:
    return x, scale, mask


def keyword_only(x: Tensor, *, gain: Tensor, bias: Tensor | None = None) -> tuple[Any, ...]:
    return x, gain, bias


def positional(x: Tensor, y: Tensor, /) -> tuple[Any, ...]:
    return x, y


def several(*tensors: Tensor) -> tuple[Any, ...]:
    return tensors


def first_and_more(x: Tensor, *others: Tensor, last: Tensor) -> tuple[Any, ...]:
    return x, *others, last


def keywords(**batch: Tensor) -> tuple[Any, ...]:
    return tuple(sorted(batch.items()))


@pytest.mark.parametrize(
    ("forward", "names", "order", "binding"),
    [
        (optional, ("mask", "x"), ("x", "mask"), ByName(1, ("mask",))),
        (optional, ("mask", "scale", "x"), ("x", "scale", "mask"), ByName(3, ())),
        (keyword_only, ("gain", "x"), ("x", "gain"), ByName(1, ("gain",))),
        (positional, ("y", "x"), ("x", "y"), ByName(2, ())),
        (several, ("b", "a"), ("b", "a"), ByName(2, ())),
        (first_and_more, ("last", "p", "x", "q"), ("x", "p", "q", "last"), ByName(3, ("last",))),
        (keywords, ("b", "a"), ("b", "a"), ByName(0, ("b", "a"))),
        (lambda x: x, ("picture",), ("picture",), ByName(1, ())),  # the one parameter takes an input of any name
    ],
)
def test_inputs_are_bound_by_name(
    forward: Callable[..., Any], names: tuple[str, ...], order: tuple[str, ...], binding: ByName
) -> None:
    assert bind(module(forward), names) == (order, binding)


def test_each_input_reaches_its_parameter() -> None:
    given = {"mask": torch.tensor(3.0), "x": torch.tensor(1.0)}
    order, binding = bind(module(optional), list(given))
    bound = Bound(module(optional), binding)
    x, scale, mask = bound.run_body([given[name] for name in order])
    assert (float(x), scale, float(mask)) == (1, None, 3)
    outputs = bound(*(given[name] for name in order))  # None is no output
    assert [float(output) for output in outputs] == [1, 3]


@pytest.mark.parametrize(
    ("forward", "names", "message"),
    [
        (optional, ("x", "masks"), r"forward\(x, scale=None, mask=None\).*masks is no parameter of it"),
        (optional, ("mask", "scale"), "x is not given"),
        (keyword_only, ("x", "bias"), "gain is not given"),
        (optional, ("x", "x"), "each name may come once"),
        (first_and_more, ("p", "last"), "x is not given"),
        (lambda x, y=None, *others: x, ("x", "z"), r"z go into \*args"),
    ],
)
def test_names_that_forward_does_not_take_are_refused(forward: Callable[..., Any], names: tuple[str, ...], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        bind(module(forward), names)


@dataclass
class Output:
    logits: Tensor
    hidden: tuple[Tensor, Tensor] | None = None


class Pair(NamedTuple):
    left: Tensor
    right: Tensor


A, B = torch.zeros(1), torch.ones(1)


@pytest.mark.parametrize(
    ("output", "names"),
    [
        (A, ["output"]),
        ((A, B), ["output", "output_1"]),
        ([A, (B, A)], ["output", "output_1", "output_1_1"]),
        ({"logits": A, "loss": None, "states": (A, B)}, ["logits", "states", "states_1"]),
        (OrderedDict(a=A, b={"c": B}), ["a", "b_c"]),
        (Output(A), ["logits"]),
        (Output(A, (A, B)), ["logits", "hidden", "hidden_1"]),
        (Pair(A, B), ["left", "right"]),
    ],
)
def test_outputs_are_named_by_what_holds_them(output: object, names: list[str]) -> None:
    assert list(named_tensors(output)) == names


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (3.0, "output is of type float"),
        ({"a": A, "cache": object()}, "cache is of type object"),
        ({"a": {"b": A}, "a_b": B}, "two are called a_b"),
        (None, "returns none"),
    ],
)
def test_other_outputs_are_refused(output: object, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        named_tensors(output)
