"""Compression methods: each a module with a configuration and a pass over the draft."""

from __future__ import annotations

from edgecomp.passes.base import Draft, Layer, Pass, PassContext, Progress, Use
from edgecomp.passes.lut_kmeans import LutKmeans

PASSES: dict[str, type[Pass]] = {
    "lut-kmeans": LutKmeans,
}

__all__ = ["PASSES", "Draft", "Layer", "Pass", "PassContext", "Progress", "Use"]
