"""Models made by a function of the user's: `package.module:factory` returns an `nn.Module`, or it and its `TensorSpec` inputs."""

from __future__ import annotations

from torch import nn

from edgecomp.calibration import import_attribute
from edgecomp.errors import ModelError
from edgecomp.models.base import LoadedModel
from edgecomp.tensor import TensorSpec


def load(spec: str) -> LoadedModel:
    """The factory's model, in eval mode.

    Raises:
        ModelError: the factory cannot be imported, or returns something else.

    """
    factory = import_attribute(spec, ModelError)
    made = factory() if callable(factory) and not isinstance(factory, nn.Module) else factory
    module, inputs = made if isinstance(made, tuple) and len(made) == 2 else (made, ())
    described = isinstance(inputs, list | tuple) and all(isinstance(item, TensorSpec) for item in inputs)
    if not isinstance(module, nn.Module) or not described:
        raise ModelError(
            f"{spec} must return an nn.Module, or (nn.Module, list of edgecomp.tensor.TensorSpec), got {type(made).__name__}"
        )
    model = LoadedModel(module.eval(), tuple(inputs), (), "generic", {"kind": "factory", "model": spec})
    return model.bound() if inputs else model
