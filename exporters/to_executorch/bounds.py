"""Sizes of a program: ExecuTorch plans memory ahead, so that every dynamic size needs a largest value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch.fx import Node
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from edgecomp.errors import ExportError
from edgecomp.exporters.capture import Capture
from edgecomp.tensor import TensorSpec
from edgecomp.trace import describe

# What a device runs: one sample at a time, and a language model's or an encoder's usual window. Others must be said.
DEFAULT_MAX_SIZES = {"batch": 1, "sequence": 512}


def bounded_sizes(specs: tuple[TensorSpec, ...], max_sizes: Mapping[str, int]) -> dict[str, int]:
    """The largest value of every dynamic size: the one given, else the default of its name.

    Raises:
        ExportError: a size has neither, or a name given is no size of the model.

    """
    names = list(dict.fromkeys(dim for spec in specs for dim in spec.dims if isinstance(dim, str)))
    unknown = [name for name in max_sizes if name not in names]
    if unknown:
        raise ExportError(
            f"a largest size must name a dynamic size of the model ({', '.join(names) or 'it has none'}), got {unknown[0]}"
        )
    bounds = {**DEFAULT_MAX_SIZES, **max_sizes}
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
