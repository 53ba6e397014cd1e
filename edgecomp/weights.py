"""Weights that come and go: a module keeps them as they are stored, often mapped from files, and has them in float32 while it runs.

Parameters of float16 or bfloat16 take half the memory, and none that counts where they are pages of a file, which the system can
drop. What computes with them wants float32. `materialised` is for one module that is worked on, `streamed` for a model larger than
memory that runs from its first layer to its last.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

CPU = torch.device("cpu")

# Modules whose forward reads the parameters of their submodules, without calling these.
_READ_WITHIN = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)


def trim_heap() -> None:
    """Hand freed memory back to the system, where the C library can: its heap keeps the gaps that tensors of many sizes leave.

    Without it a process grows by some 20 MB for each block of a model of 135 million parameters, though nothing is held.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc alone
    if trim is not None:
        trim(0)


@contextmanager
def materialised(module: nn.Module, device: torch.device = CPU, *, without: Iterable[nn.Module] = ()) -> Iterator[None]:
    """Floating parameters and buffers of a module and its submodules are float32 on `device`, and afterwards as they were.

    Those of the submodules `without` stay, but for what they share with others. Only their data is exchanged: each parameter stays
    the same object under the same names, so that shared ones stay shared. What a block writes into an exchanged one is lost.
    Tensors of integers are moved to `device`; what is float32 there already stays.
    """
    left = {id(part) for other in without for part in other.modules()}
    with _exchanged([tensor for part in module.modules() if id(part) not in left for tensor in _own(part)], device):
        yield


@contextmanager
def streamed(module: nn.Module, device: torch.device = CPU) -> Iterator[None]:
    """Each module below `module` has its own parameters and buffers as by `materialised` for the time of its call, and only then.

    So a model needs the memory of its largest layer in float32, not that of all. A forward that reads the parameters of a module
    which it does not call fails in PyTorch for their dtype, but for attention and transformer layers of PyTorch itself, whose
    parameters come and go together. Where everything is float32 on `device` already, nothing is done at all.
    """
    running: list[tuple[nn.Module, ExitStack]] = []

    def before(part: nn.Module, _: Any) -> None:
        stack = ExitStack()
        running.append((part, stack))
        stack.enter_context(_exchanged(_read_by(part), device))

    def after(part: nn.Module, *_: Any) -> None:
        # Called too where an earlier hook raised, so that `before` was not.
        if running and running[-1][0] is part:
            running.pop()[1].close()

    with ExitStack() as hooks:
        for part in module.modules():
            if any(not _fits(tensor, device) for tensor in _read_by(part)):
                hooks.callback(part.register_forward_pre_hook(before).remove)
                hooks.callback(part.register_forward_hook(after, always_call=True).remove)
        try:
            yield
        finally:
            while running:  # an interruption by the keyboard calls no hook
                running.pop()[1].close()


def _read_by(part: nn.Module) -> list[Tensor]:
    return [*part.parameters(), *part.buffers()] if isinstance(part, _READ_WITHIN) else _own(part)


def _own(part: nn.Module) -> list[Tensor]:
    return [*part.parameters(recurse=False), *part.buffers(recurse=False)]


def _fits(tensor: Tensor, device: torch.device) -> bool:
    return tensor.device.type == device.type and (tensor.dtype == torch.float32 or not tensor.is_floating_point())


@contextmanager
def _exchanged(tensors: Iterable[Tensor], device: torch.device) -> Iterator[None]:
    stored: list[tuple[Tensor, Tensor]] = []
    try:
        for tensor in tensors:
            if not _fits(tensor, device):
                stored.append((tensor, tensor.data))
                tensor.data = tensor.data.to(device, torch.float32 if tensor.is_floating_point() else tensor.dtype)
        yield
    finally:
        for tensor, data in stored:
            tensor.data = data
