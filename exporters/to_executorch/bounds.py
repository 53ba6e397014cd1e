"""Sizes of a program: ExecuTorch plans memory ahead, so that every dynamic size needs a largest value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch.fx import Node
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from edgecomp.errors import ExportError
from edgecomp.exporters.capture import Capture
from edgecomp.graph import describe
from edgecomp.tensor import TensorSpec

# What a device runs: one sample at a time, and a language model's or an encoder's usual window. Others must be said.
DEFAULT_MAX_SIZES = {"batch": 1, "sequence": 512}


def unbounded(specs: tuple[TensorSpec, ...], max_sizes: Mapping[str, int], limits: Mapping[str, int]) -> list[str]:
    """Dynamic sizes that have no largest value, given, by default or by the model's limit as far as that is known."""
    known = {*max_sizes, *limits, *DEFAULT_MAX_SIZES}
    return [dim for spec in specs for dim in spec.dims if isinstance(dim, str) and dim not in known]


def bounded_sizes(specs: tuple[TensorSpec, ...], max_sizes: Mapping[str, int], limits: Mapping[str, int]) -> dict[str, int]:
    """The largest value of every dynamic size: the one given, else the default of its name, else the model's own limit.

    Args:
        specs: the model's inputs.
        max_sizes: those given, by name.
        limits: what the model takes at most, by name; a default beyond it is lowered.

    Raises:
        ExportError: a size has none of them, a name given is no size of the model, or a size given is beyond its limit.

    """
    names = list(dict.fromkeys(dim for spec in specs for dim in spec.dims if isinstance(dim, str)))
    unknown = [name for name in max_sizes if name not in names]
    if unknown:
        raise ExportError(
            f"a largest size must name a dynamic size of the model ({', '.join(names) or 'it has none'}), got {unknown[0]}"
        )
    beyond = next((name for name, size in max_sizes.items() if size > limits.get(name, size)), None)
    if beyond is not None:
        raise ExportError(f"the model takes {beyond} up to {limits[beyond]}, and the largest size given is {max_sizes[beyond]}")
    bounds = {**limits, **{name: min(size, limits.get(name, size)) for name, size in DEFAULT_MAX_SIZES.items()}, **max_sizes}
    for name in names:
        if name not in bounds:
            raise ExportError(
                f"ExecuTorch plans memory for the largest sizes, and the dynamic size {name} has none: "
                f"give it (`edgecomp export --max-size {name}=VALUE`)"
            )
    return {name: bounds[name] for name in names}


def check_bounded(capture: Capture) -> None:
    """Refuse sizes that depend on values, such as those of `nonzero`.

    Raises:
        ExportError: naming the node and its module.

    """
    for node in capture.program.graph.nodes:
        for value in _tensors(node):
            if free_unbacked_symbols(tuple(value.shape)):
                raise ExportError(
                    f"sizes must not depend on values, and that of {describe(node)} does: "
                    "compute it in forward without, such as by a mask"
                )


def _tensors(node: Node) -> Iterator[torch.Tensor]:
    value = node.meta.get("val")
    for item in value if isinstance(value, tuple | list) else (value,):
        if isinstance(item, torch.Tensor):
            yield item
