"""Methods that are none of the package's: a shared basis with a loss of its own, a sum of two terms, a chain of convolutions.

`SharedBasis` and `margin` are what DESIGN.md "Adding things" asks for to add a method and a loss: this file in the place of
`edgecomp/passes/shared_basis.py`, and a line of `PASSES`, which the tests put there; for the loss nothing but its function.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from edgecomp.columns import ConvColumns
from edgecomp.config import PassConfig, fits_any
from edgecomp.context import Batch, PassContext
from edgecomp.draft import Draft
from edgecomp.errors import ConfigError
from edgecomp.learning.objectives import Objective
from edgecomp.tensor import ConvParams, LayerPlan, Stage
from edgecomp.walk import first_tensor


class SharedBasisConfig(PassConfig):
    """Settings of `shared-basis`: patterns of the layers, and rows of the basis."""

    method: Literal["shared-basis"] = "shared-basis"
    match: list[str] = Field(min_length=2)
    rank: int = Field(ge=1)


class SharedBasis:
    """Linear layers W_i [N_i, K] of one width K become C_i B, with B [rank, K] shared: the best for all of them together."""

    Config: ClassVar[type[PassConfig]] = SharedBasisConfig

    def __init__(self, config: SharedBasisConfig) -> None:
        self.config = config

    def prepare(self, draft: Draft, context: PassContext) -> None:
        """Refuse layers of different widths."""
        if len({draft.layers[name].inputs for name in self._layers(draft)}) != 1:
            raise ConfigError("layers that share a basis must have one width")

    def requires(self, draft: Draft) -> None:
        """Refuse layers that a pass before has packed."""
        if any(draft.layers[name].factor not in draft.matrices for name in self._layers(draft)):
            raise ConfigError("shared-basis must come before the passes that pack")

    def run(self, draft: Draft, context: PassContext) -> None:
        """Divide the stacked matrices by their singular values."""
        names = self._layers(draft)
        matrices = [draft.matrices.pop(draft.layers[name].factor) for name in names]
        u, s, v = torch.linalg.svd(torch.cat(matrices), full_matrices=False)
        rank = self.config.rank
        draft.matrices["basis"] = v[:rank].contiguous()
        for name, part in zip(names, (u[:, :rank] * s[:rank]).split([len(matrix) for matrix in matrices]), strict=True):
            draft.matrices[f"{name}.coefficients"] = part.contiguous()
            plan = ((Stage("basis", "linear"), Stage(f"{name}.coefficients", "linear")),)
            draft.plans[name] = LayerPlan(plan, draft.layers[name].bias)

    def ensures(self, draft: Draft) -> None:
        """Every layer has its two stages."""
        assert all(len(draft.plans[name].terms[0]) == 2 for name in self._layers(draft))

    def _layers(self, draft: Draft) -> list[str]:
        return [name for name, layer in draft.layers.items() if layer.op == "linear" and fits_any(name, self.config.match)]


class Margin(Objective):
    """How far the original's best class is from leading by 1."""

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        """The mean over rows of relu(1 + the highest other score - the score of the original's class)."""
        with torch.no_grad():
            best = self.context.placed_module(*batch.inputs).argmax(dim=-1, keepdim=True)
        scores = module(*batch.inputs)
        return (1 + scores.scatter(-1, best, -torch.inf).amax(dim=-1) - scores.gather(-1, best)[..., 0]).relu().mean()


def margin(context: PassContext) -> Objective:
    """For `objective = "toy_methods:margin"`."""
    return Margin(context)


class Second(Objective):
    """Samples of its own, and a judge that is no loss."""

    @property
    def batches(self) -> Sequence[Batch]:
        generator = torch.Generator().manual_seed(0)
        return [Batch(f"drawn {i}", [torch.randn(8, 32, generator=generator)]) for i in range(16)]

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        with torch.no_grad():
            target = self.context.placed_module(*batch.inputs)[1]
        return (module(*batch.inputs)[1] - target).square().mean()

    def judge(self, module: nn.Module, batch: Batch) -> float:
        assert not torch.is_grad_enabled() and int(batch.name.split()[1]) in (4, 12)
        return float(self.loss(module, batch)) ** 0.5


class Constant(Objective):
    """Does not depend on the model."""

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        return batch.inputs[0].sum()


def of_second(context: PassContext) -> Objective:
    """An objective with samples of its own."""
    return Second(context)


def constant(context: PassContext) -> Objective:
    """An objective that depends on nothing."""
    return Constant(context)


def broken(context: PassContext) -> Objective:
    """No objective."""
    raise RuntimeError("no such data")


def number(context: PassContext) -> int:
    """No objective either."""
    return len(context.samples)


class SumsConfig(PassConfig):
    """Settings of `sums`: the layer that becomes a sum of two terms, and the convolution that becomes a chain of three."""

    method: Literal["sums"] = "sums"
    summed: str
    chained: str
    rank: int = Field(ge=1)


class Sums:
    """A matrix as the sum of two, each of every other singular value; a 3x3 convolution as 1x1, depthwise, 1x1."""

    Config: ClassVar[type[PassConfig]] = SumsConfig

    def __init__(self, config: SumsConfig) -> None:
        self.config = config

    def prepare(self, draft: Draft, context: PassContext) -> None:
        """Nothing can be wrong."""

    def requires(self, draft: Draft) -> None:
        """It comes first."""

    def ensures(self, draft: Draft) -> None:
        """Nothing more."""

    def run(self, draft: Draft, context: PassContext) -> None:
        """Replace both layers."""
        summed, chained = draft.layers[self.config.summed], draft.layers[self.config.chained]
        matrix = draft.matrices.pop(summed.factor)
        u, s, v = torch.linalg.svd(matrix, full_matrices=False)
        draft.matrices["even"] = (u[:, ::2] * s[::2]) @ v[::2]
        draft.matrices["odd"] = matrix - draft.matrices["even"]
        draft.plans[summed.name] = LayerPlan(((Stage("even", "linear"),), (Stage("odd", "linear"),)), summed.bias)

        conv, rank = chained.conv, self.config.rank
        assert conv is not None
        kernel = ConvColumns(conv).kernel(draft.matrices.pop(chained.factor)).flatten(2)  # [N, C, taps]
        last, first, taps = _rank_one_sums(kernel, rank)
        wide = ConvParams(rank, conv.kernel_size, conv.stride, conv.padding, conv.dilation, groups=rank)
        stages = {"first": ConvParams(conv.in_channels, (1, 1)), "depthwise": wide, "last": ConvParams(rank, (1, 1))}
        kernels = {
            "first": first.T[..., None, None],
            "depthwise": taps.T.reshape(rank, 1, *conv.kernel_size),
            "last": last[..., None, None],
        }
        for name, params in stages.items():
            draft.matrices[name] = ConvColumns(params).matrix(kernels[name]).contiguous()
        chain = tuple(Stage(name, "conv", params) for name, params in stages.items())
        draft.plans[chained.name] = LayerPlan((chain,), chained.bias)


def _rank_one_sums(tensor: Tensor, rank: int) -> list[Tensor]:
    """A [N, R], B [C, R], D [T, R], their products over r summed about the tensor [N, C, T]: by alternating least squares."""
    generator = torch.Generator().manual_seed(0)
    factors = [torch.randn(size, rank, generator=generator) for size in tensor.shape]
    for _ in range(30):
        for axis in range(3):
            one, two = (factors[other] for other in range(3) if other != axis)
            product = (one[:, None] * two[None]).flatten(0, 1)
            factors[axis] = torch.linalg.lstsq(product, tensor.movedim(axis, 0).flatten(1).T).solution.T
    return factors


class Steep(Objective):
    """Finite, with a slope that is not: a square root at 0."""

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        return (first_tensor(module(*batch.inputs)) * 0).square().mean().sqrt()


def steep(context: PassContext) -> Objective:
    """An objective without gradients that can be used."""
    return Steep(context)
