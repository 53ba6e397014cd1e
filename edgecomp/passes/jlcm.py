"""Method `jlcm`: codebooks, scales and maps of the model's `lut` factors learned together, against the original model.

It takes the factors that `lut-kmeans` made. A first stage, if asked for, learns one block of the model after the other
(`edgecomp.passes.blockwise`): it fits into little memory and time. The end-to-end stage learns the whole model at once, to give the
original's outputs:

    language models:  minimise the mean over positions of KL(original || compressed) of the next-token distributions
    others:           minimise mean((y' - y)²) / mean(y²), y the first output of the original and y' of the compressed model

What is learned of a factor, and by which gradients, is in `edgecomp.passes.learned_lut`. Norms and biases are learned beside them.

Source: E. Yvinec, A. Dapogny, K. Bailly, "Network Memory Footprint Compression Through Jointly Learnable Codebooks and Mappings",
ICLR 2024, arXiv:2309.17361. We deviate: block scales are learned too, rows are regrouped in `lut-kmeans` already (`books`), and a
block or the whole model is learned instead of a layer, as in M. Chen et al., "EfficientQAT", 2024, arXiv:2407.11062.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from edgecomp.config import PassConfig
from edgecomp.context import PassContext
from edgecomp.draft import Draft
from edgecomp.passes.blocks import first_tensor
from edgecomp.passes.blockwise import BlockSettings, learn_blocks
from edgecomp.passes.learned_lut import MapGradient
from edgecomp.passes.learning import Rates, Replaceable, Student, hold_back, learnable, optimise, sample_order
from edgecomp.passes.students import settled_weights, student_of, take


class JlcmConfig(PassConfig):
    """Settings of `jlcm`.

    Args:
        map_gradient: how codes learn: `straight-through`, `proximal`, `naive`, or `none`, which leaves the map as it was.
        block_steps: steps of the block-wise stage for each block; 0 leaves it out.
        steps: steps of the end-to-end stage; 0 leaves it out.
        batch: calibration samples of a step.
        position_rate: learning rate of the codes, in codewords a step.
        book_rate: of codebook entries, in int8 steps.
        scale_rate: of block scales, in int8 steps.
        dense_rate: of norms, biases and other dense tensors; 0 leaves them.
        seed: of the order of the samples.

    """

    method: Literal["jlcm"] = "jlcm"
    map_gradient: MapGradient = "straight-through"
    block_steps: int = Field(default=0, ge=0)
    steps: int = Field(default=1000, ge=0)
    batch: int = Field(default=16, ge=1)
    position_rate: float = Field(default=1e-2, ge=0, allow_inf_nan=False)
    book_rate: float = Field(default=3e-2, ge=0, allow_inf_nan=False)
    scale_rate: float = Field(default=3e-2, ge=0, allow_inf_nan=False)
    dense_rate: float = Field(default=1e-4, ge=0, allow_inf_nan=False)
    seed: int = 0


class Jlcm:
    """Learns the draft's `lut` factors, and the dense tensors beside them."""

    Config: ClassVar[type[PassConfig]] = JlcmConfig

    def __init__(self, config: JlcmConfig) -> None:
        self.config = config

    def prepare(self, draft: Draft, context: PassContext) -> None:
        """Refuse to learn without samples."""
        context.require_calibration("jlcm learns from calibration inputs")

    def requires(self, draft: Draft) -> None:
        """Refuse a draft without anything to learn."""
        learnable(draft)

    def ensures(self, draft: Draft) -> None:
        """Nothing beyond what holds of every draft."""

    def run(self, draft: Draft, context: PassContext) -> None:
        """Learn, and put the learned factors in the place of the old.

        Raises:
            ConfigError: there is no factor to learn, or no blocks for the block-wise stage.
            CalibrationError: there are no calibration inputs.

        """
        config, names = self.config, learnable(draft)
        rates = Rates(config.position_rate, config.book_rate, config.scale_rate, config.dense_rate)
        if config.block_steps:
            settings = BlockSettings(config.block_steps, config.batch, rates, config.map_gradient, config.seed)
            learn_blocks(draft, context, names, settings)
        if config.steps:
            student = student_of(draft, context, names, "", config.map_gradient, dense=config.dense_rate > 0)
            self._learn_outputs(student, settled_weights(draft, context, names, ""), rates, context)
            take(draft, context, student, "")

    def _learn_outputs(self, student: Student, settled: dict[str, Tensor], rates: Rates, context: PassContext) -> None:
        divergence = _kullback_leibler if context.kind == "causal-lm" else _relative_square
        stack = self.config.batch if context.device.type == "cuda" else 1
        teacher = context.placed_module
        compressed = Replaceable(teacher)

        def losses(weights: Mapping[str, Tensor], batch: Sequence[int]) -> Iterator[Tensor]:
            """Parts of the mean over the batch."""
            samples = [context.batches[i] for i in batch]
            for inputs in _stacked(samples, stack):
                placed = [tensor.to(context.device) for tensor in inputs]
                with torch.autocast(context.device.type, torch.bfloat16, enabled=context.device.type == "cuda"):
                    with torch.no_grad():
                        target = teacher(*placed)
                    output = compressed(settled | dict(weights), placed)
                yield divergence(first_tensor(output), first_tensor(target)) * (len(placed[0]) / len(samples))

        def backward(weights: Mapping[str, Tensor], batch: Sequence[int]) -> None:
            for loss in losses(weights, batch):
                loss.backward()

        @torch.no_grad()
        def judge(weights: Mapping[str, Tensor]) -> float:
            return sum(float(loss) for loss in losses(weights, held))

        learned, held = hold_back(len(context.batches))
        optimise(
            student,
            rates,
            context.progress(
                sample_order(learned, self.config.batch, self.config.steps, self.config.seed),
                total=self.config.steps,
                label="jlcm, end to end",
                unit="step",
            ),
            steps=self.config.steps,
            backward=backward,
            judge=judge if held else None,
            work=context.work,
        )


def _kullback_leibler(output: Tensor, target: Tensor) -> Tensor:
    """Mean over positions of KL(target || output), of logits `[..., vocabulary]`."""
    log_target = torch.log_softmax(target.float(), dim=-1)
    log_output = torch.log_softmax(output.float(), dim=-1)
    return (log_target.exp() * (log_target - log_output)).sum(dim=-1).mean()


def _relative_square(output: Tensor, target: Tensor) -> Tensor:
    return (output.float() - target.float()).square().mean() / target.float().square().mean().clamp_min(1e-30)


def _stacked(samples: Sequence[Sequence[Tensor]], limit: int) -> Iterator[list[Tensor]]:
    """Samples of equal shapes joined along axis 0, at most `limit` at a time."""
    waiting: list[Sequence[Tensor]] = []
    for sample in sorted(samples, key=lambda sample: [tuple(t.shape) for t in sample]) if limit > 1 else samples:
        if waiting and (len(waiting) == limit or [t.shape for t in sample] != [t.shape for t in waiting[0]]):
            yield [torch.cat(parts) for parts in zip(*waiting, strict=True)]
            waiting = []
        waiting.append(sample)
    yield [torch.cat(parts) for parts in zip(*waiting, strict=True)]
