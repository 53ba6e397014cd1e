"""The structure of GGUF files."""

from __future__ import annotations

import harness

with harness.instrumented("edgecomp"):
    from edgecomp.errors import ModelError
    from edgecomp.models.gguf_header import check_header

PATH = harness.scratch_folder() / "m.gguf"


def check(data: bytes) -> None:
    """Walk over the header."""
    PATH.write_bytes(data)
    try:
        check_header(PATH)
    except ValueError as error:  # what loads a model makes a ModelError of it
        raise ModelError(str(error)) from error


harness.fuzz(check)
