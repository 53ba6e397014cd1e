"""The folder of an exported language model, as `edgecomp export` wrote it: what is in it, and that it is that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from edgecomp.bounded import LARGEST_CONFIGURATION_BYTES, read_json
from edgecomp.errors import CheckpointError, ModelError

DESCRIPTION, MODEL, GENAI, TOKENIZER = "edgecomp.json", "model.onnx", "genai_config.json", "tokenizer.json"
FORMAT, VERSION = "edgecomp-language-model", 1

Attention = Literal["fused", "gqa", "portable"]
ATTENTIONS: tuple[Attention, ...] = get_args(Attention)


@dataclass(frozen=True)
class Description:
    """What a folder says of itself.

    Args:
        attention: `fused`, `gqa` or `portable` (`edgecomp.language.attention`).
        last_logits: logits of the last token alone.
        library_for: the machine that the library in it is for, as `uname -m` says it; None without one.
        files: SHA-256 of the others in hexadecimal, by name.

    """

    attention: Attention
    last_logits: bool
    library_for: str | None
    files: Mapping[str, str]


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
        attention = next((kind for kind in ATTENTIONS if kind == content["attention"]), None)
        if attention is None:
            raise ValueError(f"attention must be one of {', '.join(ATTENTIONS)}, got {content['attention']!r}")
        library_for = content["library_for"]
        return Description(attention, content["logits"] == "last", None if library_for is None else str(library_for), files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} must describe an exported language model, and does not ({error}): export it again"
        ) from error
