"""edgecomp: compress PyTorch models by learned codebooks and run them packed on the runtimes that devices already have."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# In a checkout the exporters lie elsewhere and nothing is built: better to say so now than after a long computation.
if not os.path.isdir(os.path.join(os.path.dirname(__file__), "exporters")):  # noqa: PTH112, PTH118, PTH120  (pathlib is slow to import)
    raise ImportError(
        f"edgecomp must be imported as installed, not from its sources in {os.path.dirname(__file__)}: "  # noqa: PTH120
        "pip install . in the checkout, and run Python in another folder (or with -P)"
    )

if TYPE_CHECKING:
    from edgecomp.checkpoint import CompressedModel, load
    from edgecomp.compression import compress
    from edgecomp.exporters import export
    from edgecomp.native import get_cmake_path, get_library_path

# Resolved on first use, so that `import edgecomp` loads neither torch nor numpy.
_API = {
    "CompressedModel": "edgecomp.checkpoint",
    "compress": "edgecomp.compression",
    "export": "edgecomp.exporters",
    "get_cmake_path": "edgecomp.native",
    "get_library_path": "edgecomp.native",
    "load": "edgecomp.checkpoint",
}

__all__ = ["CompressedModel", "__version__", "compress", "export", "get_cmake_path", "get_library_path", "load"]


def __getattr__(name: str) -> Any:
    if name in _API:
        return getattr(import_module(_API[name]), name)
    raise AttributeError(f"module 'edgecomp' has no attribute {name!r}")
