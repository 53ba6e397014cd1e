"""What runs of a module leave in it: put back as it was, or exchanged for what is handed in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def unchanged(module: nn.Module) -> Iterator[None]:
    """A module's modes, attributes and buffers are afterwards what they were, whatever its runs left in them."""
    parts = [(part, dict(vars(part)), dict(part._buffers)) for part in module.modules()]
    buffers = [buffer for _, _, held in parts for buffer in held.values() if buffer is not None and not buffer.is_meta]
    values = [(buffer, buffer.clone()) for buffer in buffers]
    try:
        yield
    finally:
        for part, attributes, held in parts:
            vars(part).clear()
            vars(part).update(attributes)
            part._buffers.clear()
            part._buffers.update(held)
        for buffer, value in values:
            if not torch.equal(buffer, value):  # a mapped one cannot be written
                buffer.copy_(value)


@contextmanager
def exchanged(module: nn.Module, buffers: Mapping[str, Tensor]) -> Iterator[Callable[[], tuple[Tensor, ...]]]:
    """The module with other buffers for a while; gives what they are by then."""
    holders = [(module.get_submodule(name.rpartition(".")[0])._buffers, name.rpartition(".")[2]) for name in buffers]
    own = [held[name] for held, name in holders]
    for (held, name), tensor in zip(holders, buffers.values(), strict=True):
        held[name] = tensor
    try:
        yield lambda: tuple(tensor for held, name in holders if (tensor := held[name]) is not None)
    finally:
        for (held, name), before in zip(holders, own, strict=True):
            held[name] = before
