"""What XNNPACK's part of a program says of itself: how many values a call of it must bring, which the backend does not check.

Reads `XNNGraph` of ExecuTorch's `backends/xnnpack/serialization/schema.fbs`, and the header before it.
"""

from __future__ import annotations

import struct

from edgecomp.exported.flatbuffer import Table

_XNNPACK, _HEADER, _HEADER_BYTES = "XnnpackBackend", b"XH00", 30
_PROGRAM_INLINE, _PROGRAM_SEGMENTS = 3, 4
_DELEGATE_ID, _DELEGATE_PLACE = 0, 1
_PLACE_KIND, _PLACE_INDEX, _INLINE, _IN_SEGMENT = 0, 1, 0, 1
_INLINE_DATA = 0
_SEGMENT_OFFSET, _SEGMENT_SIZE = 0, 1
_GRAPH_INPUTS, _GRAPH_OUTPUTS = 4, 5


class Delegates:
    """The delegates of a program.

    Args:
        program: the root of its FlatBuffer.
        data: the whole file.
        base: where its segments begin.

    """

    def __init__(self, program: Table, data: memoryview, base: int) -> None:
        self._inline = [part.items(_INLINE_DATA, 1) for part in program.tables(_PROGRAM_INLINE)]
        self._segments = []
        for segment in program.tables(_PROGRAM_SEGMENTS):
            start, size = base + segment.number(_SEGMENT_OFFSET, "Q"), segment.number(_SEGMENT_SIZE, "Q")
            if start + size > len(data):
                raise ValueError("a segment runs past the end")
            self._segments.append(data[start : start + size])

    def values_needed(self, delegate: Table) -> int:
        """How many values a call must bring; 0 for backends whose parts are not read here.

        Raises:
            ValueError: the part does not lie within the file.

        """
        if delegate.text(_DELEGATE_ID) != _XNNPACK:
            return 0
        part = self._part(delegate.table(_DELEGATE_PLACE))
        if len(part) < _HEADER_BYTES or bytes(part[4:8]) != _HEADER:
            raise ValueError(f"the part of a delegate is none of {_XNNPACK}")
        offset, length = struct.unpack_from("<II", part, 10)
        graph = Table.root(part[offset : offset + length], delegate.room)
        return len(graph.numbers(_GRAPH_INPUTS, "I")) + len(graph.numbers(_GRAPH_OUTPUTS, "I"))

    def _part(self, place: Table | None) -> memoryview:
        if place is None:
            raise ValueError("a delegate has no part")
        kind, index = place.number(_PLACE_KIND, "b"), place.number(_PLACE_INDEX, "I")
        parts = {_INLINE: self._inline, _IN_SEGMENT: self._segments}.get(kind, [])
        if index >= len(parts):
            raise ValueError(f"a delegate's part is number {index} of {len(parts)}")
        return parts[index]
