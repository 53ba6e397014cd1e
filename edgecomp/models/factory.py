"""Models made by a function of the user's: `package.module:factory` returns an `nn.Module`, or it and its `TensorSpec` inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from edgecomp.calibration import import_attribute, users_code
from edgecomp.errors import ModelError
from edgecomp.models.base import LoadedModel
from edgecomp.models.brought import plain
from edgecomp.tensor import TensorSpec


def load(spec: str) -> LoadedModel:
    """The factory's model, in eval mode.

    Raises:
        ModelError: the factory cannot be imported, or returns something else, or a module that cannot be compressed.

    """
    return made(import_attribute(spec, ModelError), spec, {"kind": "factory", "model": spec})


def made(factory: Any, name: str, source: Mapping[str, Any]) -> LoadedModel:
    """What a function of the user's makes, or what a user has made already: a module, alone or with its inputs.

    Args:
        factory: the function, or the result.
        name: what to call it where it is neither.
        source: where the model is from.

    Raises:
        ModelError: as `load` says.

    """
    if isinstance(factory, type) and issubclass(factory, nn.Module):
        raise ModelError(
            f"a model must be a module, and {name} is a class of them: give {factory.__name__}(...), or a function that makes it"
        )
    with users_code(name, ModelError):
        given = factory() if callable(factory) and not isinstance(factory, nn.Module) else factory
    module, inputs = given if isinstance(given, tuple) and len(given) == 2 else (given, ())
    described = isinstance(inputs, list | tuple) and all(isinstance(item, TensorSpec) for item in inputs)
    if not isinstance(module, nn.Module) or not described:
        raise ModelError(
            f"{name} must return an nn.Module, or (nn.Module, list of edgecomp.tensor.TensorSpec), got {type(given).__name__}"
        )
    model = LoadedModel(plain(module).eval(), tuple(inputs), (), "generic", source)
    return model.bound() if inputs else model
