"""Settings of the compression methods, apart from the methods: recipes are read, listed and described without PyTorch."""

from __future__ import annotations

from edgecomp.config import PassConfig
from edgecomp.settings.jlcm import JlcmConfig
from edgecomp.settings.lut_kmeans import LutKmeansConfig

# By the names of the methods in `edgecomp.passes.PASSES`.
SETTINGS: dict[str, type[PassConfig]] = {
    "lut-kmeans": LutKmeansConfig,
    "jlcm": JlcmConfig,
}

__all__ = ["SETTINGS", "JlcmConfig", "LutKmeansConfig"]
