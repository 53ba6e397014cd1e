"""Loading models: Hugging Face folders and hub ids, GGUF files, `torch.export` programs, and factories."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from edgecomp.errors import CheckpointError, ModelError
from edgecomp.models import factory, huggingface, program
from edgecomp.models.base import LoadedModel
from edgecomp.models.bound import Adapter, body_of
from edgecomp.models.brought import plain
from edgecomp.models.named_files import what_is
from edgecomp.trust import NOBODY, Trust
from edgecomp.unfolding import copied


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
    what = what_is(path)
    if what is not None and path.suffix != ".pt2":
        raise ModelError(f"{spec} is {what}")
    if path.suffix == ".pt2":
        return program.load(spec, trust)
    if ":" in spec and not path.exists():
        return factory.load(spec)
    return huggingface.load(spec, trust)


def brought(model: Any, trust: Trust = NOBODY) -> LoadedModel:
    """The model that a user gives in Python.

    Args:
        model: what `load_model` takes, a module, a function that makes it, or what such a function returns (`factory.made`).
        trust: whether code of the model's makers may run.

    Raises:
        ModelError: as theirs, or it is none of these.

    """
    if isinstance(model, str | Path):
        return load_model(str(model), trust)
    if isinstance(model, nn.Module):
        return LoadedModel(plain(model), (), ())
    made = isinstance(model, tuple) and len(model) == 2  # what such a function returns
    if not callable(model) and not made:
        raise ModelError(
            "a model must be a module, a function that makes it, its name or path, or what edgecomp.models.load_model returns, "
            f"got {type(model).__name__}"
        )
    name = getattr(model, "__name__", type(model).__name__)
    return factory.made(model, name, {"kind": "module"})


def build_skeleton(
    source: Mapping[str, Any], folder: Path, model: str | Path | nn.Module | Callable[[], Any] | None, trust: Trust = NOBODY
) -> LoadedModel:
    """The model of a checkpoint, its weights still to be filled in.

    Args:
        source: what the checkpoint says of its model.
        folder: its configuration, for Hugging Face models, which are built from that alone.
        model: for all others the model, or what `brought` takes. The checkpoint's own word is not followed: it would mean
            running whatever code a file names.
        trust: whether code of the model's makers may run.

    Raises:
        CheckpointError: the model is needed and was not given.
        ModelError: it cannot be built.

    """
    if model is not None:
        return brought(copied(plain(model)).eval() if isinstance(model, nn.Module) else model, trust)
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


__all__ = ["Adapter", "LoadedModel", "body_of", "brought", "build_skeleton", "load_model", "local_source"]
