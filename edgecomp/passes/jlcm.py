"""Method `jlcm`: packed factors of the model learned together, of every term and stage, against the original model.

It takes the factors that a pass before it made: codebooks, scales and maps of `lut` and `lut_narrow`, matrices of `dense`. A first
stage, if asked for, learns one block of the model after the other (`edgecomp.learning.blockwise`): it fits into little memory and
time. The end-to-end stage learns the whole model at once, by an objective (`edgecomp.learning.objectives`), which by default is to
give the original's outputs.

What is learned of a factor, and by which gradients, is in `edgecomp.learning`: `codes`, `lut` and `lut_narrow`. Norms and biases
are learned beside them.

Source: E. Yvinec, A. Dapogny, K. Bailly, "Network Memory Footprint Compression Through Jointly Learnable Codebooks and Mappings",
ICLR 2024, arXiv:2309.17361. We deviate: block scales are learned too, rows are regrouped in `lut-kmeans` already (`books`), and a
block or the whole model is learned instead of a layer, as in M. Chen et al., "EfficientQAT", 2024, arXiv:2407.11062.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import torch

from edgecomp.config import PassConfig
from edgecomp.context import PassContext
from edgecomp.draft import Draft
from edgecomp.errors import ConfigError
from edgecomp.learning.blockwise import learn_blocks
from edgecomp.learning.end_to_end import learn_end_to_end
from edgecomp.learning.learned import can_learn
from edgecomp.learning.objectives import NEEDS_BLOCKS, Objective, make_objective
from edgecomp.learning.student import LearningSettings, learnable
from edgecomp.memory import require_memory
from edgecomp.settings.jlcm import JlcmConfig
from edgecomp.tensor import Factor

_TOP_TOKENS = 64  # of a language model's divergence, where nothing else is asked for


class Jlcm:
    """Learns the draft's factors, and the dense tensors beside them."""

    Config: ClassVar[type[PassConfig]] = JlcmConfig

    def __init__(self, config: JlcmConfig) -> None:
        self.config = config
        self._objective: Objective | None = None
        self._device = torch.device("cpu")

    def prepare(self, draft: Draft, context: PassContext) -> None:
        """Refuse to learn without samples that the objective can use, and block by block without blocks."""
        context.require_calibration("jlcm learns from calibration inputs")
        if self.config.block_steps and not context.structure.blocks:
            raise ConfigError(
                f"the block-wise stage of jlcm needs {NEEDS_BLOCKS}: set block_steps = 0 (--set passes.N.block_steps=0)"
            )
        self._device = context.device
        # The objective has a context of its own: a copy of the model that this makes goes with it.
        self._objective = self._make_objective(replace(context))

    def requires(self, draft: Draft) -> None:
        """Refuse a draft without anything to learn, and one with more than fits into memory."""
        names = self._learnable(draft)
        if not names:
            raise ConfigError(
                "jlcm learns factors that an earlier pass has made, of lut and lut_narrow those of 1 to 6 bits, and there is none: "
                "put lut-kmeans before it"
            )
        if self.config.steps:
            self._require_memory(draft, names)

    def _require_memory(self, draft: Draft, names: Sequence[str]) -> None:
        """Refuse to learn more at once than memory holds."""
        weights = {name: draft.shape(name)[0] * draft.shape(name)[1] for name in names}
        require_memory(
            sum(count * self._bytes_a_weight(draft.factors.get(name)) for name, count in weights.items()),
            f"learning {len(names)} factors of {sum(weights.values()):,} weights end to end",
            "learn block by block alone (--set passes.N.steps=0), by fewer candidates, or by positions "
            "(--set passes.N.map_gradient=straight-through), or leave layers out of the passes before with skip",
            self._device,
        )

    def _bytes_a_weight(self, factor: Factor | None) -> int:
        """What is held of a weight at least: its value and gradient as the model runs, and what is learned, with two moments."""
        numbers = 1
        if factor is not None and "bits" in factor.attributes:  # its codes are learned
            candidates = min(self.config.candidates, 2 ** factor.attributes["bits"])
            numbers = {"scores": candidates, "none": 0}.get(self.config.map_gradient, 1)
        return 4 * (2 + 3 * numbers)

    def foretell(self, draft: Draft) -> None:
        """The factors stay the same ones."""

    def ensures(self, draft: Draft) -> None:
        """Nothing beyond what holds of every draft."""

    def run(self, draft: Draft, context: PassContext) -> None:
        """Learn, and put the learned factors in the place of the old.

        Raises:
            ConfigError: the objective depends on no factor.
            CalibrationError: a sample's loss is not finite.

        """
        names = self._learnable(draft)
        left = [name for name, factor in draft.factors.items() if not can_learn(factor)]
        if left:
            context.progress.say(f"jlcm leaves as they are, since nothing of their format can be learned: {', '.join(left)}")
        if self.config.block_steps:
            learn_blocks(draft, context, names, self._settings(self.config.block_steps))
        if self.config.steps:
            objective, self._objective = self._objective or self._make_objective(context), None
            learn_end_to_end(draft, context, names, objective, self._settings(self.config.steps))

    def _make_objective(self, context: PassContext) -> Objective:
        if self.config.top_tokens and self.config.objective != "divergence":
            raise ConfigError(
                f"top_tokens is a setting of the objective divergence, and the objective is {self.config.objective}: set "
                "top_tokens = 0 (--set passes.N.top_tokens=0)"
            )
        top_tokens = self.config.top_tokens
        if top_tokens is None:
            top_tokens = _TOP_TOKENS if self.config.objective == "divergence" and context.kind == "causal-lm" else 0
        return make_objective(self.config.objective, context, top_tokens=top_tokens)

    def _learnable(self, draft: Draft) -> list[str]:
        return learnable(draft, dense=self.config.dense_rate > 0)

    def _settings(self, steps: int) -> LearningSettings:
        config = self.config
        rates = {
            "positions": config.position_rate,
            "books": config.book_rate,
            "scales": config.scale_rate,
            "values": config.dense_rate,
            "dense": config.dense_rate,
        }
        coded = {"map_gradient": config.map_gradient, "candidates": config.candidates}
        return LearningSettings(steps, config.batch, rates, config.seed, {"lut": coded, "lut_narrow": coded})
