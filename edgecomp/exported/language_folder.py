"""The folder of an exported language model, as `edgecomp export` wrote it: what is in it, and that it is that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from edgecomp.bounded import LARGEST_CONFIGURATION_BYTES, read_json
from edgecomp.errors import CheckpointError, ModelError
from edgecomp.ops import CACHES

DESCRIPTION, GENAI, TOKENIZER = "edgecomp.json", "genai_config.json", "tokenizer.json"
MODEL, PROGRAM = "model.onnx", "model.pte"
FORMAT, VERSION = "edgecomp-language-model", 1

_Kind = TypeVar("_Kind", bound=str)
LanguageRuntime = Literal["onnxruntime", "executorch"]
# The file of the model, by runtime.
MODELS: Mapping[LanguageRuntime, str] = {"onnxruntime": MODEL, "executorch": PROGRAM}
Attention = Literal["fused", "gqa", "portable"]
ATTENTIONS: tuple[Attention, ...] = get_args(Attention)


@dataclass(frozen=True)
class Description:
    """What a folder says of itself.

    Args:
        runtime: of the model.
        attention: `fused`, `gqa` or `portable` (`edgecomp.language.attention`).
        cache: the type of keys and values that are kept.
        last_logits: logits of the last token alone.
        context: tokens that a text may have.
        vocabulary: rows of the model's table of tokens.
        stop: tokens that end a text.
        library_for: the machine that the library in it is for, as `uname -m` says it; None without one.
        files: SHA-256 of the others in hexadecimal, by name.

    """

    runtime: LanguageRuntime
    attention: Attention
    cache: str
    last_logits: bool
    context: int
    vocabulary: int
    stop: frozenset[int]
    library_for: str | None
    files: Mapping[str, str]

    @property
    def model(self) -> str:
        """The model's file."""
        return MODELS[self.runtime]


def read_description(folder: Path) -> Description:
    """What the folder says of itself.

    Raises:
        ModelError: it is no such folder.
        CheckpointError: its description is damaged or newer.

    """
    path = folder / DESCRIPTION
    if not path.is_file():
        raise ModelError(
            f"{folder} must be the folder of a language model, which `edgecomp export MODEL.ec -o FOLDER` writes, and has no "
            f"{DESCRIPTION}"
        )
    try:
        content = read_json(path, LARGEST_CONFIGURATION_BYTES)
        if content["format"] != FORMAT or content["version"] != VERSION:
            raise CheckpointError(f"{path} must be of format {FORMAT} {VERSION}: export the model again with this edgecomp")
        files = {str(name): str(digest) for name, digest in content["files"].items()}
        outside = next((name for name in files if Path(name).is_absolute() or ".." in Path(name).parts), None)
        if outside is not None:
            raise CheckpointError(f"{path} must name files of its folder, got {outside}: export the model again")
        library_for = content["library_for"]
        return Description(
            _one_of(MODELS, "runtime", content),
            _one_of(ATTENTIONS, "attention", content),
            _one_of(CACHES, "cache", content),
            content["logits"] == "last",
            int(content["context"]),
            int(content["vocabulary"]),
            frozenset(int(token) for token in content["stop"]),
            None if library_for is None else str(library_for),
            files,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise CheckpointError(
            f"{path} must describe an exported language model, and does not ({error}): export it again"
        ) from error


def _one_of(kinds: Iterable[_Kind], name: str, content: Mapping[str, Any]) -> _Kind:
    found = next((kind for kind in kinds if kind == content[name]), None)
    if found is None:
        raise ValueError(f"{name} must be one of {', '.join(kinds)}, got {content[name]!r}")
    return found
