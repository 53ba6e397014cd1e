"""What a program says about itself: JSON that its method `edgecomp_manifest` returns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import edgecomp
from edgecomp.checkpoint import CompressedModel
from edgecomp.exported.executorch_file import MANIFEST_SCHEMA
from edgecomp.exporters.capture import Capture
from edgecomp.exporters.to_executorch.save import data_path
from edgecomp.ops import DOMAIN_VERSION
from edgecomp.tensor import TensorSpec


def manifest(model: CompressedModel, capture: Capture, external: Path | None) -> str:
    """The manifest of a program of `model` whose constants lie beside `external`, or inside."""
    return json.dumps(
        {
            "schema": MANIFEST_SCHEMA,
            "edgecomp": edgecomp.__version__,
            "operators": DOMAIN_VERSION,
            "formats": sorted({factor.format for factor in model.factors.values()}),
            "parameters": model.parameters,
            "recipe": model.recipe,
            "provenance": model.provenance,
            "inputs": [_describe(spec, shape) for spec, shape in zip(model.inputs, _input_shapes(capture), strict=True)],
            "outputs": list(model.outputs),
            "conditions": list(capture.conditions),
            "data": None if external is None else data_path(external).name,
        },
        sort_keys=True,
        separators=(",", ":"),
    )


def _describe(spec: TensorSpec, shape: Sequence[int | torch.SymInt]) -> dict[str, Any]:
    """Sizes that the model's spec names and the capture fixed are numbers."""
    return {"name": spec.name, "dims": [size if isinstance(size, int) else dim for dim, size in zip(spec.dims, shape, strict=True)]}


def _input_shapes(capture: Capture) -> list[Sequence[int | torch.SymInt]]:
    values = {node.name: node.meta["val"] for node in capture.program.graph.nodes if node.op == "placeholder"}
    return [values[name].shape for name in capture.program.graph_signature.user_inputs]
