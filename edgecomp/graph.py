"""What is asked of the graph of an exported program."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import torch
from torch import SymInt
from torch.export import ExportedProgram
from torch.fx import Node

from edgecomp.tensor import TensorSpec


def input_sizes(program: ExportedProgram, specs: Sequence[TensorSpec]) -> Iterator[tuple[TensorSpec, int | str, int | SymInt]]:
    """Each axis of a program's inputs: the input's spec, the size there, and the size that it has in the program."""
    values = {node.name: node.meta["val"] for node in program.graph.find_nodes(op="placeholder")}
    for spec, name in zip(specs, program.graph_signature.user_inputs, strict=True):
        for dim, size in zip(spec.dims, values[name].shape, strict=True):
            yield spec, dim, size


def describe(node: Node) -> str:
    """A node's name, its operator and the module whose forward has it."""
    path = path_of(node)
    path = "" if path == "body" else path.removeprefix("body.")
    return f"node {node.name} ({node.target}) in {f'module {path}' if path else 'the model'}"


def path_of(node: Node) -> str:
    """The name of the module whose forward has a node; empty for the model itself."""
    stack = node.meta.get("nn_module_stack") or {}
    path = next((path for path, _ in reversed(list(stack.values())) if path), "")
    return re.sub(r"@\d+", "", path)  # the second call of a module has @1 behind its name


def random_nodes(program: ExportedProgram) -> list[Node]:
    """The nodes that draw random numbers on which an output depends."""
    live = live_nodes(program)
    return [node for node in program.graph.nodes if node in live and _draws(node)]


def _draws(node: Node) -> bool:
    if not isinstance(node.target, torch._ops.OpOverload) or torch.Tag.nondeterministic_seeded not in node.target.tags:
        return False
    schema = node.target._schema
    given = {argument.name: argument.default_value for argument in schema.arguments if argument.has_default_value()}
    given |= {**dict(zip((argument.name for argument in schema.arguments), node.args, strict=False)), **node.kwargs}
    # Dropout and the like that are off, as all are in eval mode.
    off = any(given.get(name) is False for name in ("train", "training")) or any(
        given.get(name) == 0 for name in ("p", "dropout_p")
    )
    return not off


def live_nodes(program: ExportedProgram) -> set[Node]:
    """The nodes that an output, or a change of an input or buffer, depends on."""
    left = [node for node in program.graph.nodes if node.op == "output" or written_by(node)]
    live: set[Node] = set()
    while left:
        node = left.pop()
        if node not in live:
            live.add(node)
            left.extend(node.all_input_nodes)
    return live


def readers_within(loop: Node, value: Node) -> list[tuple[Node, Node]]:
    """What reads a value in the body of a loop that is given it: the value's name there, and the reader.

    Empty where the node is no loop.
    """
    if loop.target is not torch.ops.higher_order.scan:
        return []
    body, *given = loop.args
    step = getattr(loop.graph.owning_module, str(body.target))  # type: ignore[union-attr]
    handed = [item for items in given for item in items]  # type: ignore[union-attr]
    names = zip(handed, step.graph.find_nodes(op="placeholder"), strict=True)
    return [(inner, reader) for item, inner in names if item is value for reader in inner.users]


def written_by(node: Node) -> list[Node]:
    """The program's inputs, buffers among them, that a node changes in place, itself or through views of them."""
    schema = getattr(node.target, "_schema", None)
    if node.op != "call_function" or schema is None or not schema.is_mutable:
        return []
    given = {**dict(zip((argument.name for argument in schema.arguments), node.args, strict=False)), **node.kwargs}
    changed = (given.get(a.name) for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write)
    roots = [_viewed(argument) for argument in changed if isinstance(argument, Node)]
    return [root for root in roots if root.op == "placeholder"]


def _viewed(node: Node) -> Node:
    """What a node is a view of, to the last; itself where it is none."""
    while node.op == "call_function":
        schema = getattr(node.target, "_schema", None)
        if (
            schema is None
            or not any(value.alias_info is not None for value in schema.returns)
            or not isinstance(node.args[0], Node)
        ):
            return node
        node = node.args[0]
    return node
