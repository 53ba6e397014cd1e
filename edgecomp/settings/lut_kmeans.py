"""Settings of the method `lut-kmeans` (`edgecomp.passes.lut_kmeans`)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgecomp.config import LayerMatch, PassConfig
from edgecomp.formats import lut
from edgecomp.tensor import Compute


class LayerSettings(LayerMatch):
    """Settings for the layers that `match` names; what is absent keeps the pass's own value."""

    bits: int | None = Field(default=None, ge=1, le=8)
    narrow_bits: int | None = Field(default=None, ge=1, le=8)
    block_size: int | None = Field(default=None, ge=32, le=lut.MAX_BLOCK_SIZE)
    compute: Compute | None = None


class LutKmeansConfig(PassConfig):
    """Settings of `lut-kmeans`.

    Args:
        bits: width of a code, 1 to 8.
        narrow_bits: width of a code in a convolution of few channels that takes the format `lut_narrow`, where a row has one step
            and each weight counts: depthwise layers, first ones. It takes `lut` where that needs fewer bytes.
        block_size: columns that share a scale, a multiple of 32. Halved, as long as it stays one, for a layer whose padded input
            width it does not divide; what does not divide it then is refused.
        compute: how the packed layers compute: `int8` quantises activations on the fly (fast), `float` keeps them (exact to the
            packed weights).
        weighting: `activations` weights errors by the mean square of each input, `hessian` by the whole XᵀX of the inputs, `none`
            weights all alike.
        refits: rounds of alternating refinement.
        books: codebooks of a matrix of 1 to 6 bits, at most: its rows are sorted by distribution into so many groups. The order of
            the rows is stored, 32 bits a row.
        largest_entry: magnitude of codebook entries of 1 to 6 bits, at most: the least-squares entry e is stored as
            clamp(round(e), -largest_entry, largest_entry), so that an entry is off by at most half of 1 / largest_entry of the
            largest. Processors that add up products of bytes in 16 bits (AVX2, ARM without the dot product) multiply smaller
            entries faster: with an offset of 64 or 32 an entry is an unsigned byte of at most 127 or 63, and 2 * 127 * 127 and
            4 * 63 * 127, the largest sums of two and four products, fit into 16 bits.
        skip: patterns of layers that stay as they are.
        layers: settings for some layers; of several that match, the last one counts. Tied layers share one matrix, which has what
            fits any of them.

    """

    method: Literal["lut-kmeans"] = "lut-kmeans"
    bits: int = Field(default=4, ge=1, le=8)
    narrow_bits: int = Field(default=8, ge=1, le=8)
    block_size: int = Field(default=32, ge=32, le=lut.MAX_BLOCK_SIZE)
    compute: Compute = "int8"
    weighting: Literal["activations", "hessian", "none"] = "activations"
    refits: int = Field(default=8, ge=0, le=1000)
    books: int = Field(default=1, ge=1, le=65535)
    largest_entry: Literal[31, 63, 127] = 127
    skip: list[str] = Field(default=[])
    layers: list[LayerSettings] = Field(default=[])
