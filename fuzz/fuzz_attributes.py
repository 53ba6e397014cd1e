"""Attributes and shapes of nodes of ours, as ONNX Runtime hands them to our library: a node may be refused, and ends no process.

Bytes choose the operator, then for each attribute whether it keeps its value, and which other one it gets.
"""

from __future__ import annotations

import struct

import harness

with harness.instrumented("edgecomp"):
    import numpy as np

    from edgecomp import native
    from edgecomp.errors import ModelError
    from edgecomp.exported.node_model import node_model
    from edgecomp.exported.session import import_onnxruntime, runtime_errors
    from edgecomp.formats import lut, lut_narrow
    from edgecomp.ops import LUT_CONV2D, LUT_GATHER, LUT_MATMUL, LUT_NARROW_CONV2D, NO_EPILOGUE
    from edgecomp.tensor import Factor

N, K = 32, 64
RNG = np.random.default_rng(0)
FACTOR = lut.pack(
    RNG.integers(0, 16, (N, K)).astype(np.uint8),
    np.arange(-120, 121, 16, dtype=np.int8)[None],
    RNG.integers(-127, 128, (N, K // 32)).astype(np.int8),
    np.ones(N, np.float32),
    bits=4,
    block_size=32,
)
CHANNELS, TAPS = 8, 9
NARROW = lut_narrow.pack(
    RNG.integers(0, 16, (CHANNELS, TAPS)).astype(np.uint8),
    np.arange(-120, 121, 16, dtype=np.int8),
    np.ones(CHANNELS, np.uint8),
    bits=4,
    exponent=-7,
)
GEOMETRY = {"kernel_shape": [1, 1], "strides": [1, 1], "pads": [0] * 4, "dilations": [1, 1], "group": 1}
DEPTHWISE = {**GEOMETRY, "kernel_shape": [3, 3], "pads": [1] * 4, "group": CHANNELS}
NODES = [
    (LUT_MATMUL, FACTOR, np.ones((2, K), np.float32), {"compute": "int8"}),
    (LUT_GATHER, FACTOR, np.zeros(3, np.int64), {}),
    (LUT_CONV2D, FACTOR, np.ones((1, K, 2, 2), np.float32), {**GEOMETRY, "compute": "int8"}),
    (LUT_NARROW_CONV2D, NARROW, np.ones((1, CHANNELS, 4, 4), np.float32), {**DEPTHWISE, "compute": "int8"}),
]
TEXTS = ("", "int8", "float", "relu", "a" * 200, "\x00", "gelu")
ORT = import_onnxruntime()


class _Bytes:
    """Choices from the data; zeros where it has ended."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, size: int) -> bytes:
        part = self._data[self._at : self._at + size]
        self._at += size
        return part.ljust(size, b"\0")

    def below(self, limit: int) -> int:
        return self.take(1)[0] % limit

    def number(self) -> int:
        match self.below(4):
            case 0:
                return self.take(1)[0]
            case 1:
                return int(struct.unpack("<q", self.take(8))[0])
            case 2:
                return -self.take(1)[0]
            case _:
                return (2**63 - 1) >> self.below(64)


def run(data: bytes) -> None:
    """Make the model, load it with our library, and run it."""
    choices = _Bytes(data)
    operator, packed, x, attributes = NODES[choices.below(len(NODES))]
    values = {"N": packed.shape[0], "K": packed.shape[1], **packed.attributes, **NO_EPILOGUE, **attributes}
    changed = {}
    for name, value in values.items():
        if choices.below(4) == 1:
            changed[name] = (
                TEXTS[choices.below(len(TEXTS))]
                if isinstance(value, str)
                else choices.number()
                if isinstance(value, int)
                else [choices.number() for _ in range(choices.below(6))]
            )
    arrays = dict(packed.arrays)
    if choices.below(4) == 1:
        name = sorted(arrays)[choices.below(len(arrays))]
        arrays[name] = arrays[name].reshape(-1)[: choices.number() % (arrays[name].size + 1)]
    shape = tuple(choices.below(5) for _ in range(x.ndim)) if choices.below(4) == 1 else x.shape
    factor, given = Factor(packed.format, packed.shape, packed.attributes, arrays), np.zeros(shape, x.dtype)
    model = node_model(operator, factor, given, [], {**attributes, **changed})
    options = ORT.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.register_custom_ops_library(native.get_library_path())
    try:
        session = ORT.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        session.run(None, {operator.inputs[0].name: given})
    except runtime_errors() as error:
        raise ModelError(str(error)) from error


harness.fuzz(run)
