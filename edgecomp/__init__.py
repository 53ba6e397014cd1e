"""edgecomp: compress PyTorch models by learned codebooks and run them packed on the runtimes that devices already have."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from edgecomp.checkpoint import CompressedModel, load
    from edgecomp.compression import compress
    from edgecomp.exporters import export
    from edgecomp.native import get_library_path

# Resolved on first use, so that `import edgecomp` loads neither torch nor numpy.
_API = {
    "CompressedModel": "edgecomp.checkpoint",
    "compress": "edgecomp.compression",
    "export": "edgecomp.exporters",
    "get_library_path": "edgecomp.native",
    "load": "edgecomp.checkpoint",
}

__all__ = ["CompressedModel", "__version__", "compress", "export", "get_library_path", "load"]


def __getattr__(name: str) -> Any:
    if name in _API:
        return getattr(import_module(_API[name]), name)
    raise AttributeError(f"module 'edgecomp' has no attribute {name!r}")
