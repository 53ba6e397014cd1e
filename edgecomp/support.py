"""Operators that a target has no form for, by the lists that PyTorch's and ExecuTorch's exporters bring: asked before the passes.

Programs are looked at in PyTorch's core operators, into which every exporter decomposes what it does not know itself.
"""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from pathlib import Path
from typing import Any

from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.fx import Node

from edgecomp.graph import live_nodes
from edgecomp.ops import NAMESPACE
from edgecomp.trace import quiet_logger

TARGETS = ("onnx", "executorch")
_PACKAGES = {"onnx": "onnxscript", "executorch": "executorch"}
# Operators that both targets have, or make of others that they have: for programs of these alone nothing need be decomposed, nor
# the exporters' lists be read, which takes seconds.
# fmt: off
_KNOWN = frozenset((
    "abs", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "add", "addmm", "alias", "amax", "amin", "__and__", "arange",
    "argmax", "avg_pool2d", "baddbmm", "batch_norm", "bmm", "cat", "chunk", "clamp", "clone", "constant_pad_nd",
    "contiguous", "conv1d", "conv2d", "conv_transpose2d", "convolution", "cos", "cumsum", "detach", "div", "dropout", "elu",
    "embedding", "empty_like", "eq", "exp", "expand", "fill", "flatten", "floor", "full", "full_like", "gather", "ge",
    "gelu", "group_norm", "gt", "hardtanh", "index", "index_select", "layer_norm", "le", "leaky_relu", "linear", "log",
    "logical_and", "logical_not", "logical_or", "lstm", "lt", "matmul", "max", "max_pool2d", "maximum", "mean", "min",
    "minimum", "mm", "mul", "native_group_norm", "native_layer_norm", "ne", "neg", "new_ones", "numpy_T", "ones", "pad",
    "permute", "pow", "reciprocal", "relu", "repeat", "reshape", "rsqrt", "scaled_dot_product_attention", "scatter",
    "select", "select_scatter", "sigmoid", "silu", "sin", "slice", "slice_scatter", "_softmax", "softmax", "split",
    "split_with_sizes", "sqrt", "squeeze", "stack", "sub", "sum", "t", "tanh", "to", "_to_copy", "transpose", "tril",
    "type_as", "unbind", "unflatten", "unsqueeze", "upsample_nearest2d", "view", "_weight_norm", "where", "zeros",
))
# fmt: on
EXECUTORCH_AXES = 2  # over which its kernel of that name convolves at most


def lacking(program: ExportedProgram) -> dict[str, Node]:
    """The first node that a target has no form for, by target; of targets whose package is installed, `{}` where all have all."""
    found = {}
    for target in TARGETS:
        if importlib.util.find_spec(_PACKAGES[target]) is not None:
            lacks = _first_lacking(program, target)
            if lacks is not None:
                found[target] = lacks
    return found


def _first_lacking(program: ExportedProgram, target: str) -> Node | None:
    if all(_runs(node, target) for node in _operators(program)):
        return None
    decomposed = _decomposed_for_onnx(program) if target == "onnx" else program.run_decompositions()
    return next((node for node in _operators(decomposed) if not _runs(node, target)), None)


def _operators(program: ExportedProgram) -> list[Node]:
    """Live nodes that compute tensors."""
    live = live_nodes(program)
    return [
        node
        for node in program.graph.nodes
        if node in live
        and isinstance(node.target, OpOverload)
        and node.target.namespace not in (NAMESPACE, "prims")
        and _tensors(node)
    ]


def _tensors(node: Node) -> bool:
    return any("Tensor" in str(value.type) for value in node.target._schema.returns)  # type: ignore[union-attr]


def convolution_axes(node: Node) -> int:
    """Over how many axes a node convolves; 0 of other nodes."""
    if not isinstance(node.target, OpOverload) or not node.target.name().startswith("aten::conv"):
        return 0
    x = node.args[0] if node.args and isinstance(node.args[0], Node) else None
    return 0 if x is None else max(x.meta["val"].ndim - 2, 0)


def _runs(node: Node, target: str) -> bool:
    operator = node.target
    assert isinstance(operator, OpOverload)
    name = operator._schema.name.removeprefix("aten::")
    plain = name if name.startswith("__") else name.removesuffix("_")  # what changes a tensor in place becomes what does not
    if target == "onnx":
        return plain in _KNOWN or bool(_onnx_registry().is_registered(operator))
    runs = plain in _KNOWN or not _executorch_kernels().isdisjoint((name, plain, f"{name}_copy"))
    return runs and convolution_axes(node) <= EXECUTORCH_AXES


@cache
def _onnx_registry() -> Any:
    from torch.onnx._internal.exporter import _registration

    with quiet_logger("torch.onnx"):
        return _registration.ONNXRegistry.from_torchlib()


def _decomposed_for_onnx(program: ExportedProgram) -> ExportedProgram:
    from torch.onnx._internal.exporter import _fx_passes

    return _fx_passes.decompose_with_registry(program, _onnx_registry())


@cache
def _executorch_kernels() -> frozenset[str]:
    """Operators of ExecuTorch's portable kernels, without overloads, by their list: its package takes seconds to import."""
    package = importlib.util.find_spec("executorch")
    folders = package.submodule_search_locations if package is not None else None
    lists = [Path(folder) / "kernels/portable/functions.yaml" for folder in folders or ()]
    text = "".join(path.read_text("utf-8") for path in lists if path.is_file())
    return frozenset(name.partition(".")[0] for name in re.findall(r"^- op: (\S+)", text, re.MULTILINE))
