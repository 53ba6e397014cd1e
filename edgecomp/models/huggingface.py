"""Hugging Face models: folders, hub ids, and GGUF files through transformers.

Weights of safetensors files stay as they are stored and where they are: parameters are pages of the files, which the system reads
when they are used and drops when it wants, so that loading takes no memory. Other files are read into memory as float32.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from edgecomp.errors import ModelError, RuntimeUnavailableError, first_line
from edgecomp.models import gguf
from edgecomp.models.base import CausalLM, Encoder, LoadedModel, ModelKind
from edgecomp.models.bound import Adapter
from edgecomp.models.limits import sequence_limit
from edgecomp.tensor import TensorSpec

_TEXT_INPUTS = (
    TensorSpec("input_ids", "int64", ("batch", "sequence")),
    TensorSpec("attention_mask", "int64", ("batch", "sequence")),
)
_ADAPTERS: dict[str, tuple[type[Adapter], str]] = {
    "encoder": (Encoder, "last_hidden_state"),
    "causal-lm": (CausalLM, "logits"),
}
_STORED_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def _transformers() -> Any:
    for name in ("torchao", "torch.utils._pytree"):  # transformers imports torchao, which names the libraries of other machines
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        import transformers
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"Hugging Face models need the package transformers: pip install 'edgecomp[transformers]' ({error})"
        ) from error
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    return transformers


def load(spec: str) -> LoadedModel:
    """A model from a folder, a GGUF file, or a hub id (from the local cache, or downloaded).

    Raises:
        ModelError: it cannot be found or read, or is of a kind that is not supported.

    """
    path = Path(spec)
    if not path.exists() and (path.suffix == ".gguf" or spec.endswith("/") or spec.startswith((".", "/", "~"))):
        raise ModelError(f"{spec} must be a Hugging Face folder or a .gguf file, and there is none at that path")
    transformers = _transformers()
    options: dict[str, Any] = {}
    location = spec
    if path.suffix == ".gguf":
        location, options = str(path.parent), {"gguf_file": path.name}
    try:
        config = transformers.AutoConfig.from_pretrained(location, **options)
        kind = _kind_of(config, path)
        loader = transformers.AutoModelForCausalLM if kind == "causal-lm" else transformers.AutoModel
        files = [path] if options else _files_of(location, config)
        dtype = _dtype_of(files)
        body = _dequantised(loader, config, path) if options else None
        if body is None:
            body, found = loader.from_pretrained(
                location, dtype=dtype, output_loading_info=True, **_head_options(config, kind), **options
            )
            # transformers fills what a file lacks with random numbers, and goes on.
            lacking = sorted({*found["missing_keys"], *(str(key) for key in found["mismatched_keys"])})
            if lacking:
                raise ModelError(f"{spec} must hold every weight of a {type(body).__name__}, but lacks {', '.join(lacking[:5])}")
        if dtype != torch.float32:
            _compute_buffers(body, kind)
        tokenizer = transformers.AutoTokenizer.from_pretrained(location, **options)
    except ModelError:
        raise
    except Exception as error:  # transformers and what it reads with raise errors of any kind
        raise ModelError(
            f"{spec} must be a Hugging Face folder or hub id, a .gguf file, a .pt2 file, or package.module:factory: "
            f"{type(error).__name__}: {first_line(error)}"
        ) from error
    source = {"kind": "huggingface", "model": spec, "architecture": type(body).__name__, "task": kind}
    return _adapt(body, kind, source, tokenizer, assets=(body.config, tokenizer), files=files)


def _dequantised(loader: Any, config: Any, path: Path) -> nn.Module | None:
    """The model of a GGUF file, whose float32 weights are pages of a temporary file; None where only transformers can fill it."""
    from accelerate import init_empty_weights

    config.dtype = torch.float32
    with init_empty_weights(include_buffers=False):
        body = loader.from_config(config)
    body.tie_weights()
    return body if gguf.fill(body, path) else None


def _files_of(location: str, config: Any) -> list[Path]:
    """The files that decide the model, as transformers finds them: configuration and weights; weights of safetensors alone."""
    from transformers.utils.hub import cached_file

    def find(name: str) -> Path | None:
        found = cached_file(location, name, _raise_exceptions_for_missing_entries=False)
        return None if found is None else Path(found)

    given = getattr(config, "transformers_weights", None)
    weights = [given] if given else ["model.safetensors", "model.safetensors.index.json"]
    first = next((path for path in map(find, weights) if path is not None), None)
    if first is None:
        return []
    names = [*getattr(type(config), "extra_files", ())]
    if first.suffix == ".json":
        names += sorted(set(json.loads(first.read_text(encoding="utf-8"))["weight_map"].values()))
    found = [find("config.json"), first, *map(find, names)]
    return [path for path in found if path is not None]


def _dtype_of(files: Sequence[Path]) -> torch.dtype:
    """The dtype in which the files' weights are loaded: their own where all have one, else float32, which holds them exactly.

    What the configuration says does not count: it may say bfloat16 beside weights of float32.
    """
    stored = set()
    for path in files:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                stored |= {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118  (not a mapping)
    floating = {name for name in stored if name.startswith(("F", "BF"))}
    return _STORED_DTYPES.get(floating.pop(), torch.float32) if len(floating) == 1 else torch.float32


def _compute_buffers(body: nn.Module, kind: ModelKind) -> None:
    """Compute in float32 what a model computes when it is built, such as frequencies of positions, and what no file holds."""
    saved = body.state_dict(keep_vars=True)
    body.config.dtype = torch.float32
    exact = dict(_unfilled(type(body), body.config, kind).named_buffers())
    for name, buffer in list(body.named_buffers()):
        if buffer.is_floating_point() and name not in saved and buffer.dtype != exact[name].dtype:
            parent, _, leaf = name.rpartition(".")
            body.get_submodule(parent).register_buffer(leaf, exact[name], persistent=False)


def _unfilled(architecture: type[nn.Module], config: Any, kind: ModelKind) -> nn.Module:
    """The model with parameters on the meta device and real buffers."""
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        return architecture(config, **_head_options(config, kind))


def skeleton(source: Mapping[str, Any], folder: Path) -> LoadedModel:
    """The model that `source` describes with its configuration from `folder`: parameters on the meta device, buffers real.

    Raises:
        ModelError: the configuration does not fit this version of transformers.

    """
    transformers = _transformers()
    try:
        config = transformers.AutoConfig.from_pretrained(folder)
        body = _unfilled(getattr(transformers, str(source["architecture"])), config, source["task"])
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(
            f"{folder} must hold a configuration and tokenizer that transformers {transformers.__version__} reads: "
            f"{first_line(error)}"
        ) from error
    return _adapt(body, source["task"], source, tokenizer, assets=(config, tokenizer))


def _adapt(
    body: nn.Module,
    kind: ModelKind,
    source: Mapping[str, Any],
    tokenizer: Any,
    assets: tuple[Any, ...],
    files: Sequence[Path] = (),
) -> LoadedModel:
    adapter, output = _ADAPTERS[kind]
    limit = sequence_limit(body, body.config)
    limits = {} if limit is None else {"sequence": limit}
    return LoadedModel(adapter(body).eval(), _TEXT_INPUTS, (output,), kind, source, tokenizer, assets, files, limits)


def _kind_of(config: Any, path: Path) -> ModelKind:
    architecture = (getattr(config, "architectures", None) or [""])[0]
    if path.suffix == ".gguf" or architecture.endswith(("ForCausalLM", "LMHeadModel")):
        return "causal-lm"
    if getattr(config, "is_encoder_decoder", False) or not architecture.endswith(("Model", "ForMaskedLM")):
        raise ModelError(
            f"a Hugging Face model must be an encoder (…Model, …ForMaskedLM) or a causal language model (…ForCausalLM), got "
            f"{architecture or 'no architecture'}: wrap other models in package.module:factory"
        )
    return "encoder"


def _head_options(config: Any, kind: ModelKind) -> dict[str, Any]:
    """BERT's pooler feeds `pooler_output`, which a sentence encoder does not use: it is left out."""
    return {"add_pooling_layer": False} if kind == "encoder" and config.model_type in ("bert", "roberta", "xlm-roberta") else {}
