"""PyTorch modules that run a layer plan from packed factors: what a compressed model is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from edgecomp import formats, torch_ops  # noqa: F401  (torch_ops registers the operators)
from edgecomp.columns import plan_weight, stage_output
from edgecomp.errors import ModelError
from edgecomp.ops import NAMESPACE, NO_EPILOGUE, STAGE_OPERATORS, Operator
from edgecomp.references.common import activated
from edgecomp.references.common import added as sum_of
from edgecomp.tensor import Compute, Factor, LayerPlan, Stage


class PackedFactor(nn.Module):
    """A factor's arrays as buffers, under their names in the format; layers that share a factor share this module."""

    format: str
    shape: tuple[int, int]
    attributes: dict[str, int]

    def __init__(self, factor: Factor) -> None:
        super().__init__()
        self.format = factor.format
        self.shape = factor.shape
        self.attributes = dict(factor.attributes)
        for name, array in factor.arrays.items():
            # Through one dimension, since numpy gives axes of length 1 a stride of 0, which ExecuTorch does not take.
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(array).reshape(-1).reshape(array.shape)))

    def to_factor(self) -> Factor:
        """The factor that this module holds."""
        arrays = {name: buffer.cpu().numpy() for name, buffer in self.named_buffers()}
        return Factor(self.format, self.shape, self.attributes, arrays)


class PackedLayer(nn.Module):
    """Runs a `LayerPlan`: the sum over its terms of their chains of stages, plus the bias.

    Args:
        plan: the layer's terms.
        factors: the module of each factor that the plan names.
        bias: float32 `[N]`, or None.
        layer: the layer in whose place it stands: it answers for its sizes (`in_features`, `num_embeddings`, `stride`).

    """

    def __init__(
        self, plan: LayerPlan, factors: Mapping[str, PackedFactor], bias: Tensor | None, layer: nn.Module | None = None
    ) -> None:
        super().__init__()
        if layer is not None:
            stand_in(self, layer)
        self._transposed = layer is not None and is_transposed_linear(layer)
        self._scale = float(cast(Tensor, layer.embed_scale)) if layer is not None and is_scaled_embedding(layer) else 1.0
        self.plan = plan
        names = dict.fromkeys(stage.factor for term in plan.terms for stage in term)
        # Module names may hold no dots: factors are numbered in the order of the plan.
        self._slots = {name: index for index, name in enumerate(names)}
        self.factors = nn.ModuleList(factors[name] for name in names)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def forward(self, x: Tensor, addend: Tensor | None = None, activation: str = "none", gated: bool = False) -> Tensor:
        """The layer's output for `x`: features for `linear` and `conv` stages, indices for `gather`.

        The terms of a sum pass it on: the last stage of each gets what the terms before it gave as its `addend`.

        Args:
            x: what the layer is applied to.
            addend: is added to the output, as a residual connection is.
            activation: of the sum, of `edgecomp.ops.ACTIVATIONS`.
            gated: the activation of the first half of the features times the second half, as `lut_matmul` has it.

        """
        if self.plan.terms[0][0].op == "gather" and x.dtype != torch.int64:
            x = x.to(torch.int64)  # nn.Embedding takes int32 too, our operators do not
        total = addend
        for position, term in enumerate(self.plan.terms):
            value = x
            for stage in term[:-1]:
                value = self._run(stage, value, None, None)
            last = position == len(self.plan.terms) - 1
            epilogue: Mapping[str, int | str] = {"activation": activation, "gated": int(gated)} if last else NO_EPILOGUE
            total = self._run(term[-1], value, self.bias if position == 0 else None, total, epilogue)
        assert total is not None  # a plan has a term
        return total if self._scale == 1.0 else total * self._scale

    @property
    def weight(self) -> Tensor:
        """The weight as the layer had it, dequantised at each use: for models that ask for its dtype, device or shape.

        Raises:
            ModelError: a chain of convolutions, which has none.

        """
        return plan_weight(self.plan, self._matrix, self._transposed)

    def _matrix(self, name: str) -> Tensor:
        factor = self.factor(name)
        if torch.compiler.is_exporting():
            # Without values. A graph whose outputs depended on what stands here would be refused (`check_readers`).
            return next(factor.buffers()).new_empty(factor.shape, dtype=torch.float32)
        return torch.from_numpy(formats.unpack(factor.to_factor()))

    def factor(self, name: str) -> PackedFactor:
        """The module of a factor that the plan names."""
        return cast(PackedFactor, self.factors[self._slots[name]])

    def _run(
        self, stage: Stage, x: Tensor, bias: Tensor | None, addend: Tensor | None, epilogue: Mapping[str, int | str] = NO_EPILOGUE
    ) -> Tensor:
        factor = self.factor(stage.factor)
        operator = STAGE_OPERATORS.get((factor.format, stage.op))
        if operator is not None:
            return _call(operator, stage, x, factor, bias, addend, self.plan.compute, epilogue)
        return with_epilogue(_run_dense(stage, x, factor, bias), addend, str(epilogue["activation"]), bool(epilogue["gated"]))


def _call(
    operator: Operator,
    stage: Stage,
    x: Tensor,
    factor: PackedFactor,
    bias: Tensor | None,
    addend: Tensor | None,
    compute: Compute,
    epilogue: Mapping[str, int | str],
) -> Tensor:
    """Call an operator of the table: inputs and attributes are looked up by name, so that the table alone decides them."""
    others = {"bias": bias, "addend": addend}
    inputs = [getattr(factor, declared.name, None) for declared in operator.factor.arrays]
    inputs += [others.pop(declared.name) for declared in operator.inputs_after]
    known: dict[str, object] = {"N": factor.shape[0], "K": factor.shape[1], **factor.attributes}
    known |= {"compute": compute, **epilogue}
    if stage.conv is not None:
        known |= stage.conv.attributes
    attributes = {declared.name: known[declared.name] for declared in operator.attributes}
    y: Tensor = getattr(getattr(torch.ops, NAMESPACE), operator.name)(x, *inputs, **attributes)
    for added in others.values():  # an operator that adds nothing itself
        y = y if added is None else y + added
    left = {name: value for name, value in epilogue.items() if name not in attributes and value != NO_EPILOGUE[name]}
    if left:
        raise ModelError(f"{operator.name} has no epilogue of {', '.join(left)}")
    return y


def with_epilogue(y: Tensor, addend: Tensor | None, activation: str, gated: bool) -> Tensor:
    """What follows a product where no operator of ours does it: see `lut_matmul` in the operator table."""
    z = sum_of(y, addend)
    if not gated:
        return activated(z, activation)
    first, second = z.chunk(2, -1)
    return activated(first, activation) * second


def _run_dense(stage: Stage, x: Tensor, factor: PackedFactor, bias: Tensor | None) -> Tensor:
    if factor.format != "dense":
        raise ModelError(f"no operator runs a {stage.op} stage of format {factor.format!r} (factor {stage.factor})")
    values = cast(Tensor, factor.values)
    if stage.op == "gather":  # what was looked up is widened, not the table
        y = stage_output(stage.op, None, values, x).to(torch.float32)
        return y if bias is None else y + bias
    return stage_output(stage.op, stage.conv, values.to(torch.float32), x, bias)


def is_transposed_linear(module: nn.Module) -> bool:
    """GPT-2's Conv1D: a linear layer whose weight is stored `[K, N]`."""
    return type(module).__name__ == "Conv1D" and type(module).__module__ == "transformers.pytorch_utils"


def is_scaled_embedding(module: nn.Module) -> bool:
    """Gemma's table: an embedding whose rows are multiplied by `embed_scale`."""
    known = type(module).__name__.endswith("TextScaledWordEmbedding") and type(module).__module__.startswith("transformers.models.")
    return known and isinstance(module, nn.Embedding)


def stand_in(module: nn.Module, layer: nn.Module) -> None:
    """Let a module answer for the sizes and settings of the layer in whose place it stands."""
    for name, value in vars(layer).items():
        if not name.startswith("_") and name not in vars(module) and not callable(value):
            setattr(module, name, value)


def take_plain_paths(module: nn.Module) -> None:
    """Have PyTorch's transformer layers run their linear layers, and not the fused path, which reads those layers' weights."""
    for part in module.modules():
        if isinstance(part, nn.TransformerEncoderLayer):
            part.activation_relu_or_gelu = 0  # says that there is no such path


def set_module(root: nn.Module, name: str, module: nn.Module) -> None:
    """Replace the submodule `name` (dotted) of `root`."""
    parent, _, leaf = name.rpartition(".")
    setattr(root.get_submodule(parent), leaf, module)
