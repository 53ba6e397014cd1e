"""The files of a Hugging Face model, as transformers finds them: in its folder, or in the cache of the hub."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from edgecomp.bounded import LARGEST_CONFIGURATION_BYTES, read_json
from edgecomp.errors import ModelError
from edgecomp.models import configuration

_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def find(location: str, name: str) -> Path | None:
    """A file of a model, as transformers finds it."""
    from transformers.utils.hub import cached_file

    found = cached_file(location, name, _raise_exceptions_for_missing_entries=False)
    return None if found is None else Path(found)


def read_entries(location: str, name: str, largest: int, *, parse: bool = True) -> tuple[dict[str, Any], Path] | None:
    """A JSON object of a model's file, and the file's folder; None where there is none."""
    path = find(location, name)
    if path is None:
        return None
    if path.stat().st_size > largest:
        raise ModelError(f"{path} must hold {largest:,} bytes at most, and holds {path.stat().st_size:,}")
    value = read_json(path, largest) if parse else {}
    if not isinstance(value, dict):
        raise ModelError(f"{path} must hold a JSON object, got {type(value).__name__}")
    return value, path.parent


def files_of(location: str, config: Any) -> list[Path]:
    """The files that decide the model, as transformers finds them: configuration and weights; weights of safetensors alone."""
    given = getattr(config, "transformers_weights", None)
    weights = (
        [configuration.require_plain_name(given, location)] if given else ["model.safetensors", "model.safetensors.index.json"]
    )
    first = next((path for name in weights if (path := find(location, name)) is not None), None)
    if first is None:
        return []
    names = [*getattr(type(config), "extra_files", ())]
    if first.suffix == ".json":
        parts = set(read_json(first, LARGEST_CONFIGURATION_BYTES)["weight_map"].values())
        names += sorted(configuration.require_plain_name(name, location) for name in parts)
    found = [find(location, "config.json"), first, *(find(location, name) for name in names)]
    return [path for path in found if path is not None]


def dtype_of(files: Sequence[Path]) -> torch.dtype:
    """The dtype in which the files' weights are loaded: their own where all have one, else float32, which holds them exactly.

    What the configuration says does not count: it may say bfloat16 beside weights of float32.
    """
    stored = set()
    for path in files:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                stored |= {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118  (not a mapping)
    floating = {name for name in stored if name.startswith(("F", "BF"))}
    return _DTYPES.get(floating.pop(), torch.float32) if len(floating) == 1 else torch.float32


def count_elements(path: Path) -> int:
    """Elements of all tensors of a safetensors file."""
    with safe_open(path, framework="pt") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118  (not a mapping)
