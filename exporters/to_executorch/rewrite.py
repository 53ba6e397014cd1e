"""What a program is rewritten to before ExecuTorch sees it, and the check that sizes are as free afterwards as they were."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.export import ExportedProgram

from edgecomp.errors import ExportError
from edgecomp.exporters.capture import Capture

_aten = torch.ops.aten
# Operators that return parts of their first argument along a dimension, and the position of that among the arguments.
_SPLITS: dict[Callable[..., Any], int] = {
    _aten.split.Tensor: 2,
    _aten.split.sizes: 2,
    _aten.split_with_sizes.default: 2,
    _aten.chunk.default: 2,
    _aten.tensor_split.sections: 2,
    _aten.tensor_split.indices: 2,
    _aten.unsafe_split.Tensor: 2,
    _aten.unsafe_chunk.default: 2,
    _aten.unbind.int: 1,
}


def split_by_slices(program: ExportedProgram) -> None:
    """Write each part of a split as a slice, and of an unbind as a select, in place.

    ExecuTorch 1.5's verifier takes an operator that returns a list for one that returns its first part, and the length of that
    part's first axis for a number: from then on a dynamic first axis, the batch as a rule, is as long as in the example.
    """
    graph = program.graph_module.graph
    for node in list(graph.nodes):
        if node.op != "call_function" or node.target not in _SPLITS:
            continue
        tensor, place = node.args[0], _SPLITS[node.target]
        axis = node.args[place] if len(node.args) > place else node.kwargs.get("dim", 0)
        axis %= tensor.meta["val"].ndim
        parts = {user: user.args[1] for user in node.users}
        values = node.meta["val"]
        bind = node.target is _aten.unbind.int
        sizes = [1 if bind else value.shape[axis] for value in values]
        if not all(isinstance(size, int) for size in sizes):
            continue  # it splits a dynamic axis; `check_free` tells if that fixes a size
        for getitem, number in parts.items():
            first = sum(sizes[:number])
            with graph.inserting_before(getitem):
                if bind:
                    part = graph.call_function(_aten.select.int, (tensor, axis, number))
                else:
                    part = graph.call_function(_aten.slice.Tensor, (tensor, axis, first, first + sizes[number]))
            part.meta = dict(getitem.meta)
            getitem.replace_all_uses_with(part)
            graph.erase_node(getitem)
        graph.erase_node(node)
    graph.lint()
    program.graph_module.recompile()


def check_free(capture: Capture) -> None:
    """Check that lowering has fixed no size which the capture left dynamic.

    Raises:
        ExportError: naming the size.

    """
    for node in capture.program.graph.nodes:
        for size in getattr(node.meta.get("val"), "shape", ()) if node.op == "placeholder" else ():
            if isinstance(size, torch.SymInt) and size.node.expr.is_number:
                name = capture.dim_names.get(str(size.node._expr), str(size.node._expr))
                raise ExportError(
                    f"the size {name} is dynamic, but ExecuTorch takes it for {size.node.expr}, as in the example that it lowered: "
                    f"fix it by `--max-size {name}=1`, or in the model's sizes (`edgecomp compress --dim`)"
                )
