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

SOURCE = (Path(__file__).parent / "corpus" / "executorch_file" / "small").read_bytes()
FOLDER = harness.scratch_folder()
SESSION = Session(LocalDevice(urlsplit("local://")))
np.save(FOLDER / "x.npy", np.ones((1, 32), np.float32))


def run(data: bytes) -> None:
    """Change the words, and measure."""
    program = bytearray(SOURCE)
    for at, word in struct.iter_unpack("<HI", data[: len(data) // 6 * 6][:60]):
        struct.pack_into("<I", program, 4 * at % (len(program) - 3), word)
    path = FOLDER / "m.pte"
    path.write_bytes(program)
    model = read_executorch(path)
    lines = [("artifact", path), ("file", path), ("threads", 1), ("library", SESSION.own_library(path)), ("warmup", 0)]
    names = [spec.name for spec in model.inputs if "\n" not in spec.name]
    SESSION.ask(path, [*lines, ("min_iterations", 1), *(("input", f"{name}={FOLDER / 'x.npy'}") for name in names)], 10)


harness.fuzz(run)
