"""A compressed language model with a cache: its layers in a decoder, which is held to the model itself before it is exported."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from edgecomp.checkpoint import CompressedModel
from edgecomp.errors import ExportError
from edgecomp.exported.language_folder import Attention
from edgecomp.formats import lut, lut_stack
from edgecomp.language.attention import GroupedStep, Heads, KeptStep, PlainStep, Rotary, Step, row_of
from edgecomp.language.decoder import Block, BufferedDecoder, Decoder, Norms, Product, RmsNorm
from edgecomp.language.families import Family, activation_of, family_of, window_of
from edgecomp.models import body_of
from edgecomp.models.bound import Bound, ByName
from edgecomp.modules import PackedFactor, PackedLayer
from edgecomp.tensor import Factor, LayerPlan, Stage, TensorSpec

BATCH, SEQUENCE, PAST, TOTAL = "batch", "sequence", "past_sequence_length", "total_sequence_length"

# How far logits of the decoder may be from the model's own, relative to the largest: the order of sums differs.
_LARGEST_DIFFERENCE = 1e-3
_CHECK_TOKENS, _CHECK_PADDING = 12, 3


@dataclass(frozen=True)
class DecoderOptions:
    """What may be chosen of a decoder.

    Args:
        attention: `fused`, by our operators, `gqa`, by one of ONNX Runtime, or `portable`, by standard ones.
        cache: the type of keys and values that are kept, of `edgecomp.ops.CACHES`; others than `fused` take float32 alone.
        last: logits of each row's last token alone.
        context: tokens that a text may have; None for as many as the model was made for.

    """

    attention: Attention = "fused"
    cache: str = "float32"
    last: bool = False
    context: int | None = None


def with_cache(model: CompressedModel, options: DecoderOptions) -> CompressedModel:
    """The model with keys and values of past tokens as inputs and outputs, in as few products as its layers allow.

    Queries, keys and values become one product, and so do gates and values of the second half, where they are packed alike: their
    tiles are stacked, so that no byte of them changes.

    Args:
        model: a compressed Hugging Face language model.
        options: what is chosen.

    Raises:
        ExportError: its family is unknown, or the decoder computes something else than the model.

    """
    assembly, decoder = _checked(model, options)
    sizes = assembly.heads(0)
    dtype, row = row_of(options.cache, sizes.size)
    past = [
        TensorSpec(f"past_key_values.{layer}.{kind}", dtype, (BATCH, sizes.kv_count, PAST, row))
        for layer in range(len(decoder.blocks))
        for kind in ("key", "value")
    ]
    ids = [TensorSpec("input_ids", "int64", (BATCH, SEQUENCE)), TensorSpec("attention_mask", "int64", (BATCH, TOTAL))]
    present = [spec.name.replace("past_key_values", "present") for spec in past]
    specs = (*ids, *past)
    return replace(
        model,
        module=Bound(decoder, ByName(len(specs), ())).eval(),
        inputs=specs,
        outputs=("logits", *present),
        limits={SEQUENCE: assembly.context},
        # The sizes go together: the mask is of past and new tokens.
        examples={BATCH: 2, SEQUENCE: 5, PAST: 7, TOTAL: 12},
        plans=assembly.plans,
        factors=assembly.factors,
        layer_parameters=dict.fromkeys(assembly.plans, 0),
        unused=(),
    )


def with_buffers(model: CompressedModel, options: DecoderOptions) -> CompressedModel:
    """The model as one that takes tokens and how many came before, and keeps keys and values itself.

    Args:
        model: as for `with_cache`.
        options: `attention` must be `fused`.

    Raises:
        ExportError: as `with_cache`.

    """
    assembly, decoder = _checked(model, options)
    specs = (TensorSpec("tokens", "int64", (1, SEQUENCE)), TensorSpec("start", "int64", (1,)))
    return replace(
        model,
        module=Bound(BufferedDecoder(decoder, options.cache, assembly.context), ByName(len(specs), ()), keeps=True).eval(),
        inputs=specs,
        outputs=("logits",),
        limits={SEQUENCE: assembly.context},
        examples={SEQUENCE: 5},
        plans={f"decoder.{name}": plan for name, plan in assembly.plans.items()},
        factors=assembly.factors,
        layer_parameters={f"decoder.{name}": 0 for name in assembly.plans},
        unused=(),
    )


def _checked(model: CompressedModel, options: DecoderOptions) -> tuple[_Assembly, Decoder]:
    """The decoder, held to the model, and what it was made of."""
    body = body_of(model.module)
    config = getattr(body, "config", None)
    if model.kind != "causal-lm" or config is None:
        raise ExportError("a model with a cache must be a Hugging Face language model: export this one as a file (-o model.onnx)")
    assembly = _Assembly(model, family_of(config), config, options)
    decoder = assembly.decoder()
    _check(decoder, body, config)
    return assembly, decoder


class _Assembly:
    """Makes a decoder of a model's parts, and keeps the plans and factors of the layers that it has."""

    def __init__(self, model: CompressedModel, family: Family, config: Any, options: DecoderOptions) -> None:
        self._model, self._family, self._config, self._options = model, family, config, options
        self._body = body_of(model.module)
        self.plans: dict[str, LayerPlan] = {}
        self.factors: dict[str, Factor] = {}
        self._rotaries: dict[str, Rotary] = {}
        limit = model.limits.get(SEQUENCE) or getattr(config, "max_position_embeddings", None)
        if limit is None and options.context is None:
            raise ExportError("the model must say how many tokens it takes (max_position_embeddings), or be given --context")
        if limit is not None and options.context is not None and options.context > limit:
            raise ExportError(f"--context must be {limit} at most, which this model was made for, got {options.context}")
        self.context = int(options.context or limit or 0)

    def decoder(self) -> Decoder:
        family, config = self._family, self._config
        layers = self._get(family.layers)
        if not isinstance(layers, nn.ModuleList):
            raise ExportError(f"{family.layers} must be a list of layers, got {type(layers).__name__}")
        blocks = [self._block(index) for index in range(len(layers))]
        return Decoder(
            self._single(family.embedding, "embedding"),
            self._single(family.positions, "positions") if family.positions else None,
            blocks,
            self._norm(family.final_norm),
            self._single(family.head, "head"),
            self._step(),
            last=self._options.last,
            cap=float(getattr(config, "final_logit_softcapping", None) or 0.0),
        ).eval()

    def _step(self) -> Callable[[Tensor, Tensor], Step]:
        if self._options.attention == "portable":
            return PlainStep
        return GroupedStep if self._options.attention == "gqa" else partial(KeptStep, cache=self._options.cache)

    def heads(self, index: int) -> Heads:
        config = self._config
        count = int(config.num_attention_heads)
        kv_count = int(getattr(config, "num_key_value_heads", None) or count)
        size = int(getattr(config, "head_dim", None) or config.hidden_size // count)
        attention = self._get(f"{self._family.layers}.{index}.{self._family.attention}")
        scale = float(getattr(attention, "scaling", size**-0.5))
        cap = float(getattr(config, "attn_logit_softcapping", None) or 0.0)
        return Heads(count, kv_count, size, scale, window_of(config, index), cap)

    def _block(self, index: int) -> Block:
        family = self._family
        of = f"{family.layers}.{index}."
        name = f"blocks.{index}."
        return Block(
            self.heads(index),
            Norms(
                self._optional_norm(of, family.input_norm),
                self._optional_norm(of, family.query_norm),
                self._optional_norm(of, family.key_norm),
                self._optional_norm(of, family.after_attention),
                self._optional_norm(of, family.mlp_norm),
                self._optional_norm(of, family.after_mlp),
            ),
            self._product([of + part for part in family.qkv], name + "qkv"),
            self._product([of + family.output], name + "output"),
            self._product([of + part for part in family.up], name + "up"),
            self._product([of + family.down], name + "down"),
            self._rotary(index),
            activation_of(self._config, family),
            family.gated,
        )

    def _get(self, name: str) -> nn.Module:
        try:
            return self._body.get_submodule(name)
        except AttributeError as error:
            kind = getattr(self._config, "model_type", "model")
            raise ExportError(
                f"a {kind} must have {name}, by edgecomp/language/families.py, and this one has none: it is of another make. "
                "Export it without a cache (-o model.onnx)"
            ) from error

    def _norm(self, name: str) -> nn.Module:
        norm = self._get(name)
        if isinstance(norm, nn.LayerNorm):
            return norm
        weight = norm.get_parameter("weight").detach()
        epsilon = getattr(norm, "variance_epsilon", getattr(norm, "eps", None))
        if epsilon is None or getattr(norm, "bias", None) is not None:
            raise ExportError(f"{name} must be an RMS norm or nn.LayerNorm, got {type(norm).__name__}")
        return RmsNorm(weight + self._family.norm_offset if self._family.norm_offset else weight, float(epsilon))

    def _optional_norm(self, of: str, name: str) -> nn.Module | None:
        return self._norm(of + name) if name else None

    def _rotary(self, index: int) -> Rotary | None:
        if not self._family.rotary:
            return None
        module = self._get(self._family.rotary)
        kinds = getattr(self._config, "layer_types", None)
        prefix = f"{kinds[index]}_" if kinds is not None and hasattr(module, f"{kinds[index]}_inv_freq") else ""
        if prefix not in self._rotaries:
            frequencies = cast(Tensor, getattr(module, f"{prefix}inv_freq"))
            scaling = float(getattr(module, f"{prefix}attention_scaling", 1.0))
            self._rotaries[prefix] = Rotary(frequencies, scaling, self.context)
        return self._rotaries[prefix]

    def _product(self, layers: Sequence[str], name: str) -> Product:
        """The layers as one where they are packed alike, under `name`."""
        found = [self._get(layer) for layer in layers]
        stacked = self._stacked(found, name) if len(found) > 1 else None
        if stacked is not None:
            return Product([self._keep(f"{name}.layers.0", stacked)])
        return Product([self._keep(f"{name}.layers.{index}", layer) for index, layer in enumerate(found)])

    def _single(self, layer: str, name: str) -> nn.Module:
        return self._keep(name, self._get(layer))

    def _keep(self, name: str, layer: nn.Module) -> nn.Module:
        """Note plan and factors of a layer that the decoder has under `name`."""
        if isinstance(layer, PackedLayer):
            self.plans[name] = layer.plan
            for factor in (stage.factor for term in layer.plan.terms for stage in term):
                self.factors.setdefault(factor, layer.factor(factor).to_factor())
        return layer

    def _stacked(self, layers: Sequence[nn.Module], name: str) -> PackedLayer | None:
        """One packed layer of the rows of all, if each is one factor, they are packed alike, and no row moves for it."""
        packed = [layer for layer in layers if isinstance(layer, PackedLayer) and _is_one_product(layer)]
        if len(packed) < len(layers) or len({layer.plan.compute for layer in packed}) > 1:
            return None
        factors = [layer.factor(layer.plan.terms[0][0].factor).to_factor() for layer in packed]
        alike = {(f.format, f.shape[1], f.attributes.get("bits"), f.attributes.get("block_size")) for f in factors}
        if len(alike) > 1 or factors[0].format != lut.FORMAT or any(f.shape[0] % lut.TILE_ROWS for f in factors[:-1]):
            return None
        whole = lut_stack.stack(factors)
        biases = [layer.bias for layer in packed]
        bias = None
        if any(part is not None for part in biases):
            rows = [f.shape[0] for f in factors]
            bias = torch.cat([torch.zeros(n) if b is None else b.detach() for n, b in zip(rows, biases, strict=True)])
        factor = f"{name}.weight"
        plan = LayerPlan(((Stage(factor, "linear"),),), None if bias is None else f"{name}.bias", packed[0].plan.compute)
        return PackedLayer(plan, {factor: PackedFactor(whole)}, bias)


def _is_one_product(layer: PackedLayer) -> bool:
    terms = layer.plan.terms
    return len(terms) == 1 and len(terms[0]) == 1 and terms[0][0].op == "linear"


@contextmanager
def _exact(*modules: nn.Module) -> Iterator[None]:
    """Packed layers of the modules compute `float` inside the block: without the rounding of activations, which amplifies any."""
    layers = {id(layer): layer for module in modules for layer in module.modules() if isinstance(layer, PackedLayer)}
    plans = {key: layer.plan for key, layer in layers.items()}
    for layer in layers.values():
        layer.plan = replace(layer.plan, compute="float")
    try:
        yield
    finally:
        for key, layer in layers.items():
            layer.plan = plans[key]


@torch.no_grad()
def _check(decoder: Decoder, body: nn.Module, config: Any) -> None:
    """Hold the decoder to the model: a row, and one with padding, in two parts; random tokens.

    Raises:
        ExportError: they differ.

    """
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(int(config.vocab_size), (2, _CHECK_TOKENS), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, :_CHECK_PADDING] = 0
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    last, decoder.last = decoder.last, False
    step = decoder.step
    if isinstance(step, partial):  # what a smaller cache rounds is no difference of the decoder's
        decoder.step = partial(KeptStep, cache="float32")
    try:
        with _exact(decoder, body):
            expected = body(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False).logits
            found = run_in_parts(decoder, ids, mask, [_CHECK_TOKENS - _CHECK_PADDING, 1, _CHECK_PADDING - 1])
    finally:
        decoder.last, decoder.step = last, step
    difference = float(((found - expected) * mask[:, :, None]).abs().max() / expected.abs().max())
    if not difference <= _LARGEST_DIFFERENCE:
        kind = getattr(config, "model_type", "model")
        raise ExportError(
            f"the decoder with a cache must compute what the {kind} does, but its logits differ by {difference:.2g} of the "
            f"largest: edgecomp/language/families.py does not describe this model ({_peculiarities(config)}). "
            "Export it without a cache (-o model.onnx)"
        )


def run_in_parts(decoder: Decoder, ids: Tensor, mask: Tensor, lengths: Sequence[int]) -> Tensor:
    """Logits of tokens that are given part by part, each behind the cache of those before."""
    block = cast(Block, decoder.blocks[0])
    empty = torch.zeros(len(ids), block.heads.kv_count, 0, block.heads.size)
    past: Sequence[Tensor] = [empty] * (2 * len(decoder.blocks))
    logits, start = [], 0
    for length in lengths:
        end = start + length
        found, *past = decoder(ids[:, start:end], mask[:, :end], *past)
        logits.append(found)
        start = end
    return torch.cat(logits, 1)


def _peculiarities(config: Any) -> str:
    """Settings of a configuration that may be what a declaration lacks."""
    told = {key: value for key, value in config.to_dict().items() if re.search("scal|mult|cap|bias|parallel|rope|window|norm", key)}
    return ", ".join(f"{key}={value}" for key, value in list(told.items())[:12])
