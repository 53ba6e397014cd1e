"""Outputs of any structure as named tensors: dictionaries, dataclasses (as transformers' own), tuples inside each other."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from edgecomp.errors import ModelError
from edgecomp.models.adapter import Adapter

_UNNAMED = "output"


def is_plain(result: Any) -> bool:
    """Whether a model returned a tensor or a tuple of tensors."""
    return isinstance(result, Tensor) or (isinstance(result, tuple) and all(isinstance(part, Tensor) for part in result))


def names_of(result: Any, taken: Collection[str] = ()) -> tuple[str, ...]:
    """A name for each tensor: keys and fields as they are, inside each other `outer.inner`, others `output`, `output_1` and so on.

    Args:
        result: what the model returned.
        taken: names of inputs, which no output may have: `NAME_output` then.

    Raises:
        ModelError: a value is no tensor, or there is none.

    """
    names: list[str] = []
    for path, _ in _leaves(result, ()):
        name = ".".join(path) or (f"{_UNNAMED}_{len(names)}" if names else _UNNAMED)
        names.append(f"{name}_output" if name in taken else name)
    if not names:
        raise ModelError("a model must return tensors, and this one returns none")
    return tuple(names)


def tensors_of(result: Any) -> tuple[Tensor, ...]:
    """The tensors in the order of `names_of`.

    Raises:
        ModelError: a value is no tensor.

    """
    return tuple(value for _, value in _leaves(result, ()))


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    """Tensors with their keys; None is left out, as transformers' outputs have it for what was not asked for."""
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _leaves(part, (*path, str(key)))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _leaves(getattr(value, field.name), (*path, field.name))
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        for key, part in zip(value._fields, value, strict=True):
            yield from _leaves(part, (*path, key))
    elif isinstance(value, tuple | list):
        for index, part in enumerate(value):
            yield from _leaves(part, (*path, str(index)) if path else ())
    elif value is not None:
        where = f" at {'.'.join(path)}" if path else ""
        raise ModelError(
            "a model must return tensors, alone or in tuples, lists, dictionaries and dataclasses, got "
            f"{type(value).__name__}{where}: return none such from forward (of transformers' caches by use_cache=False)"
        )


class Flattened(Adapter):
    """A model whose outputs are a tuple of tensors, whatever structure its own have; made by `flattened`."""


def flattened(body: nn.Module) -> Flattened:
    """The model with plain outputs; its `forward` has the body's signature, which exporters look at."""

    def forward(self: Flattened, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        return tensors_of(self.body(*args, **kwargs))

    forward.__signature__ = inspect.signature(type(body).forward)  # type: ignore[attr-defined]
    made: Flattened = type("Flattened", (Flattened,), {"forward": forward})(body)
    return made
