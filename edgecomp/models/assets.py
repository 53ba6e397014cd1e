"""What is beside a Hugging Face model's weights and goes with it: its tokenizer, and how its makers want it to write."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgecomp.bounded import LARGEST_CONFIGURATION_BYTES, read_json
from edgecomp.models.model_files import find

_GENERATION = "generation_config.json"
# Files of which one makes a tokenizer.
_VOCABULARIES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    "spm.model",
)


@dataclass(frozen=True)
class Generation:
    """How a language model's makers want it to write: stop tokens, sampling. As it is, whatever transformers thinks of it."""

    values: Mapping[str, Any]

    @staticmethod
    def read(folder: Path) -> Generation | None:
        """What a folder says; None where it says nothing."""
        path = folder / _GENERATION
        found = read_json(path, LARGEST_CONFIGURATION_BYTES) if path.is_file() else None
        return None if found is None else Generation(dict(found))

    def save_pretrained(self, folder: Path) -> None:
        """Write it, as transformers writes its own."""
        text = json.dumps(self.values, indent=2, sort_keys=True) + "\n"
        Path(folder, _GENERATION).write_text(text, encoding="utf-8")


def tokenizer_of(transformers: Any, location: str, options: Mapping[str, Any]) -> Any:
    """The tokenizer beside a model, or None: transformers makes one up of special tokens alone where there are no files of it."""

    def held(names: Iterable[str]) -> bool:
        return any(find(location, name) is not None for name in names)

    try:
        made = transformers.AutoTokenizer.from_pretrained(location, **options)
    except (ValueError, OSError, TypeError, AttributeError):  # of a type that has none, or whose files are not there
        if held(_VOCABULARIES):
            raise
        return None
    files = {*_VOCABULARIES, *made.vocab_files_names.values()}
    whole = "gguf_file" in options or held(files)
    without_files = not made.vocab_files_names and held(["tokenizer_config.json"])  # of bytes, which need no vocabulary
    return made if whole or without_files else None
