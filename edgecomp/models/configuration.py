"""What the configuration of a Hugging Face model may name, and how large it may be: looked at before anything is built from it.

A configuration is a stranger's text, and transformers follows it: to Python files beside it, to kernels and quantisation methods
that are fetched by name, to any class of transformers as tokenizer, to weights in other folders. `--trust-remote-code` allows what
it names; sizes are held to their bounds always.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from edgecomp.bounded import LARGEST_BITS
from edgecomp.errors import ModelError

# The allow-list: implementations that are transformers' own and need nothing fetched; absent and null are theirs to choose.
_IMPLEMENTATIONS: Mapping[str, tuple[str, ...]] = {
    "attn_implementation": ("eager", "sdpa"),
    "experts_implementation": ("eager", "batched_mm", "grouped_mm"),
}
_CODE = "which names code of others: take it out of config.json, or give --trust-remote-code if you trust who made the model"
# Entries that hand the weights to another tool's reader, some of which run code or fetch kernels.
_QUANTISED = ("quantization_config", "compression_config")
# Tokenizers that transformers writes in Python and that read nothing but the files beside the model.
_PYTHON_TOKENIZERS = ("PhobertTokenizer", "BertweetTokenizer", "ByT5Tokenizer", "CanineTokenizer")

# Bounds of whole numbers by the entries' names, the first that fits: several times what the largest known models have.
_Bound = tuple[re.Pattern[str], int, int]
_BOUNDS: tuple[_Bound, ...] = (
    (re.compile(r"(num_(\w+_)?|n_|\w+_)layers?|n_layer"), 0, 1000),
    (re.compile(r"(num|n)_\w*experts\w*"), 0, 4096),
    (re.compile(r"(num|n)_\w*(heads?|head_kv)|n_head"), 0, 2**14),
    (re.compile(r"n_ctx|n_positions|max_\w*position\w*|max_seq\w*|\w*context_length"), -1, 2**25),  # -1: without a limit of its own
    (re.compile(r"vocab_size|\w+_vocab_size|type_vocab_size"), 0, 2**24),
    (re.compile(r"n_embd|n_embed|n_inner|dff|d_\w+|(\w+_)?dim|hidden_size|\w+_size"), 0, 2**22),
)
_LAYERS, _EXPERTS, _HEADS, _POSITIONS, _WORDS, _WIDTHS = range(len(_BOUNDS))
_FEED_FORWARD = re.compile(r"intermediate|inner|ffn|dff|mlp|feed_forward|expert")  # widths that no table has
# Numbers that are no sizes; of any others that are not small, it is not known what they multiply.
_NO_SIZES = re.compile(r"\w*(_ids?|theta|window)|transformers_version")
_SMALL = 64
_LARGEST_MODULES = 2**17  # layers times experts
_LARGEST_LIST = 2**20
# Of what a model computes when it is built, such as tables of positions.
LARGEST_BUFFERS_BYTES = 2**30


def check_configuration(config: Mapping[str, Any], where: str, *, trusted: bool) -> None:
    """Hold a configuration to the allow-list and the bounds.

    Args:
        config: its entries, JSON values.
        where: the model's name, for messages.
        trusted: whether it may name code.

    Raises:
        ModelError: naming the entry.

    """
    layers = experts = 1
    for path, value in _entries(config, where):
        key = path[-1].strip("_").removesuffix("_internal")
        name = ".".join(path)
        if not trusted:
            _check_name(key, name, value, where)
        _check_size(key, name, value, where)
        if isinstance(value, int):
            layers = max(layers, value) if _kind_of(key) == _LAYERS else layers
            experts = max(experts, value) if _kind_of(key) == _EXPERTS else experts
    if layers * experts > _LARGEST_MODULES:
        raise ModelError(
            f"the configuration of {where} must have {_LARGEST_MODULES} layers times experts at most, got {layers * experts}"
        )


def is_small(config: Mapping[str, Any], values: int) -> bool:
    """Whether a model has no more than a few times so many values, and small buffers, as far as its configuration's numbers tell.

    Quick: tables of words and positions, and matrices of the largest widths in every layer and expert, are held to the values, and
    numbers of unknown meaning must be small. Where it is false, only building the model tells.

    """
    largest = [1] * len(_BOUNDS)
    embedded = head = 1
    for path, value in _entries(config, "the model"):
        numbers = value if isinstance(value, list) else [value]
        for number in numbers:
            kind = _kind_of(path[-1]) if isinstance(number, int) else None
            if kind is None and isinstance(number, int) and abs(number) > _SMALL and not _NO_SIZES.fullmatch(path[-1]):
                return False
            if kind is not None:
                largest[kind] = max(largest[kind], number)
            if kind == _WIDTHS and not _FEED_FORWARD.search(path[-1]):
                embedded = max(embedded, number)
            if path[-1].endswith("head_dim"):
                head = max(head, number if isinstance(number, int) else 1)
    width = max(largest[_WIDTHS], head * largest[_HEADS])
    matrices = largest[_LAYERS] * largest[_EXPERTS] * width * width
    tables = (largest[_WORDS] + largest[_POSITIONS]) * embedded
    return matrices <= 2 * values and tables <= 2 * values and largest[_POSITIONS] ** 2 <= LARGEST_BUFFERS_BYTES


def check_type(model_type: object, where: str, *, known: Sequence[str]) -> None:
    """Refuse models of other things than text, whose configurations name further models, backbones and indices.

    Args:
        model_type: of the configuration.
        where: the model's name, for messages.
        known: types of language models and of encoders of text.

    Raises:
        ModelError: the type is none of them.

    """
    if model_type not in known:
        raise ModelError(
            f"a Hugging Face model must be of a type that transformers has for text, got {model_type!r} in {where}: wrap other "
            "models in package.module:factory, or give --trust-remote-code if its own code makes it one and you trust who made it"
        )


def check_tokenizer(settings: Mapping[str, Any], names: Sequence[object], where: str, folder: Path) -> None:
    """Hold the settings of a tokenizer to what reads nothing but the files beside them.

    Args:
        settings: of `tokenizer_config.json`.
        names: of the tokenizer's class, as the settings and the configuration have it.
        where: the model's name, for messages.
        folder: the settings' own.

    Raises:
        ModelError: naming the entry.

    """
    for name in names:
        if name is not None and not (isinstance(name, str) and _is_tokenizer(name)):
            raise ModelError(f"{where} must name a tokenizer of transformers that reads its own files alone, got {name!r}, {_CODE}")
    if settings.get("init_inputs"):
        raise ModelError(f"the tokenizer of {where} must have no init_inputs, got {settings['init_inputs']!r}")
    for key, value in settings.items():
        if key.endswith(("_file", "_files", "_path", "_dir")) and isinstance(value, str):
            named = folder / value
            # Earlier releases of transformers open what stands here; many files keep their maker's paths, which lead nowhere.
            if ".." in PurePath(value).parts or (PurePath(value).is_absolute() and named.exists()):
                raise ModelError(f"the tokenizer of {where} must name files of its own folder, and {key} is {value!r}: take it out")


def _is_tokenizer(name: str) -> bool:
    from transformers import PreTrainedTokenizerFast
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name
    from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

    if name.removesuffix("Fast") in (*_PYTHON_TOKENIZERS, *_default_tokenizers()):
        return True
    found = tokenizer_class_from_name(name)
    if found is None:
        found = tokenizer_class_from_name(f"{name.removesuffix('Fast')}Fast")
    # None of that name: transformers takes the one that reads tokenizer.json, which is Rust and pure data.
    return found is None or (isinstance(found, type) and issubclass(found, PreTrainedTokenizerFast | SentencePieceBackend))


def _default_tokenizers() -> set[str]:
    """Those that transformers takes for models of text by itself."""
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

    names = {TOKENIZER_MAPPING_NAMES.get(kind) for kind in text_types()}
    return {name.removesuffix("Fast") for name in names if name is not None}


def text_types() -> set[str]:
    """Types of models that take token ids alone: language models and encoders of text."""
    from transformers.models.auto import modeling_auto as auto

    return {
        *auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        *auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        *auto.MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES,
    }


def require_plain_name(name: object, where: str) -> str:
    """A name of a weight file, which must lie beside the configuration and be data.

    Raises:
        ModelError: it is a path to elsewhere, or of another kind.

    """
    plain = isinstance(name, str) and not PurePath(name).is_absolute() and ".." not in PurePath(name).parts
    if not plain or not str(name).endswith((".safetensors", ".safetensors.index.json")):
        raise ModelError(f"{where} must name .safetensors files of its own folder as its weights, got {name!r}")
    return str(name)


def _entries(config: Mapping[str, Any], where: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every entry with its path, those of tables inside too."""
    left: list[tuple[tuple[str, ...], Any]] = [((str(key),), value) for key, value in config.items()]
    while left:
        path, value = left.pop()
        yield path, value
        if isinstance(value, Mapping | list) and len(value) > _LARGEST_LIST:
            raise ModelError(f"{'.'.join(path)} of {where} must have {_LARGEST_LIST:,} entries at most, got {len(value):,}")
        if isinstance(value, Mapping):
            left += [((*path, str(key)), inner) for key, inner in value.items()]
        elif isinstance(value, list):
            left += [(path, inner) for inner in value if isinstance(inner, Mapping)]


def _check_name(key: str, name: str, value: Any, where: str) -> None:
    if key in _QUANTISED and value:
        raise ModelError(
            f"{where} must have weights as they were trained, and its configuration has {name}: give the model before it was "
            "quantised, or --trust-remote-code if you trust who made it"
        )
    if key in _IMPLEMENTATIONS:
        for choice in value.values() if isinstance(value, Mapping) else [value]:
            if choice is not None and choice not in _IMPLEMENTATIONS[key]:
                raise ModelError(f"{name} of {where} must be one of {', '.join(_IMPLEMENTATIONS[key])}, got {choice!r}, {_CODE}")


def _kind_of(key: str) -> int | None:
    """Which of `_BOUNDS` an entry has."""
    return next((kind for kind, bound in enumerate(_BOUNDS) if bound[0].fullmatch(key)), None)


def _check_size(key: str, name: str, value: Any, where: str) -> None:
    kind = _kind_of(key)
    if kind is None:
        if isinstance(value, int) and value.bit_length() > LARGEST_BITS:
            raise ModelError(f"{name} of {where} must be a number of 128 bits at most")
        return
    _, least, largest = _BOUNDS[kind]
    if isinstance(value, str) or (isinstance(value, int | float) and not least <= value <= largest):
        raise ModelError(f"{name} of {where} must be a number from {least} to {largest}, got {value!r}")
