"""Language models that speak: a compressed model's layers behind a key-value cache.

`families` says where the parts of each architecture are, `attention` computes with a cache, `decoder` is the module that all
targets capture, and `build` makes it of a compressed model and holds it to the original.
"""

from __future__ import annotations

from edgecomp.language.build import DecoderOptions, with_buffers, with_cache

__all__ = ["DecoderOptions", "with_buffers", "with_cache"]
