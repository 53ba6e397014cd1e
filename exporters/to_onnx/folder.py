"""A language model's folder: what ONNX Runtime GenAI, Optimum and lm-eval load, and `edgecomp generate`.

| file | what |
| --- | --- |
| `model.onnx`, `model.onnx.data` | the decoder with its cache, and the weights |
| `genai_config.json` | what ONNX Runtime GenAI reads |
| `config.json`, `generation_config.json`, tokenizer files | as transformers writes them |
| `libedgecomp_onnxruntime.so` | our operators, for the machine that will run it: GenAI loads it from there alone |
| `edgecomp.json` | versions, choices, and the SHA-256 of every other file |
"""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir

import edgecomp
from edgecomp.checkpoint import CompressedModel
from edgecomp.devices.bundle import LIBRARIES, bundle_for
from edgecomp.errors import ExportError, OutputError
from edgecomp.exported.files import digest_of
from edgecomp.exported.language_folder import DESCRIPTION, FORMAT, GENAI, MODEL, VERSION, read_description
from edgecomp.exporters.options import ExportOptions
from edgecomp.files import require_own, require_writable_target
from edgecomp.language.build import PAST, SEQUENCE, TOTAL
from edgecomp.models import body_of

# A text's length where a user of GenAI names none: with a shared buffer it takes memory for all of it at once.
_DEFAULT_LENGTH = 2048
NO_MACHINE = "none"  # no library: the application brings it
_SAMPLING = ("do_sample", "temperature", "top_k", "top_p", "repetition_penalty")


def is_folder(model: CompressedModel, output: Path) -> bool:
    """Whether `output` names the folder of a language model, and not a file."""
    return model.kind == "causal-lm" and output.suffix not in (".onnx", ".ort")


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


def library(architecture: str | None, bundle: Path | None) -> tuple[Path, str]:
    """The library of our operators for a machine, and that machine's name.

    Raises:
        ExportError: the machine loads it in another way, or its bundle has none.
        EdgecompError: there is no bundle for it (`edgecomp.devices.bundle.bundle_for`).

    """
    name = architecture or platform.machine()
    if name == "android":
        raise ExportError(
            "the library for Android is built by its NDK and goes into the application, which loads it before the model "
            "(System.loadLibrary): export --for none"
        )
    files = bundle_for(name, bundle).files
    if LIBRARIES["onnxruntime"] not in files:
        raise ExportError(f"the files for {name} must hold {LIBRARIES['onnxruntime']}, and do not: make its bundle again")
    return files[LIBRARIES["onnxruntime"]], name


def write_folder(
    model: CompressedModel, decoder: CompressedModel, folder: Path, library_file: tuple[Path, str] | None, options: ExportOptions
) -> None:
    """Write all but the model and its data beside them.

    Args:
        model: the compressed model, whose configuration and tokenizer are written.
        decoder: the same with its cache.
        folder: that holds `model.onnx` already.
        library_file: of our operators, and its machine.
        options: of the export.

    """
    for asset in model.assets:
        asset.save_pretrained(folder)
    if library_file is not None:
        shutil.copyfile(library_file[0], folder / LIBRARIES["onnxruntime"])
    generation = _read(folder / "generation_config.json")
    config = body_of(model.module).config
    genai = _genai(config, generation, model, decoder, options, library_file is not None)
    (folder / GENAI).write_text(json.dumps(genai, indent=1) + "\n", encoding="utf-8")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    description = {
        "format": FORMAT,
        "version": VERSION,
        "edgecomp": edgecomp.__version__,
        "attention": options.attention,
        "cache": options.cache,
        "logits": "last" if options.last_logits else "all",
        "library_for": None if library_file is None else library_file[1],
        "files": {path.relative_to(folder).as_posix(): digest_of(path) for path in files},
    }
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")


def _read(path: Path) -> Mapping[str, Any]:
    """A file that transformers just wrote, or nothing."""
    found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def _genai(
    config: Any,
    generation: Mapping[str, Any],
    model: CompressedModel,
    decoder: CompressedModel,
    options: ExportOptions,
    with_library: bool,
) -> dict[str, Any]:
    tokens = {name: _token(name, generation, config, model.tokenizer) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    if tokens["pad_token_id"] is None:
        eos = tokens["eos_token_id"]
        tokens["pad_token_id"] = eos[0] if isinstance(eos, list) else eos
    cache = next(spec for spec in decoder.inputs if PAST in spec.dims)
    _, heads, _, size = cache.dims
    session: dict[str, Any] = {"log_id": "onnxruntime-genai", "provider_options": []}
    if with_library:
        session["custom_ops_library"] = LIBRARIES["onnxruntime"]
    context = decoder.limits[SEQUENCE]
    return {
        "model": {
            "type": "decoder",
            **{name: value for name, value in tokens.items() if value is not None},
            "context_length": context,
            "vocab_size": int(config.vocab_size),
            "decoder": {
                "filename": MODEL,
                "head_size": size,
                "hidden_size": int(config.hidden_size),
                "num_attention_heads": int(config.num_attention_heads),
                "num_hidden_layers": sum(PAST in spec.dims for spec in decoder.inputs) // 2,
                "num_key_value_heads": heads,
                "inputs": {
                    "input_ids": "input_ids",
                    "attention_mask": "attention_mask",
                    "past_key_names": "past_key_values.%d.key",
                    "past_value_names": "past_key_values.%d.value",
                },
                "outputs": {
                    "logits": "logits",
                    "present_key_names": "present.%d.key",
                    "present_value_names": "present.%d.value",
                },
                "session_options": session,
            },
        },
        "search": {
            "max_length": min(context, _DEFAULT_LENGTH),
            "past_present_share_buffer": options.attention != "portable",
            **{name: generation[name] for name in _SAMPLING if generation.get(name) is not None},
        },
    }


def _token(name: str, generation: Mapping[str, Any], config: Any, tokenizer: Any) -> int | list[int] | None:
    found = (generation.get(name), getattr(config, name, None), getattr(tokenizer, name, None))
    return next((value for value in found if value is not None), None)


def name_sizes(graph: ir.Graph, decoder: CompressedModel) -> None:
    """Give inputs and outputs of a decoder the names of sizes that runtimes and tools know, in the place of sums of them."""
    cache = next(spec for spec in decoder.inputs if PAST in spec.dims)
    dims = {spec.name: spec.dims for spec in decoder.inputs}
    for value in graph.outputs:
        if (value.name or "").startswith("present."):
            dims[value.name or ""] = tuple(TOTAL if dim == PAST else dim for dim in cache.dims)
    for value in (*graph.inputs, *graph.outputs):
        if value.name in dims:
            value.shape = ir.Shape(dims[value.name])
