"""Small language models of several families with random weights, compressed, and what PyTorch makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny_models import save_tokenizer

from edgecomp.checkpoint import CompressedModel
from edgecomp.compression import compress
from edgecomp.models import body_of

_SIZES = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
}
_GEMMA = {**_SIZES, "head_dim": 16}
# By the family: transformers' classes of configuration and model, and what the configuration has.
CONFIGURATIONS: Mapping[str, tuple[str, str, Mapping[str, Any]]] = {
    "llama": ("LlamaConfig", "LlamaForCausalLM", {**_SIZES, "tie_word_embeddings": True}),
    "mistral": ("MistralConfig", "MistralForCausalLM", {**_SIZES, "sliding_window": 5}),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", _SIZES),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", {**_SIZES, "head_dim": 32}),
    "gemma": ("GemmaConfig", "GemmaForCausalLM", _GEMMA),
    "gemma2": ("Gemma2Config", "Gemma2ForCausalLM", {**_GEMMA, "sliding_window": 5, "query_pre_attn_scalar": 20}),
    "gemma3_text": ("Gemma3TextConfig", "Gemma3ForCausalLM", {**_GEMMA, "sliding_window": 5, "query_pre_attn_scalar": 20}),
    "phi3": ("Phi3Config", "Phi3ForCausalLM", {**_SIZES, "pad_token_id": 0, "partial_rotary_factor": 0.5}),
    "gpt2": (
        "GPT2Config",
        "GPT2LMHeadModel",
        {"n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 64, "initializer_range": 0.2},
    ),
}


def save_language_model(folder: Path, family: str, **settings: Any) -> Path:
    """A Hugging Face folder of a random model of a family."""
    import transformers

    torch.manual_seed(0)
    config_name, model_name, sizes = CONFIGURATIONS[family]
    config = getattr(transformers, config_name)(vocab_size=save_tokenizer(folder), **{**sizes, **settings})
    model = getattr(transformers, model_name)(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "bias" in name or ".ln_" in name:  # or they would be ones and zeros
                parameter.add_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder


def compressed(folder: Path, family: str, compute: str = "float", **settings: Any) -> CompressedModel:
    """A random model of a family, packed."""
    save_language_model(folder, family, **settings)
    return compress(str(folder), "lut-4bit", overrides=["passes.0.weighting=none", f"passes.0.compute={compute}"])


@torch.no_grad()
def logits(model: CompressedModel, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Of the packed model in PyTorch, without a cache."""
    given = torch.from_numpy(mask)
    found = body_of(model.module)(
        input_ids=torch.from_numpy(ids),
        attention_mask=given,
        position_ids=(given.cumsum(1) - 1).clamp(min=0),
        use_cache=False,
    )
    return found.logits.numpy()  # type: ignore[no-any-return]


def greedy(model: CompressedModel, prompt: Sequence[int], count: int) -> list[int]:
    """The tokens that PyTorch writes."""
    ids = list(prompt)
    for _ in range(count):
        row = np.array([ids])
        ids.append(int(logits(model, row, np.ones_like(row))[0, -1].argmax()))
    return ids[len(prompt) :]
