"""Modules as people bring them: wrappers around the whole are taken off, and parts that cannot be compressed refused by name."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from edgecomp.errors import ModelError

# In which PyTorch computes; others, such as float8, are for storage alone.
_COMPUTED = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_BEFORE = "give the model from before, which holds its weights as they are"


def plain(module: nn.Module) -> nn.Module:
    """The module itself, out of `torch.compile` and the wrappers that run it on several devices.

    Raises:
        ModelError: a part of it is none that can be compressed or copied: with its name, what it is, and what to give instead.

    """
    while True:
        inner = _wrapped(module)
        if inner is None:
            break
        module = inner
    for name, part in module.named_modules():
        what = _what_is(part, name)
        if what is not None:
            raise ModelError(f"{name or 'the model'} {what}")
        for tensor_name, tensor in _tensors(part):
            what = _what_tensor_is(tensor)
            if what is not None:
                raise ModelError(f"{name}{'.' if name else ''}{tensor_name} {what}")
    return module


def _wrapped(module: nn.Module) -> nn.Module | None:
    """What a wrapper of the whole model holds; None for a model."""
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        inner: nn.Module = module.module
        return inner
    return _compiled(module)


def _compiled(module: nn.Module) -> nn.Module | None:
    """What `torch.compile` made a module of; None for any other."""
    return module._modules.get("_orig_mod") if type(module).__module__.startswith("torch._dynamo") else None


def _what_is(part: nn.Module, name: str) -> str | None:
    """What a part is that cannot be compressed or copied, and the way out; None for what may be."""
    kind = type(part)
    named = f"model.{name}" if name else "model"
    if isinstance(part, torch.jit.ScriptModule):
        return "is a TorchScript module (torch.jit.script, torch.jit.trace): give the module that it was made of"
    if _compiled(part) is not None:
        return f"is compiled (torch.compile): give it as it was, {named} = {named}._orig_mod"
    if kind.__name__ == "FullyShardedDataParallel":
        return "is sharded (FullyShardedDataParallel): give the module inside, its weights gathered (summon_full_params)"
    if kind.__module__.startswith(("torch.ao.quantization", "torch.ao.nn.qat", "torch.ao.nn.intrinsic.qat", "torchao.")):
        return f"is of a model prepared for quantisation ({kind.__module__}.{kind.__name__}): {_BEFORE}"
    if any(isinstance(value, torch.ScriptObject) for value in vars(part).values()):
        return f"is quantised already ({kind.__module__}.{kind.__name__}): {_BEFORE}"
    if getattr(part, "max_norm", None) is not None and isinstance(part, nn.Embedding | nn.EmbeddingBag):
        scale = f"{named}.weight.renorm_({part.norm_type}, 0, {part.max_norm})"
        return (
            f"scales rows of its weight as it looks them up (max_norm = {part.max_norm}), which no exported file does. Do it once "
            f"for all, with the same outputs: `with torch.no_grad(): {scale}`, and `{named}.max_norm = None`"
        )
    return None


def _tensors(part: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for held in (part._parameters, part._buffers):
        yield from ((name, tensor) for name, tensor in held.items() if tensor is not None)


def _what_tensor_is(tensor: Tensor) -> str | None:
    """What a parameter or buffer is that cannot be stored, and the way out; None for a plain one."""
    if is_lazy(tensor):
        return "has no shape yet, since its layer is lazy: run the model once on a sample before"
    if tensor.layout is not torch.strided:
        return f"is sparse ({tensor.layout}): make it dense by .to_dense()"
    if tensor.is_quantized:
        return f"is quantised ({tensor.dtype}): make it float by .dequantize()"
    if type(tensor) not in (Tensor, nn.Parameter):
        return (
            f"is a {type(tensor).__module__}.{type(tensor).__name__}, a tensor with rules of its own, such as of quantised or "
            "distributed weights: give the model with plain ones, from before"
        )
    if tensor.is_floating_point() and tensor.dtype not in _COMPUTED:
        dtype = str(tensor.dtype).removeprefix("torch.")
        return f"is {dtype}, in which PyTorch stores and does not compute: make it .float(), times its scales"
    return None
