"""What an artifact is: a line of text in every file that edgecomp writes, which people, runtimes and one C call read alike.

    edgecomp-identity/1 id=… original=… recipe=… calibration=… edgecomp=0.1.0;

Digests are SHA-256 in hexadecimal; `calibration` is `-` where there was none. The id is of the packed arrays and all of the rest,
so that two artifacts of one checkpoint share it. In a checkpoint the line is the manifest's `identity`, in an ONNX model the
metadata `edgecomp.identity`, in an ExecuTorch program the method `edgecomp_identity`; in C it is found by `ec_identity_find`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgecomp.array_file import bytes_of

METADATA = "edgecomp.identity"  # of an ONNX model
_LINE = re.compile(
    rb"edgecomp-identity/1 id=([0-9a-f]{64}) original=([0-9a-f]{64}) recipe=([0-9a-f]{64}) calibration=([0-9a-f]{64}|-) "
    rb"edgecomp=([0-9a-z.]{1,31});"
)


@dataclass(frozen=True)
class Identity:
    """An artifact's identity.

    Args:
        id: of the packed arrays and of what follows.
        original: of the files that were compressed, or of the tensors of a model in memory.
        recipe: of the resolved recipe, its name left out.
        calibration: of the calibration's inputs; empty where there were none.
        edgecomp: the version that compressed.

    """

    id: str
    original: str
    recipe: str
    calibration: str
    edgecomp: str

    def __str__(self) -> str:
        """The line."""
        return (
            f"edgecomp-identity/1 id={self.id} original={self.original} recipe={self.recipe} calibration={self.calibration or '-'} "
            f"edgecomp={self.edgecomp};"
        )

    def to_json(self) -> dict[str, str]:
        """The identity as JSON values."""
        return asdict(self)


def find_identity(data: bytes | memoryview) -> Identity | None:
    """The first identity in an artifact's bytes; None where there is none."""
    found = _LINE.search(data)
    if found is None:
        return None
    identity, original, recipe, calibration, version = (bytes(group).decode() for group in found.groups())
    return Identity(identity, original, recipe, calibration.removeprefix("-"), version)


def identity_of(recipe: Mapping[str, Any], provenance: Mapping[str, Any], arrays: Iterable[tuple[str, np.ndarray]]) -> Identity:
    """The identity of a compressed model.

    Args:
        recipe: the resolved one.
        provenance: of a compressed model: its source's digests, its calibration and the version that compressed it.
        arrays: names and values of all that is packed or stays dense, in any order.

    """
    content = hashlib.sha256()
    for name, array in sorted(arrays, key=lambda pair: pair[0]):
        content.update(f" {name} {array.dtype} {list(array.shape)} ".encode())
        content.update(bytes_of(array))
    named = {
        "original": digest_of_json(provenance.get("source", {})),
        "recipe": digest_of_json({key: value for key, value in recipe.items() if key != "name"}),
        "calibration": str((provenance.get("calibration") or {}).get("sha256") or ""),
        "edgecomp": str(provenance.get("edgecomp", "0")),
    }
    return Identity(digest_of_json({**named, "arrays": content.hexdigest()}), **named)


def digest_of_json(value: Any) -> str:
    """SHA-256 of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
