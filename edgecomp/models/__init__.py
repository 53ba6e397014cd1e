"""Loading models: Hugging Face folders and hub ids, GGUF files, `torch.export` programs, and factories."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from edgecomp.errors import CheckpointError, ModelError
from edgecomp.models import factory, huggingface, program
from edgecomp.models.base import LoadedModel
from edgecomp.models.bound import Adapter, body_of
from edgecomp.trust import NOBODY, Trust


def load_model(spec: str, trust: Trust = NOBODY) -> LoadedModel:
    """The model that `spec` names: a `.pt2` file, `package.module:factory`, or a Hugging Face folder, GGUF file or hub id.

    Args:
        spec: the model. A factory is the user's own word, and run.
        trust: whether code of the model's makers may run: a `.pt2` needs `code`.

    Raises:
        ModelError: it cannot be found or read, or needs more trust.

    """
    path = Path(spec)
    if path.suffix == ".py":
        raise ModelError(
            f"a model in Python is named by a function that makes it, without .py: give {path.stem}:FUNCTION, not {spec}"
        )
    if path.suffix == ".pt2":
        return program.load(spec, trust)
    if ":" in spec and not path.exists():
        return factory.load(spec)
    return huggingface.load(spec, trust)


def build_skeleton(source: Mapping[str, Any], folder: Path, model: str | nn.Module | None, trust: Trust = NOBODY) -> LoadedModel:
    """The model of a checkpoint, its weights still to be filled in.

    Args:
        source: what the checkpoint says of its model.
        folder: its configuration, for Hugging Face models, which are built from that alone.
        model: for all others the model, or what `load_model` takes. The checkpoint's own word is not followed: it would mean
            running whatever code a file names.
        trust: whether code of the model's makers may run.

    Raises:
        CheckpointError: the model is needed and was not given.
        ModelError: it cannot be built.

    """
    if isinstance(model, nn.Module):
        return LoadedModel(copy.deepcopy(model).eval(), (), ())
    if model is not None:
        return load_model(model, trust)
    if source["kind"] == "huggingface":
        return huggingface.skeleton(source, folder, trust)
    made_from = f" ({source['model']})" if "model" in source else ""
    raise CheckpointError(
        f"a checkpoint holds the weights of a {source['kind']}{made_from}, not its code: "
        "give the model with --model (model=... in Python)"
    )


def local_source(source: Mapping[str, Any]) -> str | None:
    """The folder or file that a checkpoint says a Hugging Face model is from, where it is on this machine still; else None.

    No other kind of source is loaded by the checkpoint's word alone: see `build_skeleton`.
    """
    spec = source.get("model")
    return spec if source["kind"] == "huggingface" and isinstance(spec, str) and Path(spec).exists() else None


__all__ = ["Adapter", "LoadedModel", "body_of", "build_skeleton", "load_model", "local_source"]
