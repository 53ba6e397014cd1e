"""Compression methods: each a module with a configuration and a pass over the draft."""

from __future__ import annotations

from edgecomp.passes.base import Pass, PassContext, Progress
from edgecomp.passes.jlcm import Jlcm
from edgecomp.passes.lut_kmeans import LutKmeans

PASSES: dict[str, type[Pass]] = {
    "lut-kmeans": LutKmeans,
    "jlcm": Jlcm,
}

__all__ = ["PASSES", "Pass", "PassContext", "Progress"]
