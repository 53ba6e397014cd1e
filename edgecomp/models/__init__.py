"""Loading models: Hugging Face folders and hub ids, GGUF files, `torch.export` programs, and factories."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgecomp.errors import CheckpointError
from edgecomp.models import factory, huggingface, program
from edgecomp.models.base import Adapter, LoadedModel, body_of


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


def build_skeleton(source: Mapping[str, Any], folder: Path) -> LoadedModel:
    """The model that a checkpoint's `source` describes, its weights still to be filled in; `folder` holds its configuration.

    Raises:
        CheckpointError: the source is of an unknown kind.
        ModelError: it cannot be built.

    """
    match source.get("kind"):
        case "huggingface":
            return huggingface.skeleton(source, folder)
        case "factory":
            return factory.skeleton(source)
        case "program":
            return program.skeleton(source)
        case other:
            raise CheckpointError(f"a checkpoint's source must be huggingface, factory or program, got {other!r}")


__all__ = ["Adapter", "LoadedModel", "body_of", "build_skeleton", "load_model"]
