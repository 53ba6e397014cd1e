"""Hugging Face models: folders, hub ids, and GGUF files through transformers.

Weights of safetensors files stay as they are stored and where they are: parameters are pages of the files, which the system reads
when they are used and drops when it wants, so that loading takes no memory. Other files are read into memory as float32.

Nothing of a model's makers is run, and what its configuration may name is a list (`edgecomp.models.configuration`), unless it is
trusted.
"""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgecomp.bounded import LARGEST_CONFIGURATION_BYTES, LARGEST_TOKENIZER_BYTES
from edgecomp.errors import ModelError, RuntimeUnavailableError, first_line
from edgecomp.models import configuration, gguf
from edgecomp.models.assets import Generation, tokenizer_of
from edgecomp.models.base import LoadedModel
from edgecomp.models.gguf_header import check_header
from edgecomp.models.limits import sequence_limit
from edgecomp.models.model_files import count_elements, dtype_of, files_of, find, read_entries
from edgecomp.models.tasks import TASKS, task_of
from edgecomp.progress import listed
from edgecomp.tensor import TensorSpec
from edgecomp.trust import Trust

_TEXT_INPUTS = (
    TensorSpec("input_ids", "int64", ("batch", "sequence")),
    TensorSpec("attention_mask", "int64", ("batch", "sequence")),
)


def _transformers(trust: Trust) -> Any:
    if not trust.remote_code:
        os.environ["USE_HUB_KERNELS"] = "NO"  # some architectures fetch kernels unasked; read when transformers is first imported
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


def load(spec: str, trust: Trust) -> LoadedModel:
    """A model from a folder, a GGUF file, or a hub id (from the local cache, or downloaded).

    Args:
        spec: which.
        trust: whether code beside it may run, and pickled weights be read.

    Raises:
        ModelError: it cannot be found or read, is of a kind that is not supported, or names or holds what is not trusted.

    """
    path = Path(spec)
    if not path.exists() and (path.suffix == ".gguf" or spec.endswith("/") or spec.startswith((".", "/", "~"))):
        raise ModelError(f"{spec} must be a Hugging Face folder or a .gguf file, and there is none at that path")
    transformers = _transformers(trust)
    packed: dict[str, Any] = {}
    location = spec
    if path.suffix == ".gguf":
        location, packed = str(path.parent), {"gguf_file": path.name}
    options = {**packed, "trust_remote_code": trust.remote_code}
    try:
        if packed:
            check_header(path)
        else:
            _check_described(location, trust)
        config = transformers.AutoConfig.from_pretrained(location, **options)
        if packed:
            configuration.check_configuration(config.to_dict(), spec, trusted=trust.remote_code)
        task = _task_of(config, path)
        loader = _loader(transformers, config, task, trust)
        files = [path] if packed else files_of(location, config)
        if not files and not trust.code:
            raise ModelError(
                f"the weights of {spec} must be .safetensors: reading pickled ones (.bin) may run code that they hold. Give "
                "--trust-code if you trust who made the model"
            )
        _require_held(loader, config, task, files, options, spec)
        dtype = dtype_of(files)
        body = _dequantised(loader, config, path) if packed else None
        if body is None:
            body, found = loader.from_pretrained(
                location,
                dtype=dtype,
                output_loading_info=True,
                use_safetensors=None if trust.code or packed else True,
                **_head_options(config, task),
                **options,
            )
            # transformers fills what a file lacks with random numbers, and goes on.
            lacking = sorted({*found["missing_keys"], *(str(key) for key in found["mismatched_keys"])})
            if lacking:
                raise ModelError(f"{spec} must hold every weight of a {type(body).__name__}, but lacks {listed(lacking)}")
        if dtype != torch.float32:
            _compute_buffers(body, task)
        tokenizer = tokenizer_of(transformers, location, options)
    except ModelError:
        raise
    except Exception as error:  # transformers and what it reads with raise errors of any kind
        raise ModelError(
            f"{spec} must be a Hugging Face folder or hub id, a .gguf file, a .pt2 file, or package.module:factory: "
            f"{type(error).__name__}: {first_line(error)}{_hint(error)}"
        ) from error
    source = {"kind": "huggingface", "model": spec, "architecture": type(body).__name__, "task": task}
    found_generation = getattr(body, "generation_config", None)
    generation = None if found_generation is None else Generation(found_generation.to_diff_dict())
    return _adapt(body, task, source, tokenizer, body.config, generation, files)


def _hint(error: Exception) -> str:
    """What to do where transformers asks for what it has no option for here."""
    return "; give --trust-remote-code if you trust who made the model" if "trust_remote_code" in str(error) else ""


def _check_described(location: str, trust: Trust) -> None:
    """Look at what describes a model, before transformers follows it.

    Raises:
        ModelError: an entry of a configuration is not allowed, or out of bounds.
        ValueError: a file is too large, nested too deeply, or no JSON.

    """
    config = read_entries(location, "config.json", LARGEST_CONFIGURATION_BYTES)
    if config is None:
        return  # which transformers says better
    described = config[0]
    if described.get("configuration_files"):
        raise ModelError(f"the configuration of {location} must be in config.json, and names other files: configuration_files")
    configuration.check_configuration(described, location, trusted=trust.remote_code)
    settings = read_entries(location, "tokenizer_config.json", LARGEST_CONFIGURATION_BYTES)
    read_entries(location, "tokenizer.json", LARGEST_TOKENIZER_BYTES, parse=False)
    if trust.remote_code:
        return
    configuration.check_type(described.get("model_type"), location, known=sorted(configuration.text_types()))
    if find(location, "adapter_config.json") is not None:
        raise ModelError(
            f"{location} must hold a whole model, and adapter_config.json names another that it changes: merge the two first"
        )
    entries, folder = settings or ({}, Path(location))
    names = [entries.get("tokenizer_class"), described.get("tokenizer_class")]
    configuration.check_tokenizer(entries, names, location, folder)


def _require_held(loader: Any, config: Any, task: str, files: Sequence[Path], options: Mapping[str, Any], where: str) -> None:
    """Refuse a configuration of a much larger model than its files hold: transformers would fill the rest with random numbers.

    Raises:
        ModelError: telling both sizes.

    """
    from accelerate import init_empty_weights

    stored = [path for path in files if path.suffix == ".safetensors"]
    # Tied weights are stored once, and may be counted twice here. A code of a GGUF file takes an eighth of a byte at least.
    largest = 2 * sum(map(count_elements, stored)) if stored else 8 * sum(path.stat().st_size for path in files)
    if files and configuration.is_small(config.to_dict(), largest // 2):
        return  # most models: a second one need not be built
    trusted = {"trust_remote_code": options["trust_remote_code"]}
    with init_empty_weights(include_buffers=True):
        if hasattr(loader, "from_config"):
            body = loader.from_config(config, **trusted, **_head_options(config, task))
        else:
            body = loader(config, **_head_options(config, task))
    _require_small_buffers(body, where)
    wanted = sum(parameter.numel() for parameter in body.parameters())
    if files and wanted > largest:
        raise ModelError(
            f"{where} must hold every weight of a {type(body).__name__}, but its configuration asks for {wanted:,} and its files "
            f"hold {largest // 2 if stored else largest:,}"
        )


def _require_small_buffers(body: nn.Module, where: str) -> None:
    total = sum(buffer.nbytes for buffer in body.buffers())
    if total > configuration.LARGEST_BUFFERS_BYTES:
        raise ModelError(
            f"what {where} computes when it is built must take {configuration.LARGEST_BUFFERS_BYTES:,} bytes at most, and its "
            f"configuration asks for {total:,}"
        )


def _dequantised(loader: Any, config: Any, path: Path) -> nn.Module | None:
    """The model of a GGUF file, whose float32 weights are pages of a temporary file; None where only transformers can fill it."""
    from accelerate import init_empty_weights

    config.dtype = torch.float32
    with init_empty_weights(include_buffers=False):
        body = loader.from_config(config)
    body.tie_weights()
    return body if gguf.fill(body, path) else None


def _compute_buffers(body: nn.Module, task: str) -> None:
    """Compute in float32 what a model computes when it is built, such as frequencies of positions, and what no file holds."""
    saved = body.state_dict(keep_vars=True)
    body.config.dtype = torch.float32
    exact = dict(_unfilled(type(body), body.config, task).named_buffers())
    for name, buffer in list(body.named_buffers()):
        if buffer.is_floating_point() and name not in saved and buffer.dtype != exact[name].dtype:
            parent, _, leaf = name.rpartition(".")
            body.get_submodule(parent).register_buffer(leaf, exact[name], persistent=False)


def _unfilled(architecture: type[nn.Module], config: Any, task: str, *, buffers: bool = True) -> nn.Module:
    """The model with parameters on the meta device, and buffers that are real or there too."""
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=not buffers):
        return architecture(config, **_head_options(config, task))


def skeleton(source: Mapping[str, Any], folder: Path, trust: Trust) -> LoadedModel:
    """The model that `source` describes with its configuration from `folder`: parameters on the meta device, buffers real.

    Raises:
        ModelError: the configuration does not fit this version of transformers, or names what is not trusted.

    """
    if source.get("task") not in TASKS or not isinstance(source.get("architecture"), str):
        raise ModelError(f"a checkpoint must tell its model's architecture, and its task as one of {', '.join(TASKS)}")
    task = str(source["task"])
    transformers = _transformers(trust)
    options = {"trust_remote_code": trust.remote_code}
    try:
        _check_described(str(folder), trust)
        config = transformers.AutoConfig.from_pretrained(folder, **options)
        architecture = _architecture(transformers, source["architecture"], config, task, folder, trust)
        _require_small_buffers(_unfilled(architecture, config, task, buffers=False), str(folder))
        body = _unfilled(architecture, config, task)
        tokenizer = tokenizer_of(transformers, str(folder), options)
    except ModelError:
        raise
    except Exception as error:  # transformers and what it reads with raise errors of any kind
        raise ModelError(
            f"{folder} must hold a configuration and tokenizer that transformers {transformers.__version__} reads: "
            f"{first_line(error)}{_hint(error)}"
        ) from error
    return _adapt(body, task, source, tokenizer, config, Generation.read(folder))


def _architecture(transformers: Any, name: str, config: Any, task: str, folder: Path, trust: Trust) -> type[nn.Module]:
    """The class that a checkpoint names: a model of transformers, or, where trusted, of the code beside the configuration."""
    remote = (getattr(config, "auto_map", None) or {}).get(TASKS[task].auto)
    if trust.remote_code and remote is not None and not hasattr(transformers, name):
        from transformers.dynamic_module_utils import get_class_from_dynamic_module

        found: Any = get_class_from_dynamic_module(remote, str(folder))
    else:
        found = getattr(transformers, name, None)
    if not (isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)):
        raise ModelError(
            f"{folder} must be of an architecture that transformers {transformers.__version__} has, got {name!r}; give "
            "--trust-remote-code if its own code brings it and you trust who made it"
        )
    return found


def _adapt(
    body: nn.Module,
    task: str,
    source: Mapping[str, Any],
    tokenizer: Any,
    config: Any,
    generation: Generation | None,
    files: Sequence[Path] = (),
) -> LoadedModel:
    found = TASKS[task]
    assets = [asset for asset in (config, tokenizer, generation) if asset is not None]
    limit = sequence_limit(body, body.config)
    limits = {} if limit is None else {"sequence": limit}
    return LoadedModel(
        found.adapter(body).eval(),
        _TEXT_INPUTS,
        found.outputs,
        found.kind,
        source,
        tokenizer,
        assets,
        files,
        limits,
        notices=_taken_for_granted(body, tokenizer),
    )


def _taken_for_granted(body: nn.Module, tokenizer: Any) -> tuple[str, ...]:
    """What to say of an input of the model's that an exported file has not: which of two texts a token is of."""
    takes = "token_type_ids" in inspect.signature(body.forward).parameters
    if (
        not takes
        or getattr(body.config, "type_vocab_size", 0) < 2
        or "token_type_ids" not in getattr(tokenizer, "model_input_names", ())
    ):
        return ()
    return (
        "inputs are input_ids and attention_mask alone, so that token_type_ids are 0, as of single texts: for pairs of texts wrap "
        "the model in package.module:factory, whose forward takes them",
    )


def _task_of(config: Any, path: Path) -> str:
    """What a model is for, by its architecture's name: heads are kept, and models of other kinds refused.

    Raises:
        ModelError: a decoder that reads an encoder's states, or another head.

    """
    if path.suffix == ".gguf":
        return "causal-lm"
    architecture = (getattr(config, "architectures", None) or [""])[0]
    if not architecture:
        raise ModelError(
            f"the configuration of {path} must name the architecture that its weights are of (architectures), and names none: save "
            "the model by save_pretrained, or give package.module:factory"
        )
    task = task_of(architecture)
    both = getattr(config, "is_encoder_decoder", False) and not architecture.endswith("EncoderModel")
    if task is None or both:
        what = "its head is of another kind"
        if getattr(config, "is_encoder_decoder", False):
            what = "it has an encoder and a decoder"
        known = ", ".join(f"…{ending}" for known in TASKS.values() for ending in known.endings)
        raise ModelError(
            f"a Hugging Face model of text must be one of {known}, got {architecture}: {what}. Wrap it in package.module:factory, "
            "or save the part that is wanted (of T5 the encoder: T5EncoderModel.from_pretrained(...).save_pretrained(...))"
        )
    return task


def _loader(transformers: Any, config: Any, task: str, trust: Trust) -> Any:
    """Transformers' own choice for the task, or the class that the configuration names, where that is another one of its own."""
    auto = getattr(transformers, TASKS[task].auto)
    named = getattr(transformers, config.architectures[0], None) if getattr(config, "architectures", None) else None
    if trust.remote_code and TASKS[task].auto in (getattr(config, "auto_map", None) or {}):
        return auto
    chosen = auto._model_mapping.get(type(config), None)
    known = isinstance(named, type) and issubclass(named, transformers.PreTrainedModel)
    return named if known and named is not chosen else auto


def _head_options(config: Any, task: str) -> dict[str, Any]:
    """BERT's pooler feeds `pooler_output`, which a sentence encoder does not use: it is left out."""
    return {"add_pooling_layer": False} if task == "encoder" and config.model_type in ("bert", "roberta", "xlm-roberta") else {}
