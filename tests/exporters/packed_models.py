"""Small deterministic packed models for the exporter tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from edgecomp.checkpoint import CompressedModel
from edgecomp.formats import lut
from edgecomp.modules import PackedFactor, PackedLayer
from edgecomp.tensor import Compute, ConvParams, Factor, LayerPlan, Stage, TensorSpec


def random_factor(
    n: int, k: int, *, bits: int = 4, block_size: int = 32, books: int = 1, permuted: bool = False, seed: int = 0
) -> Factor:
    """A `lut` factor of random weights of about unit variance over sqrt(k); `permuted` gives it a row_index with padding lanes."""
    rng = np.random.default_rng([seed, n, k, bits])
    tiles = lut.round_up(n, lut.TILE_ROWS) // lut.TILE_ROWS + permuted
    rows = tiles * lut.TILE_ROWS if permuted else n
    wide = lut.storage_bits(bits) == 8
    row_index = None
    if permuted:
        order = rng.permutation(rows)
        row_index = np.where(order < n, order, -1).astype(np.int32)
    return lut.pack(
        rng.integers(-127, 128, (rows, k)) if wide else rng.integers(0, 2**bits, (rows, k)),
        rng.integers(-127, 128, (books, 2**bits)).astype(np.int8),
        rng.integers(-127, 128, (rows, lut.round_up(k, lut.SPAN_COLUMNS) // block_size)).astype(np.int8),
        (rng.uniform(0.5, 1.5, rows) / (5000 * k**0.5)).astype(np.float32),
        bits=bits,
        block_size=block_size,
        tile_book=None if wide else rng.integers(0, books, tiles).astype(np.uint16),
        row_index=row_index,
    )


def plan(*terms: Sequence[Stage], bias: bool = False, compute: Compute = "float") -> LayerPlan:
    """A plan of terms."""
    return LayerPlan(tuple(tuple(term) for term in terms), "bias" if bias else None, compute)


def linear(factor: str = "w") -> Stage:
    """A linear stage."""
    return Stage(factor, "linear")


def gather(factor: str = "w") -> Stage:
    """A gather stage."""
    return Stage(factor, "gather")


def conv(params: ConvParams, factor: str = "w") -> Stage:
    """A convolution stage."""
    return Stage(factor, "conv", params)


def conv_factor(n: int, params: ConvParams, **options: int | bool) -> Factor:
    """A random factor of the kernel of a convolution with `n` output channels."""
    height, width = params.kernel_size
    return random_factor(n, height * width * lut.round_up(params.in_channels // params.groups, 32), **options)  # type: ignore[arg-type]


class Chain(nn.Module):
    """Runs its layers one after the other."""

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(layers)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        for layer in self.layers.values():
            x = layer(x)
        return (x,)


def compressed(
    module: nn.Module, plans: Mapping[str, LayerPlan], factors: Mapping[str, Factor], inputs: Sequence[TensorSpec]
) -> CompressedModel:
    """A compressed model around a module that holds its packed layers already."""
    return CompressedModel(
        module=module.eval(),
        inputs=tuple(inputs),
        outputs=("y",),
        plans=plans,
        factors=factors,
        dense={},
        recipe={"method": "random"},
        parameters=sum(n * k for n, k in (factor.shape for factor in factors.values())),
        layer_parameters={},
        provenance={"source": "test"},
    )


def chain_model(
    plans: Mapping[str, LayerPlan], factors: Mapping[str, Factor], inputs: TensorSpec, compute: Compute = "float"
) -> CompressedModel:
    """A model that runs packed layers one after the other, with random biases where the plans have one."""
    packed = {name: PackedFactor(factor) for name, factor in factors.items()}
    generator = torch.Generator().manual_seed(0)
    layers = {}
    plans = {name: replace(layer_plan, compute=compute) for name, layer_plan in plans.items()}
    for name, layer_plan in plans.items():
        rows = factors[layer_plan.terms[0][-1].factor].shape[0]
        bias = torch.randn(rows, generator=generator) if layer_plan.bias else None
        layers[name] = PackedLayer(layer_plan, packed, bias)
    return compressed(Chain(layers), {f"layers.{name}": layer_plan for name, layer_plan in plans.items()}, factors, [inputs])


def features(k: int, *leading: int | str) -> TensorSpec:
    """A float input `[*leading, k]`, by default `[batch, k]`."""
    return TensorSpec("x", "float32", (*(leading or ("batch",)), k))
