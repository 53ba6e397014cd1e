"""Files of strangers are read with bounds on their bytes, after decompression too, on nesting and on numbers: all of them are here.

Every function raises ValueError with what must hold and what was got; callers say which file it is, and what to do.
"""

from __future__ import annotations

import gzip
import json
import math
import tomllib
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

LARGEST_SETTINGS_BYTES = 2**20  # a recipe
LARGEST_CONFIGURATION_BYTES = 2**24  # what describes a model: larger ones list a class for each of a million labels
LARGEST_TOKENIZER_BYTES = 2**28  # of a quarter of a million words the file has 20 MB
LARGEST_JSON_BYTES = 2**28  # manifests, records, answers: an hour of samples of a microsecond is smaller
LARGEST_TEXT_BYTES = 2**30
# What is packed may be larger than its file by a factor that data reaches and zeros exceed.
LARGEST_UNPACKED_BYTES, LARGEST_RATIO = 2**30, 16
DEEPEST = 64  # JSON in JSON
LARGEST_BITS = 128  # of a whole number's magnitude; transformers writes 10^30 where there is no limit


def read_bytes(path: Path, largest: int) -> bytes:
    """A file's bytes.

    Raises:
        OSError: it cannot be read.
        ValueError: it is larger.

    """
    with path.open("rb") as file:
        return _at_most(file.read(largest + 1), largest)


def read_text(path: Path) -> str:
    """A UTF-8 text, unpacked where its name ends in `.gz`.

    Raises:
        OSError: it cannot be read.
        ValueError: larger than the bounds, damaged, or not UTF-8.

    """
    if path.suffix != ".gz":
        return read_bytes(path, LARGEST_TEXT_BYTES).decode("utf-8")
    largest = min(largest_unpacked(path), LARGEST_TEXT_BYTES)
    try:
        with gzip.open(path, "rb") as file:
            return _at_most(file.read(largest + 1), largest).decode("utf-8")
    except (EOFError, zlib.error) as error:
        raise ValueError(str(error)) from error


def largest_unpacked(path: Path) -> int:
    """How many bytes a packed file may unpack to."""
    return max(LARGEST_UNPACKED_BYTES, LARGEST_RATIO * path.stat().st_size)


def require_unpackable(path: Path) -> None:
    """Refuse an archive (`.npz`) whose members unpack to more than the bounds; their own sizes bind whoever reads them.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no archive, or larger.

    """
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(str(error)) from error
    largest = largest_unpacked(path)
    if total > largest:
        raise ValueError(f"it must unpack to {largest:,} bytes at most, and would to {total:,}")


def read_json(path: Path, largest: int = LARGEST_JSON_BYTES, *, bits: int = LARGEST_BITS) -> Any:
    """The value of a JSON file.

    Raises:
        OSError: it cannot be read.
        ValueError: see `parse_json`; or it is larger.

    """
    return parse_json(read_bytes(path, largest).decode("utf-8"), bits=bits)


def parse_json(text: str, *, finite: bool = False, bits: int = LARGEST_BITS) -> Any:
    """The value of a JSON text.

    Args:
        text: the JSON.
        finite: whether NaN and infinities are refused, which JSON does not have and Python writes.
        bits: of the magnitude of whole numbers.

    Raises:
        ValueError: no JSON, nested too deeply, or with numbers out of range.

    """
    return _plain(json.loads, text, finite=finite, bits=bits)


def parse_toml(text: str) -> dict[str, Any]:
    """The table of a TOML text.

    Raises:
        ValueError: no TOML, nested too deeply, or with numbers out of range.

    """
    table: dict[str, Any] = _plain(tomllib.loads, text, finite=False, bits=LARGEST_BITS)
    return table


def _plain(parse: Callable[[str], Any], text: str, *, finite: bool, bits: int) -> Any:
    try:
        value = parse(text)
    except RecursionError as error:
        raise ValueError(f"it must be nested {DEEPEST} deep at most") from error
    require_plain(value, finite=finite, bits=bits)
    return value


def require_plain(value: Any, *, finite: bool = False, bits: int = LARGEST_BITS) -> None:
    """Hold a parsed value to the bounds on nesting and numbers.

    Raises:
        ValueError: nested too deeply, or a number is out of range.

    """
    level, depth = [value], 0
    while level:
        if depth > DEEPEST:
            raise ValueError(f"it must be nested {DEEPEST} deep at most")
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner += item.values()
            elif isinstance(item, list):
                inner += item
            elif isinstance(item, int):
                if item.bit_length() > bits:
                    raise ValueError(f"its whole numbers must have {bits} bits at most")
            elif finite and isinstance(item, float) and not math.isfinite(item):
                raise ValueError(f"its numbers must be finite, got {item}")
        level, depth = inner, depth + 1


def _at_most(data: bytes, largest: int) -> bytes:
    if len(data) > largest:
        raise ValueError(f"it must hold {largest:,} bytes at most, and holds more")
    return data
