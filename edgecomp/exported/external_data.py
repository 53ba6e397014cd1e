"""Where an ONNX model's external data may lie: in files of the model's own folder, within their sizes, whatever runtime reads them.

Runtimes differ in what they check of it, and older ones read outside of files and folders, or follow an address of memory.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from edgecomp.errors import CheckpointError
from edgecomp.exported.files import data_missing, digest_of
from edgecomp.files import outside

_PLACE = ("location", "offset", "length")
# Bits of an element by onnx.proto's TensorProto.DataType; of other types the entry `length` alone tells the size.
_BITS = {
    8: (2, 3, 9, 17, 18, 19, 20, 24),
    16: (4, 5, 10, 16),
    32: (1, 6, 12),
    64: (7, 11, 13, 14),
    128: (15,),
    4: (21, 22, 23),
    2: (25, 26),
}
_ELEMENT_BITS = {kind: bits for bits, kinds in _BITS.items() for kind in kinds}
_LARGEST = 2**63


def place_of(entries: Sequence[tuple[str, str]], dims: Sequence[int], element_type: int) -> tuple[str, int] | None:
    """A tensor's data file, and how many bytes that must have for it; None for a tensor that has its data in the model.

    Args:
        entries: of the tensor's `external_data`.
        dims: its sizes.
        element_type: a `TensorProto.DataType`.

    Raises:
        ValueError: an entry is double, no number, out of range, or means something else than bytes of a file.

    """
    found: dict[str, str] = {}
    for key, value in entries:
        if key in found:
            raise ValueError(f"a tensor has two entries {key} of external data")
        if key.startswith("prepacked"):
            raise ValueError("a tensor has weights packed by another machine's ONNX Runtime (prepacked), which cannot be checked")
        found[key] = value
    if not entries:
        return None
    if "location" not in found:
        raise ValueError("a tensor has external data without a location")
    offset, length = (_number(key, found.get(key, "0")) for key in ("offset", "length"))
    if any(size >= _LARGEST for size in dims) or math.prod(dims) >= _LARGEST:
        raise ValueError(f"a tensor has sizes {list(dims)}")
    size = math.ceil(math.prod(dims) * _ELEMENT_BITS.get(element_type, 0) / 8)
    return found["location"], offset + max(length, size)


def _number(key: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) < _LARGEST):
        raise ValueError(f"the {key} of external data must be a number of bytes, got {text[:50]!r}")
    return int(text)


def check_data_file(model: Path, location: str, needed: int, digest: str | None) -> Path:
    """Check a data file of a model, and follow its links.

    Args:
        model: the `.onnx` file.
        location: of the data file, as the model has it.
        needed: bytes that it must hold.
        digest: SHA-256 that it must have; None for any.

    Returns:
        The file itself.

    Raises:
        CheckpointError: it is missing, too short, another one, or outside the model's folder.

    """
    relative = PurePosixPath(location)
    if relative.is_absolute() or ".." in relative.parts:
        raise CheckpointError(f"{model} refers to external data outside its folder ({location}); such a model is not run")
    if "*" in location:  # ONNX Runtime's names for addresses of memory: */_ORT_MEM_ADDR_/*
        raise CheckpointError(f"{model} refers to external data in no file ({location}); such a model is not run")
    data = model.parent / location
    # A name that no file system takes is an OSError to pathlib, not an absent file.
    if not os.path.isfile(data):  # noqa: PTH113
        raise CheckpointError(data_missing(model, location))
    real = data.resolve()
    if outside(data, model.parent):
        raise CheckpointError(
            f"{model} refers to external data outside its folder ({location} is a link to {real}); such a model is not run: "
            "copy the file into the folder if it belongs there"
        )
    size = real.stat().st_size
    if size < needed:
        raise CheckpointError(f"{data} must hold at least {needed} bytes and holds {size}; copy or export it again")
    if digest is not None and digest_of(real) != digest:
        raise CheckpointError(
            f"{data} must be the file that was exported with {model.name}, and its content is another (expected SHA-256 "
            f"{digest[:12]}...): copy both files of one export together, or export the model again"
        )
    return real
