"""The reader of ExecuTorch programs' structure."""

from __future__ import annotations

import harness

with harness.instrumented("edgecomp"):
    from edgecomp.exported.executorch_file import read_executorch
    from edgecomp.exported.files import hash_files

PATH = harness.scratch_folder() / "m.pte"


def read(data: bytes) -> None:
    """Read the file, and hash it and its data file where it is accepted."""
    PATH.write_bytes(data)
    hash_files(read_executorch(PATH))


harness.fuzz(read)
