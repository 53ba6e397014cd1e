"""Settings of the method `jlcm` (`edgecomp.passes.jlcm`)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgecomp.config import PassConfig

# How codes learn (`edgecomp.learning.codes`).
MapGradient = Literal["scores", "straight-through", "proximal", "none"]


class JlcmConfig(PassConfig):
    """Settings of `jlcm`.

    Args:
        objective: what the end-to-end stage minimises: `divergence` (from the original's outputs), `hidden-states` (of its blocks),
            `cross-entropy` (of labels, or next tokens), or `package.module:factory` that returns an
            `edgecomp.learning.objectives.Objective`.
        top_tokens: of `divergence` of a language model: the original's likeliest tokens of each position that are compared one by
            one, the others as one; they are kept, so that the original runs once for each sample. 0 compares all tokens, each time.
            Without it, 64 for a language model, and nothing of the kind for others.
        map_gradient: how codes learn: `scores`, or for comparison `straight-through` or `proximal`, or `none`, which leaves the map
            as it was.
        candidates: of `scores`: the nearest codewords of a weight that it may move to.
        block_steps: steps of the block-wise stage for each block; 0 leaves it out.
        steps: steps of the end-to-end stage; 0 leaves it out.
        batch: calibration samples of a step.
        position_rate: learning rate of the codes, in codewords a step, or of their scores.
        book_rate: of codebook entries, in int8 steps.
        scale_rate: of block scales, in int8 steps, and of the row scales of `lut_narrow`, in sixteenths of an octave.
        dense_rate: of dense factors, norms, biases and other dense tensors; 0 leaves them.
        seed: of the order of the samples.

    """

    method: Literal["jlcm"] = "jlcm"
    objective: str = "divergence"
    top_tokens: int | None = Field(default=None, ge=0)
    map_gradient: MapGradient = "scores"
    candidates: int = Field(default=3, ge=2, le=64)
    block_steps: int = Field(default=0, ge=0)
    steps: int = Field(default=1000, ge=0)
    batch: int = Field(default=16, ge=1)
    position_rate: float = Field(default=1e-2, ge=0, allow_inf_nan=False)
    book_rate: float = Field(default=3e-2, ge=0, allow_inf_nan=False)
    scale_rate: float = Field(default=3e-2, ge=0, allow_inf_nan=False)
    dense_rate: float = Field(default=1e-4, ge=0, allow_inf_nan=False)
    seed: int = 0
