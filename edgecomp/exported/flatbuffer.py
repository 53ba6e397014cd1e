"""Reading of FlatBuffers (https://flatbuffers.dev/internals/), as much as ExecuTorch's files need: tables, vectors, texts, numbers.

A table's fields are numbered by their order in the schema, which only ever grows at the end. Everything is checked against the end
of the data: what does not fit raises ValueError.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator


class Table:
    """A table at a position of the data."""

    def __init__(self, data: memoryview, position: int) -> None:
        self._data, self._position = data, position
        self._fields = position - _read(data, "<i", position)
        self._count = (_read(data, "<H", self._fields) - 4) // 2

    @staticmethod
    def root(data: memoryview) -> Table:
        """The table that the data begins with."""
        return Table(data, _read(data, "<I", 0))

    def number(self, field: int, kind: str, default: int = 0) -> int:
        """A number; `kind` is a character of `struct`."""
        position = self._find(field)
        return default if position is None else _read(self._data, f"<{kind}", position)

    def text(self, field: int) -> str:
        """A string; empty where absent."""
        position = self._follow(field)
        return "" if position is None else self._text(position)

    def table(self, field: int) -> Table | None:
        """A table, or the value of a union."""
        position = self._follow(field)
        return None if position is None else Table(self._data, position)

    def tables(self, field: int) -> Iterator[Table]:
        """A vector of tables."""
        for position in self._offsets(field):
            yield Table(self._data, position)

    def texts(self, field: int) -> Iterator[str]:
        """A vector of strings."""
        for position in self._offsets(field):
            yield self._text(position)

    def numbers(self, field: int, kind: str) -> tuple[int, ...]:
        """A vector of numbers."""
        start = self._follow(field)
        if start is None:
            return ()
        length, size = _read(self._data, "<I", start), struct.calcsize(f"<{kind}")
        return struct.unpack(f"<{length}{kind}", _slice(self._data, start + 4, length * size))

    def _text(self, position: int) -> str:
        start, length = position + 4, _read(self._data, "<I", position)
        return bytes(_slice(self._data, start, length)).decode("utf-8")

    def _offsets(self, field: int) -> Iterator[int]:
        """Positions that a vector of offsets points to."""
        start = self._follow(field)
        if start is not None:
            for i, offset in enumerate(self.numbers(field, "I")):
                yield start + 4 + 4 * i + offset

    def _find(self, field: int) -> int | None:
        if field >= self._count:
            return None
        offset = _read(self._data, "<H", self._fields + 4 + 2 * field)
        return self._position + offset if offset else None

    def _follow(self, field: int) -> int | None:
        position = self._find(field)
        return None if position is None else position + _read(self._data, "<I", position)


def _read(data: memoryview, kind: str, position: int) -> int:
    if position < 0:  # which would count from the end
        raise ValueError("a value runs past the end")
    try:
        value: int = struct.unpack_from(kind, data, position)[0]
    except struct.error:
        raise ValueError("a value runs past the end") from None
    return value


def _slice(data: memoryview, start: int, length: int) -> memoryview:
    if start < 0 or start + length > len(data):
        raise ValueError("a value runs past the end")
    return data[start : start + length]
