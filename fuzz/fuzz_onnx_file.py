"""The reader of ONNX files' structure."""

from __future__ import annotations

import harness

with harness.instrumented("edgecomp"):
    from edgecomp.exported.files import hash_files
    from edgecomp.exported.onnx_file import read_onnx

PATH = harness.scratch_folder() / "m.onnx"


def read(data: bytes) -> None:
    """Read the file, and hash it and its data files where it is accepted."""
    PATH.write_bytes(data)
    hash_files(read_onnx(PATH))


harness.fuzz(read)
