"""Tokens of text and text of tokens, by a folder's `tokenizer.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgecomp.bounded import LARGEST_TOKENIZER_BYTES, read_bytes
from edgecomp.errors import CheckpointError, RuntimeUnavailableError, first_line


class Tokens:
    """A tokenizer.

    Args:
        file: `tokenizer.json`.
        vocabulary: rows of the model's table.

    Raises:
        RuntimeUnavailableError: the package `tokenizers` is missing.
        CheckpointError: the file is none, or has tokens that the model does not.

    """

    def __init__(self, file: Path, vocabulary: int) -> None:
        try:
            import tokenizers
        except ImportError as error:
            raise RuntimeUnavailableError(
                f"text needs the package tokenizers: pip install 'edgecomp[generate]' ({error})"
            ) from error
        try:
            self._tokenizer = tokenizers.Tokenizer.from_buffer(read_bytes(file, LARGEST_TOKENIZER_BYTES))
        except Exception as error:  # tokenizers raises Exception itself
            raise CheckpointError(f"{file} must be a tokenizer: {first_line(error)}") from error
        largest = max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
        if largest >= vocabulary:
            raise CheckpointError(
                f"the tokenizer {file} has tokens up to {largest}, and the model's table has {vocabulary} rows: it is "
                "of another model"
            )

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Tokens of a text; `special` adds those that the tokenizer puts around a text."""
        return list(self._tokenizer.encode(text, add_special_tokens=special).ids)

    def stream(self) -> Stream:
        """A text that is written token by token."""
        from tokenizers.decoders import DecodeStream

        return Stream(self._tokenizer, DecodeStream(skip_special_tokens=True))


class Stream:
    """Whole characters: bytes of one that further tokens complete wait for these."""

    def __init__(self, tokenizer: Any, decoder: Any) -> None:
        self._tokenizer, self._decoder = tokenizer, decoder

    def __call__(self, token: int) -> str:
        """What a token adds to the text, which may be nothing yet."""
        return self._decoder.step(self._tokenizer, token) or ""
