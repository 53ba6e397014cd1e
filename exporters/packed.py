"""Which tensors of a model are packed, and the proof that a captured program reads them by our operators only."""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

import numpy as np
import torch
from torch.export import ExportedProgram

from edgecomp.checkpoint import CompressedModel
from edgecomp.errors import ExportError
from edgecomp.graph import live_nodes, readers_within
from edgecomp.models import body_of
from edgecomp.modules import PackedLayer
from edgecomp.ops import NAMESPACE, STAGE_OPERATORS, Operator


def factor_of_buffer(model: CompressedModel) -> dict[str, str]:
    """The factor of each buffer that an operator of ours reads, under every name that the buffer has in the module."""
    factor_at: dict[int, str] = {}
    for layer, plan in model.plans.items():
        module = cast(PackedLayer, body_of(model.module).get_submodule(layer))
        for term in plan.terms:
            for stage in term:
                factor = module.factor(stage.factor)
                if (factor.format, stage.op) in STAGE_OPERATORS:
                    factor_at |= {id(buffer): stage.factor for buffer in factor.buffers()}
    buffers = model.module.named_buffers(remove_duplicate=False)
    return {name: factor_at[id(buffer)] for name, buffer in buffers if id(buffer) in factor_at}


def _expected_calls(model: CompressedModel) -> dict[tuple[str, Operator], list[str]]:
    """The layers that run each (factor, operator), one entry a use."""
    expected: dict[tuple[str, Operator], list[str]] = {}
    for layer, plan in model.plans.items():
        for term in plan.terms:
            for stage in term:
                operator = STAGE_OPERATORS.get((model.factors[stage.factor].format, stage.op))
                if operator is not None:
                    expected.setdefault((stage.factor, operator), []).append(layer)
    return expected


def check_calls(model: CompressedModel, found: Collection[tuple[str, Operator]]) -> None:
    """Check that the calls found in a lowered program run every stage of the model's plans packed.

    One call may serve several layers: those that share a factor and an input are merged.

    Raises:
        ExportError: a stage has no call.

    """
    for (factor, operator), layers in _expected_calls(model).items():
        if (factor, operator) not in found:
            raise ExportError(
                f"a call of {operator.torch_name} must run the factor {factor} of {', '.join(layers)}, and none does: forward "
                "does not reach the layer. Take it out of the model, or leave it out with skip in the recipe"
            )


def float16_tensor_bytes(model: CompressedModel) -> int:
    """Bytes of the dense tensors that the checkpoint has in float16, each once."""
    return sum({id(tensor): tensor.nbytes for tensor in model.dense.values() if tensor.dtype == torch.float16}.values())


def has_float16(model: CompressedModel) -> bool:
    """Whether the checkpoint has a dense tensor or a dense factor in float16."""
    dense = (factor for factor in model.factors.values() if factor.format == "dense")
    return float16_tensor_bytes(model) > 0 or any(factor.arrays["values"].dtype == np.float16 for factor in dense)


def check_readers(program: ExportedProgram, model: CompressedModel) -> None:
    """Check that only our operators read packed buffers: any other reader would be a decompressed copy.

    Raises:
        ExportError: naming the buffer and its reader.

    """
    factors = factor_of_buffer(model)
    buffer_of_input = program.graph_signature.inputs_to_buffers
    live = live_nodes(program)
    for node in program.graph.nodes:
        name = buffer_of_input.get(node.name, "") if node.op == "placeholder" else ""
        if name not in factors:
            continue
        within = [inner for loop in node.users for _, inner in readers_within(loop, node)]
        plain = [reader for reader in node.users if reader in live and not readers_within(reader, node)]
        for reader in (*plain, *within):
            if getattr(reader.target, "namespace", None) != NAMESPACE:
                raise ExportError(
                    f"packed weights {name} must be read by operators of {NAMESPACE} only, but {reader.name} ({reader.target}) "
                    "reads them: use the layer's output in forward, not its buffers"
                )
