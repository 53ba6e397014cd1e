"""The folder of a language model with its cache, for every target: which output is one, and what the target does not write itself.

| file | what |
| --- | --- |
| the model, and its data | by the target |
| `config.json`, `generation_config.json`, tokenizer files, chat template | as transformers writes them |
| `edgecomp.json` | versions, choices, what a writer of text must know, and the SHA-256 of every other file |
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import edgecomp
from edgecomp.checkpoint import CompressedModel
from edgecomp.errors import OutputError
from edgecomp.exported.files import digest_of
from edgecomp.exported.language_folder import DESCRIPTION, FORMAT, VERSION, LanguageRuntime, read_description
from edgecomp.exporters.options import ExportOptions
from edgecomp.exporters.result import ExportResult
from edgecomp.files import require_own, require_writable_target
from edgecomp.models import body_of
from edgecomp.progress import ProgressBar

_FILES = (".onnx", ".ort", ".pte")


def is_folder(model: CompressedModel, output: Path) -> bool:
    """Whether `output` names the folder of a language model, and not a file."""
    return model.kind == "causal-lm" and output.suffix not in _FILES


def check_folder(output: Path, overwrite: bool) -> None:
    """Refuse to write over anything but, with `overwrite`, another such folder.

    Raises:
        OutputError: with the way out.

    """
    require_writable_target(output, overwrite=overwrite)
    if not output.exists():
        return
    if not (output / DESCRIPTION).is_file():
        raise OutputError(f"only an exported language model may be replaced by one, and {output} is none: give another output")
    require_own(output, {DESCRIPTION, *read_description(output).files}, "exported language model")


def generation_defaults(folder: Path) -> Mapping[str, Any]:
    """What transformers may have written of them."""
    path = folder / "generation_config.json"
    found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def write_assets(model: CompressedModel, folder: Path) -> Mapping[str, int | list[int]]:
    """Write configuration and tokenizer; gives the numbers of the tokens that begin, end and fill texts, by transformers' names."""
    for asset in model.assets:
        asset.save_pretrained(folder)
    _name_tokenizer_for_all(folder / "tokenizer_config.json")
    generation = generation_defaults(folder)
    config = body_of(model.module).config
    found = {
        name: next(
            (
                value
                for value in (generation.get(name), getattr(config, name, None), getattr(model.tokenizer, name, None))
                if value is not None
            ),
            None,
        )
        for name in ("bos_token_id", "eos_token_id", "pad_token_id")
    }
    return {name: value for name, value in found.items() if value is not None}


def _name_tokenizer_for_all(path: Path) -> None:
    """Have transformers 4 open it too, which Optimum and others still use: the class's name, and what it gives the model."""
    if not path.is_file():
        return
    config = json.loads(path.read_text(encoding="utf-8"))
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    config.setdefault("model_input_names", ["input_ids", "attention_mask"])
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def stop_tokens(tokens: Mapping[str, int | list[int]]) -> list[int]:
    """Those that end a text."""
    eos = tokens.get("eos_token_id", [])
    return list(eos) if isinstance(eos, list) else [eos]


def write_description(
    folder: Path,
    runtime: LanguageRuntime,
    options: ExportOptions,
    *,
    context: int,
    vocabulary: int,
    stop: list[int],
    library_for: str | None = None,
) -> None:
    """Write what the folder says of itself, as its last file.

    Args:
        folder: with all others.
        runtime: of the model.
        options: of the export.
        context: tokens that a text may have.
        vocabulary: of the model.
        stop: tokens that end a text.
        library_for: the machine of the library in it.

    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    description = {
        "format": FORMAT,
        "version": VERSION,
        "edgecomp": edgecomp.__version__,
        "runtime": runtime,
        "attention": options.attention,
        "cache": options.cache,
        "logits": "last" if options.last_logits or runtime == "executorch" else "all",
        "context": context,
        "vocabulary": vocabulary,
        "stop": stop,
        "library_for": library_for,
        "files": {path.relative_to(folder).as_posix(): digest_of(path) for path in files},
    }
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")


def written(model: CompressedModel, folder: Path, first: str, progress: ProgressBar) -> ExportResult:
    """The files of a folder that is whole, `first` before the others, and what is to be said of them."""
    if model.tokenizer is None:
        progress.say("notice: the model has no tokenizer, so neither has its folder: edgecomp generate and others need one there")
    files = sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: (path != folder / first, path))
    return ExportResult(tuple(files), sum(path.stat().st_size for path in files), model.parameters)
