"""The architectures that can be given a cache: where the parts of each are, by the names that transformers has for them.

What all of them share is read from the model or its configuration and needs no declaration: sizes, activation, scale of attention,
windows (`sliding_window`, by `layer_types` where there are such), frequencies of rotary positions (of any kind that does not change
with the length), caps of scores and of logits, biases. The decoder that is built by a declaration is held to the
model itself at every export, on a few tokens (`edgecomp.language.build`): what shows in longer texts alone must be right here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgecomp.errors import ExportError


@dataclass(frozen=True)
class Family:
    """Names of the parts of an architecture; those of a layer are below the layer, and empty ones are not there.

    A layer is `h = x + after_attention(output(attention(qkv(input_norm(x)))))`, then `h + after_mlp(down(mlp(mlp_norm(h))))`, where
    `mlp(x)` is the activation of `up(x)`, or of the first half of `up(x)`, times the second.

    Args:
        embedding: the table of tokens.
        layers: the list of layers.
        final_norm: in front of the head.
        head: gives the logits.
        qkv: what makes queries, keys and values: three layers, or one for all.
        output: behind the attention.
        up: what makes gate and values of the second half, in this order: two layers, one for both, or one where nothing is gated.
        down: behind it.
        input_norm: of a layer.
        mlp_norm: of a layer's second half.
        attention: the module that tells the scale of the scores (`scaling`).
        rotary: the module that holds the frequencies of rotary positions.
        positions: the table of learned positions.
        query_norm: of each head.
        key_norm: of each head.
        after_attention: a norm in front of the first residual sum.
        after_mlp: a norm in front of the second.
        gated: whether `up` makes a gate.
        norm_offset: added to the weights of RMS norms.
        activation: the configuration's name for the activation.

    """

    embedding: str = "model.embed_tokens"
    layers: str = "model.layers"
    final_norm: str = "model.norm"
    head: str = "lm_head"
    qkv: tuple[str, ...] = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    output: str = "self_attn.o_proj"
    up: tuple[str, ...] = ("mlp.gate_proj", "mlp.up_proj")
    down: str = "mlp.down_proj"
    input_norm: str = "input_layernorm"
    mlp_norm: str = "post_attention_layernorm"
    attention: str = "self_attn"
    rotary: str = "model.rotary_emb"
    positions: str = ""
    query_norm: str = ""
    key_norm: str = ""
    after_attention: str = ""
    after_mlp: str = ""
    gated: bool = True
    norm_offset: float = 0.0
    activation: str = "hidden_act"


_HEAD_NORMS: dict[str, Any] = {"query_norm": "self_attn.q_norm", "key_norm": "self_attn.k_norm"}
_NORMS_AROUND: dict[str, Any] = {
    "after_attention": "post_attention_layernorm",
    "mlp_norm": "pre_feedforward_layernorm",
    "after_mlp": "post_feedforward_layernorm",
}

# By the configuration's `model_type`.
FAMILIES: Mapping[str, Family] = {
    "llama": Family(),
    "mistral": Family(),
    "qwen2": Family(),
    "qwen3": Family(**_HEAD_NORMS),
    "gemma": Family(norm_offset=1.0),
    "gemma2": Family(norm_offset=1.0, activation="hidden_activation", **_NORMS_AROUND),
    "gemma3_text": Family(norm_offset=1.0, activation="hidden_activation", **_NORMS_AROUND, **_HEAD_NORMS),
    "phi3": Family(qkv=("self_attn.qkv_proj",), up=("mlp.gate_up_proj",)),
    "gpt2": Family(
        embedding="transformer.wte",
        layers="transformer.h",
        final_norm="transformer.ln_f",
        qkv=("attn.c_attn",),
        output="attn.c_proj",
        up=("mlp.c_fc",),
        down="mlp.c_proj",
        input_norm="ln_1",
        mlp_norm="ln_2",
        attention="attn",
        rotary="",
        positions="transformer.wpe",
        gated=False,
        activation="activation_function",
    ),
}

# transformers' names of activations that the operators' epilogues have.
ACTIVATIONS: Mapping[str, str] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
# Kinds of rotary positions whose frequencies depend on the length of the text so far: keys in a cache would be of other ones.
_CHANGING_ROTARY = ("dynamic", "longrope")


def family_of(config: Any) -> Family:
    """The declaration of a model's family.

    Raises:
        ExportError: there is none, or the configuration asks for something that none covers.

    """
    kind = str(getattr(config, "model_type", ""))
    if kind not in FAMILIES:
        raise ExportError(
            f"a language model with a cache must be of a family that edgecomp knows ({', '.join(FAMILIES)}), and this is a "
            f"{kind or 'model without a type'}: declare where its norms, projections and tables are in "
            "edgecomp/language/families.py, or export it without a cache (-o model.onnx)"
        )
    parameters = getattr(config, "rope_parameters", None) or {}
    nested = [value for value in parameters.values() if isinstance(value, dict)] or [parameters]
    for kind_of_rotary in (str(value.get("rope_type", "default")) for value in nested):
        if kind_of_rotary in _CHANGING_ROTARY:
            raise ExportError(
                f"rotary positions must have frequencies that the length of the text does not change, got {kind_of_rotary!r}: keys "
                "in the cache would be turned by others. Export without a cache (-o model.onnx)"
            )
    return FAMILIES[kind]


def activation_of(config: Any, family: Family) -> str:
    """The operator table's name of the activation.

    Raises:
        ExportError: it has none.

    """
    name = str(getattr(config, family.activation, None))
    if name not in ACTIVATIONS:
        raise ExportError(f"the activation must be one of {', '.join(ACTIVATIONS)}, got {name!r} ({family.activation})")
    return ACTIVATIONS[name]


def window_of(config: Any, layer: int) -> int | None:
    """How many tokens, itself included, a token sees in a layer; None for all before it."""
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if kinds is not None and kinds[layer] != "sliding_attention":
        return None
    return int(window) if window else None
