"""An exported language model's folder, checked before a session is opened."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

from edgecomp.errors import CheckpointError, ConfigError
from edgecomp.exported.files import digest_of
from edgecomp.exported.language_folder import GENAI, TOKENIZER, Description, read_description


@dataclass(frozen=True)
class Folder:
    """What a folder says.

    Args:
        path: of the folder.
        description: of its files.
        context: tokens that a text may have.
        vocabulary: rows of the model's table of tokens.
        stop: tokens that end a text.

    """

    path: Path
    description: Description
    context: int
    vocabulary: int
    stop: frozenset[int]

    @property
    def model(self) -> Path:
        """The model's file."""
        return self.path / self.description.model

    @property
    def in_place(self) -> bool:
        """Whether the runtime writes new keys and values behind the old ones, where it is given one buffer for both."""
        return self.description.attention != "portable"

    @property
    def digest(self) -> str:
        """Of the model: what its weights and graph are, by the data's digest that the model file holds."""
        return self.description.files[self.description.model]

    def require_context(self, context: int | None) -> int:
        """Tokens that a text may have, where `context` is asked for.

        Raises:
            ConfigError: the model was not exported for so many.

        """
        if context is not None and not 2 <= context <= self.context:
            raise ConfigError(f"a context must be of 2 to {self.context} tokens, which this model was exported for, got {context}")
        return context or self.context

    @property
    def foreign_library(self) -> str | None:
        """The machine that the folder's library is for, if it is another than this one."""
        machine = self.description.library_for
        return None if machine in (None, platform.machine()) else machine


def read_folder(path: Path, *, writes: bool = True) -> Folder:
    """Read and check a folder.

    Args:
        path: of the folder.
        writes: whether text is wanted of it, which needs a tokenizer.

    Raises:
        ModelError: it is none.
        CheckpointError: a file is missing, damaged, or not of this export.

    """
    description = read_description(path)
    needed = [description.model, *((GENAI,) if description.runtime == "onnxruntime" else ()), *((TOKENIZER,) if writes else ())]
    for name in needed:
        if name not in description.files:
            why = " (the model had no tokenizer when it was compressed)" if name == TOKENIZER else ""
            raise CheckpointError(f"{path} must hold {name}, and was exported without{why}")
    # The data's digest is in the model, which is compared when it is opened.
    for name, digest in description.files.items():
        if not name.endswith((".data", ".so")):
            _require_same(path / name, digest)
    return Folder(path, description, description.context, description.vocabulary, description.stop)


def _require_same(file: Path, digest: str) -> None:
    if not file.is_file():
        raise CheckpointError(f"{file} must be there, and is not: copy the whole folder, or export it again")
    if digest_of(file) != digest:
        raise CheckpointError(
            f"{file} must be the one that was exported with the model, and is another: a tokenizer of another model gives other "
            "tokens. Copy the whole folder again, or export it again"
        )
