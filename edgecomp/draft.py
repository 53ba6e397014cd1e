"""The model while passes work on it: its layers, and the plans and factors that take shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from edgecomp.columns import ConvColumns
from edgecomp.errors import FormatError, ModelError
from edgecomp.formats import format_of
from edgecomp.reconstruction import relative_error
from edgecomp.tensor import ConvParams, Factor, LayerPlan, Stage, StageOp
from edgecomp.weights import trim_heap


@dataclass(frozen=True)
class Layer:
    """A layer of the original model that can be compressed.

    Args:
        name: module name.
        op: how it uses its weight.
        factor: name of its weight; layers with a tied weight name the same one.
        parameters: parameters of the weight, without the padding of a convolution's channels.
        inputs: input features or channels; the rows of an embedding.
        outputs: output features or channels.
        conv: geometry of a convolution.
        bias: name of its bias among the model's tensors, or None.

    """

    name: str
    op: StageOp
    factor: str
    parameters: int
    inputs: int
    outputs: int
    conv: ConvParams | None = None
    bias: str | None = None


class Use(NamedTuple):
    """Where a plan uses a factor: layer, position of the term, position of the stage."""

    layer: str
    term: int
    stage: int


@dataclass
class Draft:
    """Plans and factors while passes work on them.

    It starts with one term of one stage per layer, each over the layer's own weight in `matrices`. A pass replaces stages,
    adds terms, and moves factors from `matrices` (`[N, K]`, in the type that the model has them in) to `factors` (packed). The
    matrices are the model's own weights, often mapped from its files: a pass puts another in their place and never changes one in
    place. `tensors` takes what a pass changes among the tensors that stay dense (biases, norms), by name; a layer without a bias
    may get one there, which its plan names `LAYER.bias`. `dense` has the shapes of the model's own, by name.
    """

    layers: Mapping[str, Layer]
    plans: dict[str, LayerPlan]
    matrices: dict[str, Tensor]
    dense: Mapping[str, tuple[int, ...]]
    factors: dict[str, Factor] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    records: dict[str, dict[str, float]] = field(default_factory=dict)  # per factor, what the pass measured
    left: dict[str, str] = field(default_factory=dict)  # per matrix that a pass leaves as it is, why
    _index: tuple[Mapping[str, LayerPlan], Mapping[str, list[Use]]] = field(default=({}, {}), init=False, repr=False, compare=False)

    def uses(self, factor: str) -> list[Use]:
        """Every place where a plan uses the factor."""
        return list(self._uses.get(factor, []))

    @property
    def _uses(self) -> Mapping[str, list[Use]]:
        """The uses of all factors, made anew only where a plan has changed: plans are many, and they are immutable."""
        plans, found = self._index
        if plans != self.plans:
            found = self._indexed()
            self._index = (dict(self.plans), found)
        return found

    def _indexed(self) -> dict[str, list[Use]]:
        found: dict[str, list[Use]] = {}
        for name, plan in self.plans.items():
            for t, term in enumerate(plan.terms):
                for s, stage in enumerate(term):
                    found.setdefault(stage.factor, []).append(Use(name, t, s))
        return found

    def stage(self, use: Use) -> Stage:
        """The stage at a place."""
        return self.plans[use.layer].terms[use.term][use.stage]

    def shape(self, factor: str) -> tuple[int, int]:
        """`(N, K)` of a matrix or a packed factor."""
        if factor in self.factors:
            return self.factors[factor].shape
        n, k = self.matrices[factor].shape
        return n, k

    def columns(self, factor: str) -> ConvColumns | None:
        """The columns of a factor that convolution stages use, by the geometry of these stages; None for all others.

        Raises:
            ModelError: stages that use it see its columns in different ways.

        """
        kinds = {None if stage.conv is None else ConvColumns(stage.conv) for stage in map(self.stage, self.uses(factor))}
        layouts = {None if kind is None else (kind.channels, kind.conv.kernel_size) for kind in kinds}
        if len(layouts) > 1:
            raise ModelError(f"stages that share the factor {factor} must see the same columns, got {sorted(map(str, layouts))}")
        return next(iter(kinds), None)

    def finish(self, factor: str, packed: Factor, record: dict[str, float]) -> None:
        """Take a packed factor in the place of its matrix.

        Args:
            factor: its name.
            packed: what it is packed to.
            record: what the pass measured; `relative_error` is held to the matrix, by other means than the pass's own.

        Raises:
            FormatError: the factor is farther from its matrix than the pass says.

        """
        matrix = self.matrices[factor]
        found, stated = relative_error(packed, matrix, self.columns(factor)), record["relative_error"]
        if not found <= 1.02 * stated + 1e-3:
            raise FormatError(
                f"{factor} must unpack to its matrix within the relative error {stated:.4g} that its pass states, but is off by "
                f"{found:.4g}: this is a fault of the pass; leave the layer out with skip, and please report it"
            )
        self.factors[factor], self.records[factor] = packed, record
        del self.matrices[factor]
        trim_heap()

    def check(self) -> None:
        """Check what holds between any two passes.

        Raises:
            ModelError: a stage names no factor or two, a factor is used by no stage, or a plan does not lead from its layer's
                inputs to its outputs; a dense tensor or a bias is neither the model's nor a plan's new one, or of another shape.

        """
        uses = self._uses
        both = self.matrices.keys() & self.factors.keys()
        lost = uses.keys() - self.matrices.keys() - self.factors.keys()
        idle = (self.matrices.keys() | self.factors.keys()) - uses.keys()
        if both or lost or idle:
            raise ModelError(
                "every factor of a plan must be a matrix or packed, and nothing else may be there; "
                f"both: {sorted(both)}, neither: {sorted(lost)}, unused: {sorted(idle)}"
            )
        known: dict[str, Factor | Tensor] = {**self.matrices, **self.factors}
        for name, plan in self.plans.items():
            layer = self.layers[name]
            if not leads(plan, known, layer):
                raise ModelError(must_lead(plan, known, layer))
        self._check_tensors()

    def _check_tensors(self) -> None:
        shapes = dict(self.dense)
        for name, plan in self.plans.items():
            if plan.bias is None:
                continue
            if plan.bias != f"{name}.bias" or plan.bias not in {*self.dense, *self.tensors}:
                raise ModelError(
                    f"the bias of {name} must be {name}.bias, a tensor of the model or one that a pass adds to the draft's "
                    f"tensors, got {plan.bias}"
                )
            shapes.setdefault(plan.bias, (self.layers[name].outputs,))
        unknown = self.tensors.keys() - shapes.keys()
        if unknown:
            raise ModelError(
                "tensors that a pass changes must be dense ones of the model or the biases of plans, "
                f"but {', '.join(sorted(unknown))} is none: a layer's weight is changed in the draft's matrices"
            )
        for name, tensor in self.tensors.items():
            if tuple(tensor.shape) != shapes[name]:
                raise ModelError(f"{name} must have the shape {list(shapes[name])}, a pass made it {list(tensor.shape)}")


def leads(plan: LayerPlan, factors: Mapping[str, Factor | Tensor], layer: Layer) -> bool:
    """Whether each stage of each chain takes what the one before it gives, the first the layer's inputs, the last its outputs.

    The outputs of convolutions have the layer's height and width too, whatever the inputs'.

    Args:
        plan: the layer's plan.
        factors: what it names, packed or matrices.
        layer: the layer.

    """
    return all(_chain_leads(term, factors, layer) for term in plan.terms)


def must_lead(plan: LayerPlan, factors: Mapping[str, Factor | Tensor], layer: Layer) -> str:
    """What to say of a plan that does not."""
    stages = [
        [(stage.op, tuple(factors[stage.factor].shape), *([] if stage.conv is None else [stage.conv])) for stage in term]
        for term in plan.terms
    ]
    ends = f"{layer.inputs} inputs to {layer.outputs} outputs by {layer.op}"
    sizes = "" if layer.conv is None else f" with the heights and widths of {layer.conv}"
    return f"the plan of {layer.name} must lead from {ends}{sizes}, got {stages}"


def _chain_leads(term: tuple[Stage, ...], factors: Mapping[str, Factor | Tensor], layer: Layer) -> bool:
    width = layer.inputs
    for depth, stage in enumerate(term):
        factor = factors[stage.factor]
        n, k = factor.shape
        if stage.op != ("linear" if depth and layer.op == "gather" else layer.op):
            return False
        takes, gives = (n, k) if stage.op == "gather" else (k, n)
        if stage.conv is not None:
            packed = format_of(factor).conv_columns(stage.conv) if isinstance(factor, Factor) else ConvColumns(stage.conv).count
            takes = stage.conv.in_channels if k == packed and n % stage.conv.groups == 0 else -1
        if takes != width:
            return False
        width = gives
    if layer.conv is not None and _sizes([stage.conv for stage in term if stage.conv is not None]) != _sizes([layer.conv]):
        return False
    return width == layer.outputs


def _sizes(convs: Sequence[ConvParams]) -> list[tuple[int, int]]:
    """`(A, P)` for each axis, by which convolutions in turn give ⌊(S + A) / P⌋ positions for S.

    One gives ⌊(S + p - d (k - 1) - 1) / s⌋ + 1 with padding p, dilation d, kernel k and stride s. ⌊(⌊(S + A) / P⌋ + a) / s⌋ is
    ⌊(S + A + a P) / (P s)⌋, so that chains of equal `(A, P)` agree for all S, and others do not.
    """
    found = []
    for axis in range(2):
        added, stride = 0, 1
        for conv in convs:
            padding = conv.padding[axis] + conv.padding[axis + 2]
            added += (padding - conv.dilation[axis] * (conv.kernel_size[axis] - 1) - 1 + conv.stride[axis]) * stride
            stride *= conv.stride[axis]
        found.append((added, stride))
    return found
