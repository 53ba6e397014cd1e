"""A model of one node of ours, as bytes: for trying the library on a machine that has no onnx package.

Writes the protobuf wire format that `onnx_file` reads. The node has no function body, so only the library can run it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from edgecomp.ops import DOMAIN, DOMAIN_VERSION, NO_EPILOGUE, Operator
from edgecomp.tensor import Factor

OPSET, IR_VERSION = 18, 8  # old enough for every runtime that the library loads in

# Numbers of onnx.proto: tensor types, and types of attributes.
_TENSOR_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "uint16": 4, "int32": 6, "int64": 7}
_INT, _STRING, _INTS = 2, 3, 7


def node_model(
    operator: Operator, factor: Factor, x: np.ndarray, y_shape: Sequence[int], attributes: Mapping[str, int | str | Sequence[int]]
) -> bytes:
    """A model that computes `y = operator(x)` with the factor's arrays as constants.

    Args:
        operator: the operator; its first input is the model's `x`, and optional inputs are empty.
        factor: gives the other inputs.
        x: an input, for its type and shape.
        y_shape: the output's.
        attributes: those of the operator that the factor does not tell.

    """
    first, *others = operator.inputs
    constants = {i.name: factor.arrays.get(i.name, np.zeros(0, i.dtype)) for i in others}
    values: dict[str, int | str | Sequence[int]] = {"N": factor.shape[0], "K": factor.shape[1], **factor.attributes}
    values |= {**NO_EPILOGUE, **attributes}
    node = [
        *(_bytes(1, i.name) for i in operator.inputs),
        _bytes(2, operator.output.name),
        _bytes(4, operator.onnx_name),
        *(_bytes(5, _attribute(a.name, values[a.name])) for a in operator.attributes),
        _bytes(7, DOMAIN),
    ]
    graph = [
        _bytes(1, _joined(node)),
        _bytes(2, operator.name),
        *(_bytes(5, _tensor(name, array)) for name, array in constants.items()),
        _bytes(11, _value(first.name, first.dtype, x.shape)),
        _bytes(12, _value(operator.output.name, operator.output.dtype, y_shape)),
    ]
    opsets = [_bytes(8, _bytes(1, domain) + _number(2, version)) for domain, version in (("", OPSET), (DOMAIN, DOMAIN_VERSION))]
    return _joined([_number(1, IR_VERSION), _bytes(7, _joined(graph)), *opsets])


def _attribute(name: str, value: int | str | Sequence[int]) -> bytes:
    if isinstance(value, int):
        return _bytes(1, name) + _number(3, value) + _number(20, _INT)
    if isinstance(value, str):
        return _bytes(1, name) + _bytes(4, value) + _number(20, _STRING)
    return _bytes(1, name) + _joined(_number(8, item) for item in value) + _number(20, _INTS)


def _tensor(name: str, array: np.ndarray) -> bytes:
    dims = _joined(_number(1, size) for size in array.shape)
    return dims + _number(2, _TENSOR_TYPES[array.dtype.name]) + _bytes(8, name) + _bytes(9, array.tobytes())


def _value(name: str, dtype: str, shape: Sequence[int]) -> bytes:
    dims = _joined(_bytes(1, _number(1, size)) for size in shape)
    return _bytes(1, name) + _bytes(2, _bytes(1, _number(1, _TENSOR_TYPES[dtype]) + _bytes(2, dims)))


def _bytes(field: int, value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _joined(parts: Iterable[bytes]) -> bytes:
    return b"".join(parts)


def _varint(value: int) -> bytes:
    """Negative numbers by their two's complement of 64 bits."""
    out, value = bytearray(), value % 2**64
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
