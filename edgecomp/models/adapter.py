"""A model behind a plain signature."""

from __future__ import annotations

from torch import nn


class Adapter(nn.Module):
    """Gives a model a plain signature, tensors in and a tuple of tensors out; layers are named below its `body`."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body


def body_of(module: nn.Module) -> nn.Module:
    """The module below which layers are named: an adapter's body, or the module itself."""
    return module.body if isinstance(module, Adapter) else module
