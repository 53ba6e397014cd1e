"""Calibration files: the first byte chooses .npz, .txt or .txt.gz."""

from __future__ import annotations

import harness

with harness.instrumented("edgecomp", "numpy.lib", "zipfile", "gzip"):
    from edgecomp.calibration import npz_samples, read_text, to_tensors
    from edgecomp.tensor import TensorSpec

FOLDER = harness.scratch_folder()
INPUTS = (TensorSpec("x", "float32", ("batch", 4)),)


def read(data: bytes) -> None:
    """Read the file as samples."""
    name = ("samples.npz", "text.txt", "text.txt.gz")[data[0] % 3 if data else 0]
    path = FOLDER / name
    path.write_bytes(data[1:])
    if name == "samples.npz":
        for inputs in (INPUTS, ()):
            for sample in npz_samples(path, inputs, 8):
                to_tensors(sample, inputs)
    else:
        read_text(path)


harness.fuzz(read)
