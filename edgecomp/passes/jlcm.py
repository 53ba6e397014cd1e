"""Method `jlcm`: codebooks, scales and maps of the model's `lut` factors learned together, against the original model.

It takes the factors that `lut-kmeans` made and learns the whole model at once, to give the original's outputs:

    language models:  minimise the mean over positions of KL(original || compressed) of the next-token distributions
    others:           minimise mean((y' - y)²) / mean(y²), y the first output of the original and y' of the compressed model

What is learned of a factor, and by which gradients, is in `edgecomp.passes.learned_lut`. Norms and biases are learned beside them.

Source: E. Yvinec, A. Dapogny, K. Bailly, "Network Memory Footprint Compression Through Jointly Learnable Codebooks and Mappings",
ICLR 2024, arXiv:2309.17361. We deviate: block scales are learned too, rows are not regrouped, and instead of one layer after the
other the whole model is learned against the original's outputs, as in M. Chen et al., "EfficientQAT", 2024, arXiv:2407.11062, its
end-to-end phase.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from edgecomp.config import PassConfig
from edgecomp.draft import Draft
from edgecomp.errors import CalibrationError
from edgecomp.passes.base import PassContext
from edgecomp.passes.learned_lut import MapGradient
from edgecomp.passes.learning import Place, Rates, Replaceable, Student, learnable, optimise


class JlcmConfig(PassConfig):
    """Settings of `jlcm`.

    Args:
        map_gradient: how codes learn: `proximal`, `straight-through`, or `none`, which leaves the map as it was.
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

    def run(self, draft: Draft, context: PassContext) -> None:
        """Learn, and put the learned factors in the place of the old.

        Raises:
            ConfigError: there is no factor to learn.
            CalibrationError: there are no calibration inputs.

        """
        if not context.batches:
            raise CalibrationError("jlcm learns from calibration inputs: pass --calibration FILE (calibration=... in Python)")
        names = learnable(draft)
        module = context.placed_module
        student = _student(draft, context, names, self.config)
        if self.config.steps:
            self._learn_outputs(student, module, context)
        draft.factors |= student.to_factors()
        draft.records |= {name: {"relative_error": error} for name, error in student.relative_errors().items()}
        prefix, parameters = _prefix(context), dict(context.module.named_parameters(remove_duplicate=False))
        for learned_name, tensor in student.dense.items():
            learned = tensor.detach().cpu()
            for name, parameter in parameters.items():
                if parameter is parameters[learned_name]:  # a tensor may have several names
                    draft.tensors[name.removeprefix(prefix)] = learned

    def _learn_outputs(self, student: Student, teacher: nn.Module, context: PassContext) -> None:
        divergence = _kullback_leibler if context.kind == "causal-lm" else _relative_square
        stack = self.config.batch if context.device.type == "cuda" else 1
        compressed = Replaceable(teacher)

        def backward(weights: Mapping[str, Tensor], batch: Sequence[int]) -> None:
            samples = [context.batches[i] for i in batch]
            for inputs in _stacked(samples, stack):
                placed = [tensor.to(context.device) for tensor in inputs]
                with torch.autocast(context.device.type, torch.bfloat16, enabled=context.device.type == "cuda"):
                    with torch.no_grad():
                        target = teacher(*placed)
                    output = compressed(weights, placed)
                loss = divergence(_first(output), _first(target)) * (len(placed[0]) / len(samples))
                loss.backward()

        order = _order(len(context.batches), self.config.batch, self.config.steps, self.config.seed)
        rates = Rates(self.config.position_rate, self.config.book_rate, self.config.scale_rate, self.config.dense_rate)
        batches = context.progress(order, total=self.config.steps, label="jlcm, end to end", unit="step")
        optimise(student, rates, batches, steps=self.config.steps, backward=backward, work=context.work)


def _student(draft: Draft, context: PassContext, names: Sequence[str], config: JlcmConfig) -> Student:
    parameters = {id(parameter): name for name, parameter in context.module.named_parameters()}
    layers = {name: context.modules[draft.uses(name)[0].layer] for name in names}
    places = {name: Place(parameters[id(layer.get_parameter("weight"))], layer) for name, layer in layers.items()}
    dense: dict[str, Tensor] = {}
    if config.dense_rate > 0:
        weights = {id(module.get_parameter("weight")) for module in context.modules.values()}
        dense = {name: tensor for name, tensor in context.module.named_parameters() if id(tensor) not in weights}
    return Student({name: draft.factors[name] for name in names}, places, dense, context.device, config.map_gradient)


def _prefix(context: PassContext) -> str:
    """What comes before the names of the draft's tensors in those of the module that is run."""
    name, layer = next(iter(context.modules.items()))
    whole = next(full for full, module in context.module.named_modules() if module is layer)
    return str(whole).removesuffix(name)


def _first(output: Any) -> Tensor:
    first: Tensor = output[0] if isinstance(output, tuple) else output
    return first


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
    for sample in samples:
        if waiting and (len(waiting) == limit or [t.shape for t in sample] != [t.shape for t in waiting[0]]):
            yield [torch.cat(parts) for parts in zip(*waiting, strict=True)]
            waiting = []
        waiting.append(sample)
    yield [torch.cat(parts) for parts in zip(*waiting, strict=True)]


def _order(samples: int, batch: int, steps: int, seed: int) -> Iterator[list[int]]:
    """The samples of each step: every epoch another order."""
    generator = torch.Generator().manual_seed(seed)
    waiting: list[int] = []
    for _ in range(steps):
        while len(waiting) < batch:
            waiting += torch.randperm(samples, generator=generator).tolist()
        yield waiting[:batch]
        del waiting[:batch]
