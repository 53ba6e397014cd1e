"""Chains of element-wise operations as one kernel of a GPU.

What is held of a weight is read and written by every operation of a chain otherwise, and a step of learning spends a third of its
time on that. PyTorch's compiler merges them; where it cannot (no Triton, no C compiler), they run one by one, and that is said.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch

from edgecomp.errors import first_line, is_out_of_memory

_LOG = logging.getLogger("edgecomp")


class Merged:
    """A function of tensors whose operations are merged on a GPU; on a processor it runs as it is.

    Args:
        function: of tensors and numbers, the first a tensor; without side effects.

    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._compiled: Callable[..., Any] | None = None
        self._possible = True

    def __call__(self, first: torch.Tensor, *rest: Any) -> Any:
        """What the function gives."""
        if first.device.type != "cuda" or not self._possible:
            return self._function(first, *rest)
        if self._compiled is None:
            self._compiled = torch.compile(self._function, dynamic=True)
        try:
            return self._compiled(first, *rest)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            self._possible = False
            _LOG.warning("a step of learning takes longer, since PyTorch's compiler cannot merge it: %s", first_line(error))
            return self._function(first, *rest)
