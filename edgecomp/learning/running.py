"""A draft that runs: the model with each layer computed by its plan, from float matrices, before anything is installed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from edgecomp import formats
from edgecomp.columns import plan_output, plan_weight, stage_output
from edgecomp.context import PassContext
from edgecomp.draft import Draft
from edgecomp.layers import matrix_of
from edgecomp.modules import is_transposed_linear, set_module, stand_in, take_plain_paths
from edgecomp.tensor import LayerPlan, Stage


class RunningDraft:
    """A copy of the model that computes what the draft stands for; the original, whose tensors it shares, stays as it is.

    A layer whose weight no pass has touched stays as it is. Every other one is replaced by the sum of its chains, whatever the
    formats of its factors. A factor's matrix is the one that `holding` was given, else the draft's own, unpacked. Dense tensors
    that the draft has changed take the place of the original's.

    Args:
        draft: the draft; what changes in it later is run too, but for its plans and dense tensors.
        context: the layers of the model, and the device.
        original: the model, or a copy of it.

    """

    def __init__(self, draft: Draft, context: PassContext, original: nn.Module) -> None:
        self._draft = draft
        self._device = context.device
        self._matrices = _Matrices(draft, context.device)
        self._prefix = _prefix(context)
        layers = {name: original.get_submodule(self._prefix + name) for name in draft.plans}
        planned = [name for name, layer in layers.items() if not _untouched(draft, name, layer)]
        memo: dict[int, Any] = {id(layers[name]): nn.Identity() for name in planned}
        changed = {self._prefix + name: tensor for name, tensor in draft.tensors.items()}
        for name, tensor in [*original.named_parameters(), *original.named_buffers()]:
            shared = changed[name].to(self._device) if name in changed else tensor.detach()
            memo[id(tensor)] = nn.Parameter(shared, requires_grad=False) if isinstance(tensor, nn.Parameter) else shared
        biases = {name: self._bias(original, draft.plans[name], memo) for name in planned}
        self._weights = {id(memo[id(layer.get_parameter("weight"))]) for layer in layers.values()}
        self.module: nn.Module = copy.deepcopy(original, memo).eval()
        for name in planned:
            set_module(
                self.module, self._prefix + name, _PlannedLayer(draft.plans[name], biases[name], self._matrices, layers[name])
            )
        take_plain_paths(self.module)

    def _bias(self, original: nn.Module, plan: LayerPlan, memo: Mapping[int, Any]) -> nn.Parameter | None:
        if plan.bias is None:
            return None
        if plan.bias in self._draft.dense:
            own: nn.Parameter = memo[id(original.get_parameter(self._prefix + plan.bias))]
            return own
        return nn.Parameter(self._draft.tensors[plan.bias].to(self._device), requires_grad=False)  # one that a pass has added

    def factors_within(self, root: str, *, without: Collection[str] = ()) -> list[str]:
        """The factors that layers of the submodule `root` use, and none of the submodules `without`, in the order of the plans."""
        found: dict[str, None] = {}
        for name, plan in self._draft.plans.items():
            full = self._prefix + name
            if _is_within(full, root) and not any(_is_within(full, other) for other in without):
                found |= dict.fromkeys(stage.factor for term in plan.terms for stage in term)
        return list(found)

    def dense_within(self, root: str) -> dict[str, nn.Parameter]:
        """The parameters of the submodule `root` that are no compressible layer's weight, by name in the draft."""
        outside = f"{root}." if root else ""
        return {
            (outside + name).removeprefix(self._prefix): parameter
            for name, parameter in self.module.get_submodule(root).named_parameters()
            if id(parameter) not in self._weights and parameter.is_floating_point()
        }

    def parameter(self, name: str) -> nn.Parameter:
        """The parameter of `module` that has this name in the draft."""
        return self.module.get_parameter(self._prefix + name)

    def names_of(self, name: str) -> list[str]:
        """All names in the draft of the parameter that has this one."""
        parameter, found = self.parameter(name), self.module.named_parameters(remove_duplicate=False)
        return [other.removeprefix(self._prefix) for other, same in found if same is parameter]

    @contextmanager
    def holding(self, factors: Collection[str], matrices: Mapping[str, Tensor] | None = None) -> Iterator[None]:
        """Hold matrices of factors, which would be unpacked at each use otherwise.

        Args:
            factors: of these the draft's own.
            matrices: float32 `[N, K]` on the device, such as leaves of autograd; they go before the draft's own.

        """
        held = self._matrices.held
        before, given = dict(held), dict(matrices or {})
        held |= {name: self._matrices.unpacked(name) for name in factors if name not in given and name not in before} | given
        try:
            yield
        finally:
            self._matrices.held = before

    def hold(self, matrices: Mapping[str, Tensor]) -> None:
        """Exchange matrices that are held; within `holding`."""
        self._matrices.held |= matrices


class _Matrices:
    """The factors' float matrices. Layers hold this, not the running draft, which holds them: a circle would outlive its use."""

    def __init__(self, draft: Draft, device: torch.device) -> None:
        self._draft, self._device = draft, device
        self.held: dict[str, Tensor] = {}

    def __call__(self, factor: str) -> Tensor:
        """The matrix that is held, else the draft's own."""
        held = self.held.get(factor)
        return self.unpacked(factor) if held is None else held

    def unpacked(self, factor: str) -> Tensor:
        """The draft's own: float32 `[N, K]` on the device."""
        if factor in self._draft.factors:
            return torch.from_numpy(formats.unpack(self._draft.factors[factor])).to(self._device)
        return self._draft.matrices[factor].detach().to(self._device, torch.float32)


class _PlannedLayer(nn.Module):
    """A layer by its plan, from float matrices."""

    def __init__(self, plan: LayerPlan, bias: nn.Parameter | None, matrix: Callable[[str], Tensor], layer: nn.Module) -> None:
        super().__init__()
        stand_in(self, layer)
        self._transposed = is_transposed_linear(layer)
        self._plan = plan
        self._matrix = matrix
        self.bias = bias

    @property
    def weight(self) -> Tensor:
        return plan_weight(self._plan, self._matrix, self._transposed)

    def forward(self, x: Tensor) -> Tensor:
        return plan_output(self._plan, x, self.bias, self._run)

    def _run(self, stage: Stage, x: Tensor, bias: Tensor | None) -> Tensor:
        return stage_output(stage.op, stage.conv, self._matrix(stage.factor), x, bias)


def _untouched(draft: Draft, name: str, layer: nn.Module) -> bool:
    """Whether the layer is still one stage over its own weight."""
    own = draft.layers[name]
    plan = draft.plans[name]
    matrix = draft.matrices.get(own.factor)
    if matrix is None or plan.bias != own.bias or plan.terms != ((Stage(own.factor, own.op, own.conv),),):
        return False
    weight = matrix_of(layer, layer.get_parameter("weight").detach())
    return torch.equal(matrix.to(weight.device, weight.dtype), weight)


def _is_within(name: str, root: str) -> bool:
    return not root or name == root or name.startswith(f"{root}.")


def _prefix(context: PassContext) -> str:
    """What comes before the names of the draft's layers and tensors in those of the module that is run."""
    name, layer = next(iter(context.modules.items()))
    names = (full for full, module in context.module.named_modules(remove_duplicate=False) if module is layer)
    whole: str = next(full for full in names if full.endswith(name))
    return whole.removesuffix(name)
