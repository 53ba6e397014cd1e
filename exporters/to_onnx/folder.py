"""A language model's folder: what ONNX Runtime GenAI, Optimum and lm-eval load, and `edgecomp generate`.

| file | what |
| --- | --- |
| `model.onnx`, `model.onnx.data` | the decoder with its cache, and the weights |
| `genai_config.json` | what ONNX Runtime GenAI reads |
| `config.json`, `generation_config.json`, tokenizer files | as transformers writes them |
| `libedgecomp_onnxruntime.so` | our operators, for the machine that will run it: GenAI loads it from there alone |
| `edgecomp.json` | what the folder says of itself (`edgecomp.exporters.language_folder`) |
"""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir

from edgecomp.checkpoint import CompressedModel
from edgecomp.devices.bundle import LIBRARIES, bundle_for
from edgecomp.errors import ExportError
from edgecomp.exported.language_folder import GENAI, MODEL
from edgecomp.exporters.language_folder import generation_defaults, stop_tokens, write_assets, write_description
from edgecomp.exporters.options import ExportOptions
from edgecomp.language.build import PAST, SEQUENCE, TOTAL
from edgecomp.models import body_of

# A text's length where a user of GenAI names none: with a shared buffer it takes memory for all of it at once.
_DEFAULT_LENGTH = 2048
NO_MACHINE = "none"  # no library: the application brings it
_SAMPLING = ("do_sample", "temperature", "top_k", "top_p", "repetition_penalty")


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
    tokens = write_assets(model, folder)
    if library_file is not None:
        shutil.copyfile(library_file[0], folder / LIBRARIES["onnxruntime"])
    genai = _genai(model, decoder, folder, tokens, options, library_file is not None)
    (folder / GENAI).write_text(json.dumps(genai, indent=1) + "\n", encoding="utf-8")
    write_description(
        folder,
        "onnxruntime",
        options,
        context=decoder.limits[SEQUENCE],
        vocabulary=genai["model"]["vocab_size"],
        stop=stop_tokens(tokens),
        library_for=None if library_file is None else library_file[1],
    )


def _genai(
    model: CompressedModel,
    decoder: CompressedModel,
    folder: Path,
    tokens: Mapping[str, int | list[int]],
    options: ExportOptions,
    with_library: bool,
) -> dict[str, Any]:
    config: Any = body_of(model.module).config
    generation = generation_defaults(folder)
    if "pad_token_id" not in tokens and stop_tokens(tokens):
        tokens = {**tokens, "pad_token_id": stop_tokens(tokens)[0]}
    cache = next(spec for spec in decoder.inputs if PAST in spec.dims)
    _, heads, _, row = cache.dims
    session: dict[str, Any] = {"log_id": "onnxruntime-genai", "provider_options": []}
    if with_library:
        session["custom_ops_library"] = LIBRARIES["onnxruntime"]
    context = decoder.limits[SEQUENCE]
    return {
        "model": {
            "type": "decoder",
            **tokens,
            "context_length": context,
            "vocab_size": int(config.vocab_size),
            "decoder": {
                "filename": MODEL,
                "head_size": row,  # of a row of the cache, for which GenAI takes it
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
