"""The structure of a GGUF file (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), held to bounds before others read it.

Readers in Python take counts and lengths as they stand: a file of a kilobyte may ask for 2^60 entries, or for tensors of terabytes.
"""

from __future__ import annotations

import math
import mmap
import struct
from pathlib import Path

_VERSIONS = (2, 3)
_SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY = 8, 9
# Several times what the largest known files have.
_LARGEST_TENSORS, _LARGEST_ENTRIES, _LARGEST_ARRAY, _LARGEST_STRING = 2**17, 2**16, 2**24, 2**24
_LARGEST_DIMENSIONS = 4


def check_header(path: Path) -> None:
    """Walk over a file's entries and tensors.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no GGUF file, cut short, or beyond the bounds.

    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:  # of an empty file, a ValueError
        try:
            _Walk(mapped).run()
        except struct.error as error:
            raise ValueError("it ends before its header does") from error


class _Walk:
    """A position in the file."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data, self._at = data, 0

    def run(self) -> None:
        if self._data[:4] != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        self._at = 4
        version, tensors, entries = self._read("<IQQ")
        if version not in _VERSIONS:
            raise ValueError(f"its version must be one of {_VERSIONS}, got {version}")
        for count, largest, what in ((tensors, _LARGEST_TENSORS, "tensors"), (entries, _LARGEST_ENTRIES, "entries")):
            if count > largest:
                raise ValueError(f"it must have {largest:,} {what} at most, got {count:,}")
        alignment = 32
        for _ in range(entries):
            key = self._string()
            (kind,) = self._read("<I")
            start = self._at
            self._skip(kind)
            if key == b"general.alignment" and kind == 4:
                (alignment,) = struct.unpack_from("<I", self._data, start)
        if alignment < 1 or alignment > 2**20:
            raise ValueError(f"its alignment must be a number of bytes, got {alignment}")
        ends = [self._tensor_end() for _ in range(tensors)]
        begin = -(-self._at // alignment) * alignment
        if begin + max(ends, default=0) > len(self._data):
            raise ValueError(f"its tensors need {begin + max(ends):,} bytes, and it has {len(self._data):,}")

    def _read(self, form: str) -> tuple[int, ...]:
        values = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return values

    def _string(self) -> bytes:
        (length,) = self._read("<Q")
        if length > _LARGEST_STRING:
            raise ValueError(f"its texts must have {_LARGEST_STRING:,} bytes at most, got {length:,}")
        self._at += length
        if self._at > len(self._data):
            raise ValueError("it ends before its header does")
        return self._data[self._at - length : self._at]

    def _skip(self, kind: int) -> None:
        """The value of an entry; arrays of arrays, which no file has, are none."""
        if kind != _ARRAY:
            self._skip_values(kind, 1)
            return
        inner, count = self._read("<IQ")
        if count > _LARGEST_ARRAY:
            raise ValueError(f"its lists must have {_LARGEST_ARRAY:,} values at most, got {count:,}")
        self._skip_values(inner, count)

    def _skip_values(self, kind: int, count: int) -> None:
        if kind == _STRING:
            for _ in range(count):
                self._string()
        elif kind in _SCALAR_BYTES:
            self._at += count * _SCALAR_BYTES[kind]
        else:
            raise ValueError(f"an entry has type {kind}")
        if self._at > len(self._data):
            raise ValueError("it ends before its header does")

    def _tensor_end(self) -> int:
        """Where a tensor ends, in the part of the file for tensors."""
        import gguf

        self._string()
        (dimensions,) = self._read("<I")
        if not 1 <= dimensions <= _LARGEST_DIMENSIONS:
            raise ValueError(f"a tensor must have 1 to {_LARGEST_DIMENSIONS} dimensions, got {dimensions}")
        shape = self._read(f"<{dimensions}Q")
        kind, offset = self._read("<IQ")
        if kind not in set(gguf.GGMLQuantizationType):
            raise ValueError(f"a tensor has type {kind}")
        block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(kind)]
        return offset + -(-math.prod(shape) // block) * size
