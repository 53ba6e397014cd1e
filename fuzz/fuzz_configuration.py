"""What describes a Hugging Face model: `config.json`, a zero byte, `tokenizer_config.json`."""

from __future__ import annotations

import harness

with harness.instrumented("edgecomp", "json"):
    from edgecomp.errors import ModelError
    from edgecomp.models.huggingface import _check_described
    from edgecomp.trust import NOBODY

FOLDER = harness.scratch_folder()


def check(data: bytes) -> None:
    """Look at the files as before a model is loaded."""
    config, _, tokenizer = data.partition(b"\0")
    (FOLDER / "config.json").write_bytes(config)
    (FOLDER / "tokenizer_config.json").write_bytes(tokenizer or b"{}")
    try:
        _check_described(str(FOLDER), NOBODY)
    except ValueError as error:  # of the readers of bounded files; what loads a model makes a ModelError of it
        raise ModelError(str(error)) from error


harness.fuzz(check)
