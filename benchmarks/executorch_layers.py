"""Makes the programs that executorch_kernels.py times: many layers with weights of their own, ours and those that XNNPACK runs.

    python benchmarks/executorch_layers.py FOLDER [--shapes 8192x2048,1536x576] [--sides 'lut 4/32,8da4w g32']

Apart from the timing, since making takes minutes and wants no quiet machine. Beside each program lie the inputs and what eager
makes of the first layers. Each layer reads an input of its own, so that no side can quantise an input once for all. Needs torchao,
which comes with executorch. Its weight-only configurations are left out on purpose: lowered, they gave wrong results (the scale was
dropped). Scales of 8da4w are bfloat16 in eager too, since XNNPACK stores them so whatever it is given.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from executorch_sides import SHAPES, SIDES, add_selection, bits_of, group_size, selected, weight_bytes
from torch import Tensor, nn

from edgecomp.exporters.to_executorch.lower import CONSTANT_ALIGNMENT, quiet
from edgecomp.formats import lut
from edgecomp.modules import PackedFactor, PackedLayer
from edgecomp.tensor import Factor, LayerPlan, Stage

with quiet():
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config
    from executorch.exir import ExecutorchBackendConfig, to_edge_transform_and_lower
    from torchao.quantization import Int8DynamicActivationIntxWeightConfig, PerGroup, quantize_
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

LEAST_LAYERS, MOST_LAYERS = 4, 24
PROGRAM_BYTES = 24 << 20  # of weights, which the number of layers comes near to
CHECKED = 2  # layers are enough to see what a lowering does to all: eager decodes one of ours in seconds


class Layers(nn.Module):
    """Layers side by side, each on an input of its own."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The layers' outputs."""
        return tuple(layer(x) for layer, x in zip(self.layers, inputs, strict=True))


def save_side(side: str, n: int, k: int, path: Path) -> None:
    """Write the program of a side at one shape as `path`, and its inputs and expected outputs beside."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    count = min(MOST_LAYERS, max(LEAST_LAYERS, PROGRAM_BYTES // weight_bytes(side, n, k)))
    inputs = tuple(torch.from_numpy(rng.standard_normal((1, k)).astype(np.float32)) for _ in range(count))
    with torch.no_grad(), quiet():
        module, expected = _module(side, n, k, inputs, rng)
        program = to_edge_transform_and_lower(
            torch.export.export(module, inputs, strict=False), partitioner=[XnnpackPartitioner()]
        ).to_executorch(ExecutorchBackendConfig(constant_tensor_alignment=CONSTANT_ALIGNMENT))
    np.savez(path.with_suffix(".npz"), inputs=torch.stack(inputs).numpy(), expected=torch.stack(expected).numpy())
    with path.open("wb") as file:
        program.write_to_file(file)


def _module(side: str, n: int, k: int, inputs: tuple[Tensor, ...], rng: np.random.Generator) -> tuple[nn.Module, Sequence[Tensor]]:
    """A side's layers, and the outputs of the first ones."""
    if side.startswith("lut"):
        layers = Layers([_lut_layer(n, k, bits_of(side), group_size(side), rng) for _ in inputs])
    else:
        layers = Layers([nn.Linear(k, n, bias=False) for _ in inputs])
    if side == "int8 dynamic":
        quantised = _int8_dynamic(layers, inputs)
        return quantised, quantised(*inputs)[:CHECKED]
    if side.startswith("8da4w"):
        config = Int8DynamicActivationIntxWeightConfig(
            weight_dtype=torch.int4, weight_granularity=PerGroup(group_size(side)), weight_scale_dtype=torch.bfloat16
        )
        quantize_(layers, config)
    return layers, [layer(x) for layer, x in zip(layers.layers[:CHECKED], inputs, strict=False)]


def _lut_layer(n: int, k: int, bits: int, block_size: int, rng: np.random.Generator) -> PackedLayer:
    """Random codes, one codebook and random scales."""
    sizes = lut.lut_sizes(n, k, bits, block_size)
    arrays = {
        "codes": rng.integers(0, 256, (sizes.tiles, sizes.spans, sizes.planes, 16, 4), dtype=np.uint8),
        "codebooks": np.linspace(-127, 127, 2**bits).round().astype(np.int8)[None],
        "tile_book": np.zeros(sizes.tiles, np.uint16),
        "scales": rng.integers(32, 128, (sizes.tiles, sizes.blocks, 16)).astype(np.int8),
        "row_scale": rng.uniform(0.5, 1, (sizes.tiles, 16)).astype(np.float32),
    }
    factor = Factor("lut", (n, k), {"bits": bits, "block_size": block_size}, arrays)
    return PackedLayer(LayerPlan(((Stage("w", "linear"),),)), {"w": PackedFactor(factor)}, None, "int8")


def _int8_dynamic(module: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True))
    prepared = prepare_pt2e(torch.export.export(module, inputs, strict=False).module(), quantizer)
    prepared(*inputs)
    return convert_pt2e(prepared)


def main() -> None:
    """Make what the arguments ask for and the folder lacks."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add_selection(parser, SHAPES, SIDES)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for n, k, side, path in selected(arguments):
        if not path.exists():
            print(f"{n}x{k} {side}", file=sys.stderr, flush=True)
            save_side(side, n, k, path)


if __name__ == "__main__":
    main()
