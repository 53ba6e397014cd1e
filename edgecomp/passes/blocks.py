"""A model's blocks: modules that run one after the other, each on what the one before it gave, such as a transformer's layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgecomp.errors import ConfigError


@dataclass(frozen=True)
class Call:
    """What a block was given beside the running value: masks, positions, and the like."""

    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]


@dataclass(frozen=True)
class Given:
    """What the blocks were given for one sample: the first one's running value, and the call of each."""

    value: Tensor
    calls: Sequence[Call]


def first_tensor(output: Any) -> Tensor:
    """The output itself, or the first of several."""
    first: Tensor = output[0] if isinstance(output, tuple) else output
    return first


def find_blocks(module: nn.Module, inputs: Sequence[Tensor]) -> list[str]:
    """Names of the blocks: the children of the largest `ModuleList` or `Sequential` that run one after the other.

    Args:
        module: the model, which is run once.
        inputs: what to run it on.

    Raises:
        ConfigError: there are none.

    """
    lists = [(name, part) for name, part in module.named_modules() if isinstance(part, nn.ModuleList | nn.Sequential)]
    lists = [(name, part) for name, part in lists if len(part) > 1 and len(set(part)) == len(part)]
    lists.sort(key=lambda item: -sum(parameter.numel() for parameter in item[1].parameters()))
    chains = {name: _Chain(list(part)) for name, part in lists}
    with _hooks(chain.attach() for chain in chains.values()), torch.no_grad():
        module(*inputs)
    for name, part in lists:
        if chains[name].holds:
            return [f"{name}.{child}" if name else child for child, _ in part.named_children()]
    raise ConfigError(
        "the block-wise stage of jlcm needs a model with blocks in an nn.ModuleList or nn.Sequential that run one after the other, "
        "each on the output of the one before it, and this one has none: set block_steps = 0"
    )


class _Chain:
    """Watches whether each of some modules is called once, in order, on what the one before it gave."""

    def __init__(self, parts: Sequence[nn.Module]) -> None:
        self._parts = parts
        self._next = 0
        self._value: Tensor | None = None
        self._broken = False

    @property
    def holds(self) -> bool:
        return not self._broken and self._next == len(self._parts)

    def attach(self) -> list[Any]:
        return [
            part.register_forward_hook(lambda _, arguments, output, number=number: self._called(number, arguments, output))
            for number, part in enumerate(self._parts)
        ]

    def _called(self, number: int, arguments: tuple[Any, ...], output: Any) -> None:
        taken = arguments[0] if arguments else None
        expected = number == self._next and isinstance(taken, Tensor) and (number == 0 or taken is self._value)
        first = output[0] if isinstance(output, tuple) else output
        self._broken = self._broken or not expected or not isinstance(first, Tensor)
        self._next += 1
        self._value = first if isinstance(first, Tensor) else None


def capture(run: Callable[[], Any], blocks: Sequence[nn.Module]) -> Given:
    """What the blocks are given while `run` runs the model."""
    values: list[Tensor] = []
    calls: list[Call] = []

    def before(block: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        if block is blocks[0]:
            values.append(arguments[0].detach())
        calls.append(Call(arguments[1:], dict(keywords)))

    with _hooks([block.register_forward_pre_hook(before, with_kwargs=True)] for block in blocks), torch.no_grad():
        run()
    return Given(values[0], calls)


def capture_value(run: Callable[[], Any], first: nn.Module) -> Tensor:
    """The running value that the first block is given; what comes after it is not run."""

    def before(_: nn.Module, arguments: tuple[Any, ...]) -> None:
        raise _Reached(arguments[0].detach())

    with _hooks([[first.register_forward_pre_hook(before)]]), torch.no_grad():
        try:
            run()
        except _Reached as reached:
            return reached.value
    raise AssertionError("find_blocks has seen the first block run")


class _Reached(Exception):  # noqa: N818  (no error: it carries the value out of the model)
    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = value


@contextmanager
def _hooks(groups: Any) -> Iterator[None]:
    handles = [handle for group in groups for handle in group]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
