"""Where a compressed model came from: digests of its source, its calibration, and of all that decides what passes make."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edgecomp.calibration import Sample
from edgecomp.models import LoadedModel
from edgecomp.recipe import Recipe


def work_key(loaded: LoadedModel, recipe: Recipe, provenance: Mapping[str, Any], device: torch.device) -> str:
    """A digest of all that decides what passes make, threads and instruction sets too: they decide the order of sums."""
    decisive = {
        "recipe": recipe.model_dump(mode="json", exclude={"name", "dense_dtype"}),
        "provenance": provenance,
        "source": loaded.source,
        "modules": re.sub(" at 0x[0-9a-f]+", "", repr(loaded.module)),
        "threads": torch.get_num_threads(),
        "device": str(device),
        "processor": torch.backends.cpu.get_cpu_capability(),
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def describe_source(module: nn.Module, files: Iterable[Path]) -> dict[str, str]:
    """The sha256 of each file that the model was read from; of a model in memory, that of its tensors."""
    digests = {}
    for path in files:
        with path.open("rb") as file:
            digests[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    if digests:
        return digests
    digest = hashlib.sha256()
    # Buffers that no file holds decide outputs too.
    for name, tensor in {**dict(module.named_buffers()), **module.state_dict()}.items():
        digest.update(f" {name} {tensor.dtype} {list(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return {"tensors": digest.hexdigest()}


def describe_calibration(calibration: Any, inputs: Sequence[Sample]) -> dict[str, Any]:
    """Where the samples came from and a digest of them, without which a result cannot be repeated."""
    digest = hashlib.sha256()
    for sample in inputs:
        for name in sorted(sample):
            array = np.ascontiguousarray(sample[name])
            digest.update(f" {name} {array.dtype} {list(np.shape(sample[name]))} ".encode() + array.tobytes())
    source = str(calibration) if isinstance(calibration, str | Path) else None
    return {"source": source, "samples": len(inputs), "sha256": digest.hexdigest() if inputs else None}
