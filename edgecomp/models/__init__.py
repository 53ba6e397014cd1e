"""Loading models: Hugging Face folders and hub ids, GGUF files, `torch.export` programs, and factories."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from edgecomp.errors import CheckpointError
from edgecomp.models import factory, huggingface, program
from edgecomp.models.base import LoadedModel
from edgecomp.models.bound import Adapter, body_of


def load_model(spec: str) -> LoadedModel:
    """The model that `spec` names: a `.pt2` file, `package.module:factory`, or a Hugging Face folder, GGUF file or hub id.

    Raises:
        ModelError: it cannot be found or read.

    """
    path = Path(spec)
    if path.suffix == ".pt2":
        return program.load(spec)
    if ":" in spec and not path.exists():
        return factory.load(spec)
    return huggingface.load(spec)


def build_skeleton(source: Mapping[str, Any], folder: Path, model: str | nn.Module | None) -> LoadedModel:
    """The model of a checkpoint, its weights still to be filled in.

    Args:
        source: what the checkpoint says of its model.
        folder: its configuration, for Hugging Face models, which are built from that alone.
        model: for all others the model, or what `load_model` takes. The checkpoint's own word is not followed: it would mean
            running whatever code a file names.

    Raises:
        CheckpointError: the model is needed and was not given.
        ModelError: it cannot be built.

    """
    if isinstance(model, nn.Module):
        return LoadedModel(copy.deepcopy(model).eval(), (), ())
    if model is not None:
        return load_model(model)
    if source["kind"] == "huggingface":
        return huggingface.skeleton(source, folder)
    made_from = f" ({source['model']})" if "model" in source else ""
    raise CheckpointError(
        f"a checkpoint holds the weights of a {source['kind']}{made_from}, not its code: "
        "give the model with --model (model=... in Python)"
    )


__all__ = ["Adapter", "LoadedModel", "body_of", "build_skeleton", "load_model"]
