"""The protobuf wire format (https://protobuf.dev/programming-guides/encoding/), as much as reading ONNX files needs."""

from __future__ import annotations

from collections.abc import Iterator


def fields(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and bytes of each field of a message; those of an integer are its varint (`number`), of one of fixed size none.

    Raises:
        ValueError: the message is cut short, or none.

    """
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        start = position
        match key & 7:
            case 0:
                _, position = _varint(data, position)
            case 1:
                start = position = position + 8
            case 2:
                length, start = _varint(data, position)
                position = start + length
            case 5:
                start = position = position + 4
            case wire_type:
                raise ValueError(f"unknown wire type {wire_type}")
        if position > len(data):
            raise ValueError("a field runs past the end")
        yield key >> 3, data[start:position]


def number(value: memoryview) -> int:
    """An integer field's value; negative ones as int64."""
    unsigned, _ = _varint(value, 0)
    return unsigned - (1 << 64) if unsigned >= 1 << 63 else unsigned


def numbers(data: memoryview) -> list[int]:
    """The numbers of a field, one or packed, without sign."""
    found, position = [], 0
    while position < len(data):
        value, position = _varint(data, position)
        found.append(value)
    return found


def text(value: memoryview) -> str:
    """A string."""
    return bytes(value).decode("utf-8")


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(data) and shift < 64:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError("a number runs past the end")
