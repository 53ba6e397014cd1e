"""Programs for ExecuTorch with other words in them, run by the measuring program: places and words, of the seed's program.

What ends the measuring program by a signal is reported as that (a DeviceError), and no crash of ours.
"""

from __future__ import annotations

import struct
from pathlib import Path
from urllib.parse import urlsplit

import harness

with harness.instrumented("edgecomp"):
    from edgecomp.devices.local import LocalDevice
    from edgecomp.devices.session import Session
    from edgecomp.exported.executorch_file import read_executorch

import numpy as np

SOURCES = [
    (Path(__file__).parent / "corpus" / "executorch_file" / name).read_bytes() for name in ("small", "operators", "attention")
]
FOLDER = harness.scratch_folder()
SESSION = Session(LocalDevice(urlsplit("local://")))
INPUTS = (
    {"x": np.ones((1, 32), np.float32)},
    {
        "ids": np.zeros(3, np.int64),
        "x": np.ones((2, 32), np.float32),
        "image": np.ones((1, 4, 5, 5), np.float32),
    },
    {"x": np.ones((1, 2, 32), np.float32), "before": np.ones(1, np.int32), "total": np.zeros((), np.int32)},
)


def run(data: bytes) -> None:
    """Change the words, and measure."""
    source = data[0] % len(SOURCES) if data else 0
    program = bytearray(SOURCES[source])
    for at, word in struct.iter_unpack("<HI", data[1 : 1 + (len(data) - 1) // 6 * 6][:60]):
        struct.pack_into("<I", program, 4 * at % (len(program) - 3), word)
    path = FOLDER / "m.pte"
    path.write_bytes(program)
    read_executorch(path)
    lines = [("artifact", path), ("file", path), ("threads", 1), ("library", SESSION.own_library(path)), ("warmup", 0)]
    for name, array in INPUTS[source].items():
        np.save(FOLDER / f"{name}.npy", array)
        lines.append(("input", f"{name}={FOLDER / name}.npy"))
    SESSION.ask(path, [*lines, ("min_iterations", 1)], 10)


harness.fuzz(run)
