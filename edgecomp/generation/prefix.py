"""A computed beginning, such as a long system message, in a file: keys and values of its tokens, for the model that made them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from edgecomp.array_file import write_arrays
from edgecomp.errors import CheckpointError, first_line
from edgecomp.files import replace_file
from edgecomp.generation.session import Session

_TOKENS, _MODEL = "tokens", "model"


def save_prefix(session: Session, path: Path, *, overwrite: bool = False) -> None:
    """Write what the session's cache holds.

    Raises:
        OutputError: the file exists and `overwrite` is not set, or cannot be written.

    """
    digest = np.frombuffer(bytes.fromhex(session.folder.digest), np.uint8)
    arrays: dict[str, np.ndarray] = {_TOKENS: np.array(session.tokens, np.int64), _MODEL: digest, **session.state()}
    with replace_file(path, overwrite=overwrite) as temporary:
        write_arrays(temporary, arrays)


def load_prefix(session: Session, path: Path) -> None:
    """Give the session what was written.

    Raises:
        CheckpointError: the file is damaged, or of another model.
        ModelError: it does not fit into the context.

    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays = load_file(path)
        tokens, digest = arrays.pop(_TOKENS), arrays.pop(_MODEL)
        if tokens.dtype != np.int64 or tokens.ndim != 1:
            raise ValueError(f"{_TOKENS} must be int64 of one axis, got {tokens.dtype.name} {list(tokens.shape)}")
    except (SafetensorError, OSError, KeyError, ValueError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{path} must be a beginning that `edgecomp generate --save-prefix` wrote: {first_line(error)}"
        ) from error
    if digest.tobytes().hex() != session.folder.digest:
        raise CheckpointError(
            f"{path} must be of the model in {session.folder.path}, and another one computed it: its keys and values mean nothing "
            "to this one. Save it again with this model"
        )
    session.restore(tokens.tolist(), arrays)
