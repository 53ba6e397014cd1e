"""Tables of a program as small as the checkpoint has them: rows are looked up in float16, and only what was looked up is cast.

ExecuTorch would cast any other tensor of float16 at every inference, into planned memory of its float32 size: those are float32.
"""

from __future__ import annotations

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from edgecomp.checkpoint import CompressedModel
from edgecomp.exporters.packed import has_float16

_EMBEDDING = torch.ops.aten.embedding.default


def narrow_tables(program: ExportedProgram, model: CompressedModel) -> int:
    """Store in float16 what nothing but embeddings reads, where the checkpoint has float16 and it holds the values exactly.

    Returns:
        Bytes of the tensors that are float16 now.

    """
    if not has_float16(model):
        return 0
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    stored = 0
    for node in program.graph.find_nodes(op="placeholder"):
        table = program.state_dict.get(names.get(node.name, ""))
        if table is None or table.dtype != torch.float32 or not node.users or not all(_looks_up(user, node) for user in node.users):
            continue
        half = table.detach().to(torch.float16)
        if not torch.equal(half.float(), table):
            continue
        program.state_dict[names[node.name]] = torch.nn.Parameter(half, False) if isinstance(table, torch.nn.Parameter) else half
        node.meta["val"] = node.meta["val"].to(torch.float16)
        stored += half.nbytes
        for user in list(node.users):
            _cast_behind(program, user)
    return stored


def _looks_up(user: Node, table: Node) -> bool:
    return user.target is _EMBEDDING and user.args[0] is table and table not in user.args[1:]


def _cast_behind(program: ExportedProgram, embedding: Node) -> None:
    with program.graph.inserting_after(embedding):
        rows = program.graph.call_function(torch.ops.aten._to_copy.default, (embedding,), {"dtype": torch.float32})
    rows.meta = {**embedding.meta}
    embedding.meta = {**embedding.meta, "val": embedding.meta["val"].to(torch.float16)}
    embedding.replace_all_uses_with(rows, delete_user_cb=lambda user: user is not rows)
