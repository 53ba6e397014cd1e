"""What XNNPACK's part of a program says of itself: how many values a call of it must bring, which the backend does not check.

Reads `XNNGraph` of ExecuTorch's `backends/xnnpack/serialization/schema.fbs`, and the header before it.
"""

from __future__ import annotations

import struct

from edgecomp.exported.flatbuffer import Table

_XNNPACK, _HEADER, _HEADER_BYTES = "XnnpackBackend", b"XH00", 30
_PROGRAM_INLINE, _PROGRAM_SEGMENTS = 3, 4
_DELEGATE_ID, _DELEGATE_PLACE = 0, 1
_PLACE_KIND, _PLACE_INDEX, _IN_SEGMENT = 0, 1, 1
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
        self._data = data
        self._segments = [
            (base + segment.number(_SEGMENT_OFFSET, "Q"), segment.number(_SEGMENT_SIZE, "Q"))
            for segment in program.tables(_PROGRAM_SEGMENTS)
        ]

    def values_needed(self, delegate: Table) -> int:
        """How many values a call must bring; 0 for backends whose parts are not read here.

        Raises:
            ValueError: the part does not lie within the file.

        """
        place = delegate.table(_DELEGATE_PLACE)
        if delegate.text(_DELEGATE_ID) != _XNNPACK or place is None or place.number(_PLACE_KIND, "b") != _IN_SEGMENT:
            return 0
        index = place.number(_PLACE_INDEX, "I")
        if index >= len(self._segments):
            raise ValueError(f"a delegate's part is number {index} of {len(self._segments)}")
        start, size = self._segments[index]
        part = self._data[start : start + size]
        if len(part) != size or size < _HEADER_BYTES or bytes(part[4:8]) != _HEADER:
            raise ValueError(f"the part of a delegate is none of {_XNNPACK}")
        offset, length = struct.unpack_from("<II", part, 10)
        graph = Table.root(part[offset : offset + length])
        return len(graph.numbers(_GRAPH_INPUTS, "I")) + len(graph.numbers(_GRAPH_OUTPUTS, "I"))
