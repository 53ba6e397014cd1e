"""The reader of the structure of ONNX Runtime's own files."""

from __future__ import annotations

import harness

with harness.instrumented("edgecomp"):
    from edgecomp.exported.files import hash_files
    from edgecomp.exported.ort_file import read_ort

PATH = harness.scratch_folder() / "m.ort"


def read(data: bytes) -> None:
    """Read the file, and hash it and its data files where it is accepted."""
    PATH.write_bytes(data)
    hash_files(read_ort(PATH))


harness.fuzz(read)
