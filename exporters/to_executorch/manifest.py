"""What a program says about itself: JSON that its method `edgecomp_manifest` returns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import edgecomp
from edgecomp.checkpoint import CompressedModel
from edgecomp.exported.executorch_file import MANIFEST_SCHEMA
from edgecomp.exporters.capture import Capture
from edgecomp.exporters.to_executorch.save import data_path
from edgecomp.graph import input_sizes
from edgecomp.ops import DOMAIN_VERSION


def manifest(model: CompressedModel, capture: Capture, external: Path | None) -> str:
    """The manifest of a program of `model` whose constants lie beside `external`, or inside."""
    return json.dumps(
        {
            "schema": MANIFEST_SCHEMA,
            "edgecomp": edgecomp.__version__,
            "identity": str(model.identity),
            "operators": DOMAIN_VERSION,
            "formats": sorted({factor.format for factor in model.factors.values()}),
            "parameters": model.parameters,
            "recipe": model.recipe,
            "provenance": model.provenance,
            "inputs": _inputs(model, capture),
            "outputs": list(model.outputs),
            "conditions": list(capture.conditions),
            "data": None if external is None else data_path(external).name,
        },
        sort_keys=True,
        separators=(",", ":"),
    )


def _inputs(model: CompressedModel, capture: Capture) -> list[dict[str, Any]]:
    """Sizes that the model's spec names and the capture fixed are numbers."""
    dims: dict[str, list[int | str]] = {spec.name: [] for spec in model.inputs}
    for spec, dim, size in input_sizes(capture.program, model.inputs):
        dims[spec.name].append(size if isinstance(size, int) else dim)
    return [{"name": name, "dims": sizes} for name, sizes in dims.items()]
