"""Reading of FlatBuffers (https://flatbuffers.dev/internals/), as much as ExecuTorch's files need: tables, vectors, texts, numbers.

A table's fields are numbered by their order in the schema, which only ever grows at the end. Everything is checked against the end
of the data: what does not fit raises ValueError, and so do parts that share bytes, which may be more than the data has room for.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

# How often a reader may look at all of the data: some parts are read several times, and equal texts are stored once.
_READINGS = 16
_TABLE_BYTES = 4  # at least


class Room:
    """How much may be read of data: of parts that share bytes there may be more, which would take long and much memory."""

    def __init__(self, size: int) -> None:
        self._left = size

    def take(self, size: int) -> None:
        """Count bytes.

        Raises:
            ValueError: more than there is room for.

        """
        self._left -= size
        if self._left < 0:
            raise ValueError("its parts lie over each other")


class Table:
    """A table at a position of the data."""

    def __init__(self, data: memoryview, position: int, room: Room) -> None:
        room.take(_TABLE_BYTES)
        self._data, self._position, self.room = data, position, room
        self._fields = position - _read(data, "<i", position)
        self._count = (_read(data, "<H", self._fields) - 4) // 2

    @staticmethod
    def root(data: memoryview, room: Room | None = None) -> Table:
        """The table that the data begins with; of data within other data, `room` is that of the other's tables."""
        return Table(data, _read(data, "<I", 0), room or Room(_READINGS * len(data)))

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
        return None if position is None else Table(self._data, position, self.room)

    def tables(self, field: int) -> Iterator[Table]:
        """A vector of tables."""
        for position in self._offsets(field):
            yield Table(self._data, position, self.room)

    def texts(self, field: int) -> Iterator[str]:
        """A vector of strings."""
        for position in self._offsets(field):
            yield self._text(position)

    def numbers(self, field: int, kind: str) -> tuple[int, ...]:
        """A vector of numbers."""
        size = struct.calcsize(f"<{kind}")
        items = self.items(field, size)
        self.room.take(len(items))
        return struct.unpack(f"<{len(items) // size}{kind}", items)

    def items(self, field: int, size: int) -> memoryview:
        """The bytes of a vector whose items have so many each, in place."""
        start = self._follow(field)
        return memoryview(b"") if start is None else _slice(self._data, start + 4, size * _read(self._data, "<I", start))

    def _text(self, position: int) -> str:
        text = bytes(_slice(self._data, position + 4, _read(self._data, "<I", position)))
        self.room.take(len(text))
        if b"\0" in text:
            raise ValueError("a text holds a zero byte, at which it ends for a reader in C")
        return text.decode("utf-8")

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
