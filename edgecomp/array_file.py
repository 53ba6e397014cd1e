"""Arrays in a safetensors file (https://huggingface.co/docs/safetensors): written one at a time, read as pages of the file.

safetensors' own `save_file` copies every array first, and its reader for numpy reads a copy; neither is bounded for a large model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

_DTYPES = {"float16": "F16", "float32": "F32", "float64": "F64", "bool": "BOOL"} | {
    f"{sign}int{bits}": f"{sign.upper() or 'I'}{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}
_NAMES = {stored: name for name, stored in _DTYPES.items()}
_ALIGNMENT = 64  # of the first array; the others follow without gaps, as the format demands, those of wide elements first


class Arrays(NamedTuple):
    """A file's arrays by name, mapped, and the texts that it holds beside."""

    arrays: dict[str, np.ndarray]
    metadata: Mapping[str, str]


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write arrays and texts; the bytes depend on nothing else.

    Raises:
        OSError: the disk refuses, or the format has no such dtype.

    """
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    order = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    end = 0
    for name in order:
        array = arrays[name]
        if array.dtype.name not in _DTYPES:
            raise OSError(f"an array must be of {', '.join(_DTYPES)} to be stored, got {array.dtype} for {name}")
        start, end = end, end + array.nbytes
        header[name] = {"dtype": _DTYPES[array.dtype.name], "shape": list(array.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            file.write(bytes_of(arrays[name]))


def map_arrays(path: Path) -> Arrays:
    """The arrays of a file, each a view of its pages: they are read when they are used, and take no memory that the system lacks.

    Raises:
        OSError: there is no such file, or it is no safetensors file.
        TypeError: an array has a dtype that numpy does not have.

    """
    try:
        with safe_open(path, framework="np") as file:  # checks the header, which is then known to fit the file
            texts = file.metadata() or {}
    except (SafetensorError, RuntimeError) as error:
        raise OSError(error) from error
    # Its reader for numpy copies, and the one that maps is PyTorch's. As of that one, pages may be written to, and the file stays.
    data = np.memmap(path, np.uint8, "c")
    first = 8 + int.from_bytes(data[:8].tobytes(), "little")
    header: dict[str, dict[str, Any]] = json.loads(data[8:first].tobytes())
    header.pop("__metadata__", None)
    arrays = {}
    for name, entry in sorted(header.items()):
        if entry["dtype"] not in _NAMES:
            raise TypeError(f"{name} has the dtype {entry['dtype']}, which numpy does not have")
        start, end = entry["data_offsets"]
        arrays[name] = np.asarray(data[first + start : first + end]).view(_NAMES[entry["dtype"]]).reshape(entry["shape"])
    return Arrays(arrays, texts)


def bytes_of(array: np.ndarray) -> memoryview:
    """An array's bytes, little-endian and in C order, without a copy where they lie so."""
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
