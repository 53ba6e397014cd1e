"""Layers of other kinds as plain ones: a model in which every weight belongs to an `nn.Linear`, `nn.Embedding` or `nn.Conv2d`.

Passes, statistics, learning, exporters and kernels know these three. A module that multiplies by weights of its own is exchanged
for one that computes the same and has them in plain layers below it; a weight that is computed at each run is computed once; and
of parameters that a forward reads itself see `edgecomp.unfolding.weights`. So a further kind is one entry of `_KINDS`.

What was done is a record, name by name, with which a checkpoint's model is unfolded again.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from edgecomp.modules import set_module
from edgecomp.unfolding import weights
from edgecomp.unfolding.attention import Attention
from edgecomp.unfolding.convolutions import Convolution, TransposedConvolution
from edgecomp.unfolding.recurrent import Recurrent, RecurrentCell
from edgecomp.unfolding.tables import Bag
from edgecomp.unfolding.weights import WeightOf, convolution_of, geometry_of, products

# PyTorch's classes, and the methods that are the layer: a subclass with others computes in ways of its own.
_CONV = ("forward", "_conv_forward")
_TRANSPOSED = ("forward", "_output_padding")
_METHODS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Linear: ("forward",),
    nn.Embedding: ("forward",),
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), _CONV),
    **dict.fromkeys((nn.ConvTranspose1d, nn.ConvTranspose2d), _TRANSPOSED),
    **dict.fromkeys((nn.LSTM, nn.GRU, nn.RNN, nn.LSTMCell, nn.GRUCell, nn.RNNCell), ("forward",)),
    nn.MultiheadAttention: ("forward",),
    nn.EmbeddingBag: ("forward",),
}
HOOKS = "they have hooks, or a forward of their own, which packed layers would not run (remove them, or wrap the layers)"


@dataclass(frozen=True)
class _Kind:
    """What layers of some classes become; `obstacle` says what of one is not known."""

    classes: tuple[type[nn.Module], ...]
    make: Callable[[Any], nn.Module]
    obstacle: Callable[[Any], str | None] = lambda _: None


def _of_attention(layer: nn.MultiheadAttention) -> str | None:
    if layer.bias_k is not None or layer.add_zero_attn:
        return "attention with bias_k, bias_v or add_zero_attn is not packed"
    return None


def _of_bag(layer: nn.EmbeddingBag) -> str | None:
    return None if layer.max_norm is None else "they scale their rows as they look them up (max_norm)"


_KINDS: dict[str, _Kind] = {
    "convolution": _Kind((nn.Conv1d, nn.Conv2d, nn.Conv3d), Convolution),
    "transposed convolution": _Kind((nn.ConvTranspose1d, nn.ConvTranspose2d), TransposedConvolution),
    "recurrent": _Kind((nn.LSTM, nn.GRU, nn.RNN), Recurrent),
    "recurrent cell": _Kind((nn.LSTMCell, nn.GRUCell, nn.RNNCell), RecurrentCell),
    "attention": _Kind((nn.MultiheadAttention,), Attention, _of_attention),
    "bag": _Kind((nn.EmbeddingBag,), Bag, _of_bag),
}


def class_of(module: nn.Module) -> type[nn.Module]:
    """PyTorch's class where a module runs as that does, a subclass with the same forward among them; else its own."""
    kind = type(module)
    if kind is NonDynamicallyQuantizableLinear:  # whose weight attention reads without calling it
        return kind
    for known, methods in _METHODS.items():
        if isinstance(module, known) and all(getattr(kind, name) is getattr(known, name) for name in methods):
            return known
    return kind.__bases__[0] if parametrize.is_parametrized(module) else kind


def has_own_ways(module: nn.Module) -> bool:
    """Whether hooks or a forward of its own run with a module."""
    return bool(module._forward_hooks or module._forward_pre_hooks) or "forward" in vars(module)


def _kind_of(module: nn.Module) -> str | None:
    """What a module is unfolded as; None for one that stays."""
    known = class_of(module)
    if known is nn.Conv2d and module.padding_mode == "zeros":
        return None
    name = next((name for name, kind in _KINDS.items() if known in kind.classes), None)
    if name is None or has_own_ways(module) or _KINDS[name].obstacle(module) is not None:
        return None
    parameters = [part for part in module.parameters() if part is not None]
    return name if parameters and all(part.is_floating_point() and part.numel() for part in parameters) else None


def obstacle(module: nn.Module) -> str | None:
    """Why a layer of a kind that is unfolded was not; None for others."""
    known = class_of(module)
    kind = next((kind for kind in _KINDS.values() if known in kind.classes), None)
    if kind is None:
        return None
    return HOOKS if has_own_ways(module) else kind.obstacle(module)


def unfold(module: nn.Module, record: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Exchange a model's layers, in place.

    Args:
        module: a copy of a model (`copied`).
        record: what to exchange and how, as this function gave it and `products` after it; None for all that is known.

    Returns:
        The record.

    Raises:
        ValueError: the record is none of this model.

    """
    _fold(module)
    kinds = {name: kind for name, kind in (record or {}).items() if isinstance(kind, str)}
    if record is None:
        found = ((name, _kind_of(part)) for name, part in module.named_modules() if name)
        kinds = {name: kind for name, kind in found if kind is not None}
    for name, kind in kinds.items():
        layer = module.get_submodule(name)
        if _kind_of(layer) != kind:
            raise ValueError(f"{name} must be a layer of the kind {kind}, got {type(layer).__name__}")
        made = _KINDS[kind].make(layer).eval()
        for other in [path for path, part in module.named_modules(remove_duplicate=False) if part is layer]:
            set_module(module, other, made)
    uses = {name: use for name, use in (record or {}).items() if not isinstance(use, str)}
    unfold_weights(module, uses)
    return {**kinds, **uses}


def unfold_weights(module: nn.Module, uses: Mapping[str, Mapping[str, Any]]) -> None:
    """Exchange parameters that forwards multiply by themselves, in place.

    Raises:
        ValueError: a use is none of this model.

    """
    for name, use in uses.items():
        weights.put(module, name, use, _plain)


def _plain(layer: nn.Module) -> nn.Module:
    kind = _kind_of(layer)
    return layer if kind is None else _KINDS[kind].make(layer).eval()


def copied(module: nn.Module) -> nn.Module:
    """A copy that shares all tensors with the original but for those of weights that are computed at each run."""
    folded = [part for part in module.modules() if _computes_weights(part)]
    own = {id(tensor) for part in folded for tensor in (*part.parameters(), *part.buffers())}
    memo: dict[int, Any] = {}
    for part in module.modules():
        held = (*part._parameters.values(), *part._buffers.values())
        memo |= {id(tensor): tensor for tensor in held if tensor is not None and id(tensor) not in own}
        memo |= {id(value): value.detach() for value in vars(part).values() if isinstance(value, Tensor) and id(value) not in memo}
    return copy.deepcopy(module, memo)


def _computes_weights(module: nn.Module) -> bool:
    return parametrize.is_parametrized(module) or any(isinstance(hook, _HOOKS) for hook in module._forward_pre_hooks.values())


_HOOKS = (WeightNorm, SpectralNorm, prune.BasePruningMethod)


def _fold(module: nn.Module) -> None:
    """Compute weights once that are computed at each run."""
    for part in [part for part in module.modules() if _computes_weights(part)]:
        for tensor in (*part.parameters(), *part.buffers()):
            tensor.data = tensor.data.float() if tensor.is_floating_point() else tensor.data
        for hook in list(part._forward_pre_hooks.values()):
            if isinstance(hook, WeightNorm):
                remove_weight_norm(part, hook.name)
            elif isinstance(hook, SpectralNorm):
                remove_spectral_norm(part, hook.name)
            elif isinstance(hook, prune.BasePruningMethod):
                prune.remove(part, hook._tensor_name)
        if parametrize.is_parametrized(part):
            _fold_parametrizations(part)


def _fold_parametrizations(part: nn.Module) -> None:
    """As `remove_parametrizations`, which changes the class that the original shares."""
    lists = part.parametrizations
    assert isinstance(lists, nn.ModuleDict)  # is_parametrized
    with torch.no_grad():
        values = {name: getattr(part, name).detach() for name in lists}
    buffers = {name for name, made in lists.items() if made.is_tensor and not isinstance(made.original, nn.Parameter)}
    del part._modules["parametrizations"]
    part.__class__ = type(part).__bases__[0]
    for name, value in values.items():
        if name in buffers:
            part.register_buffer(name, value)
        else:
            part.register_parameter(name, nn.Parameter(value))


__all__ = [
    "HOOKS",
    "WeightOf",
    "class_of",
    "convolution_of",
    "copied",
    "geometry_of",
    "has_own_ways",
    "obstacle",
    "products",
    "unfold",
    "unfold_weights",
]
