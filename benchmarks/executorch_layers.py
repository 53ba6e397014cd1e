"""The sides of executorch_kernels.py: programs of many equal layers with weights of their own, ours and those that XNNPACK runs.

Each layer reads an input of its own, so that no side can quantise an input once for all. XNNPACK's weight-only configurations of
torchao are left out on purpose: lowered, they gave wrong results (the scale was dropped).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgecomp.exporters.to_executorch.lower import quiet
from edgecomp.formats import lut
from edgecomp.modules import PackedFactor, PackedLayer
from edgecomp.tensor import Factor, LayerPlan, Stage

with quiet():
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config
    from executorch.exir import ExecutorchBackendConfig, to_edge_transform_and_lower
    from executorch.runtime import Runtime
    from torchao.quantization import Int8DynamicActivationIntxWeightConfig, PerGroup, quantize_
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

COLD_BYTES = 160 << 20  # five times the largest cache of the machines at hand
MOST_COPIES = 400
LARGEST_ERROR = 4e-3  # of a side's result to its own eager result, by norms: XNNPACK rounds the scales of 8da4w to bfloat16


@dataclass(frozen=True)
class Side:
    """A loaded program.

    Args:
        name: such as `8da4w g32`.
        copies: layers of the program.
        weight_bytes: of a layer, as the side counts them: packed codes and scales, or the quantised weights and scales.
        file_bytes: of the program, a layer.
        anonymous_bytes: memory of the process's own that loading and the first run took, a layer: what is repacked and not mapped.
        error: of the first layers' results to eager's.

    """

    name: str
    copies: int
    weight_bytes: int
    file_bytes: int
    anonymous_bytes: int
    error: float
    run: Callable[[], Sequence[Tensor]]

    def run_us(self) -> float:
        """Microseconds a layer, of one run of the program."""
        start = time.perf_counter_ns()
        self.run()
        return (time.perf_counter_ns() - start) / 1e3 / self.copies


class Layers(nn.Module):
    """Layers side by side, each on an input of its own."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The layers' outputs."""
        return tuple(layer(x) for layer, x in zip(self.layers, inputs, strict=True))


def make_side(name: str, n: int, k: int, rng: np.random.Generator) -> Side:
    """The side of that name at one shape: `lut BITS/BLOCK`, `fp32`, `int8 dynamic` or `8da4w gGROUP`."""
    bits, weight_bytes = _weights(name, n, k)
    copies = min(MOST_COPIES, max(2, -(-COLD_BYTES // weight_bytes)))
    inputs = [torch.from_numpy(rng.standard_normal((1, k)).astype(np.float32)) for _ in range(copies)]
    if name.startswith("lut"):
        module = Layers([_lut_layer(n, k, bits, group_size(name), rng) for _ in range(copies)])
    else:
        module = Layers([nn.Linear(k, n, bias=False) for _ in range(copies)])
        if name == "int8 dynamic":
            module = _int8_dynamic(module, inputs)
        elif name.startswith("8da4w"):
            quantize_(
                module,
                Int8DynamicActivationIntxWeightConfig(weight_dtype=torch.int4, weight_granularity=PerGroup(group_size(name))),
            )
    with torch.no_grad(), quiet():
        # Two layers are enough to see what a lowering does to all: eager decodes a layer in seconds.
        expected = (
            [layer(x) for layer, x in zip(module.layers[:2], inputs, strict=False)]
            if isinstance(module, Layers)
            else module(*inputs)[:2]
        )
        program = to_edge_transform_and_lower(
            torch.export.export(module, tuple(inputs), strict=False), partitioner=[XnnpackPartitioner()]
        ).to_executorch(ExecutorchBackendConfig(constant_tensor_alignment=64))
    return _load(name, program, copies, weight_bytes, inputs, expected)


def _weights(name: str, n: int, k: int) -> tuple[int, int]:
    """Bits of a code, and bytes of a layer's weights and scales."""
    if name.startswith("lut"):
        bits, block = (int(part) for part in name.removeprefix("lut ").split("/"))
        return bits, n * k * bits // 8 + n * k // block + 4 * n
    if name.startswith("8da4w"):
        return 4, n * k // 2 + 2 * n * k // group_size(name)  # XNNPACK keeps scales as bfloat16
    return (8, n * k + 4 * n) if name == "int8 dynamic" else (32, 4 * n * k)


def group_size(name: str) -> int:
    """Columns that share a scale, which must divide K; 1 where a row has one scale or none."""
    return int(name.replace("/", " g").split(" g")[-1]) if name.startswith(("lut", "8da4w")) else 1


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


def _int8_dynamic(module: nn.Module, inputs: Sequence[Tensor]) -> nn.Module:
    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True))
    with quiet():
        prepared = prepare_pt2e(torch.export.export(module, tuple(inputs), strict=False).module(), quantizer)
        prepared(*inputs)
        converted: nn.Module = convert_pt2e(prepared)
    return converted


def _load(name: str, program: Any, copies: int, weight_bytes: int, inputs: Sequence[Tensor], expected: Sequence[Tensor]) -> Side:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "layers.pte")
        with path.open("wb") as file:
            program.write_to_file(file)
        file_bytes = path.stat().st_size
        before = _anonymous_bytes()
        method = Runtime.get().load_program(path).load_method("forward")
    assert method is not None
    outputs = method.execute(inputs)
    anonymous = _anonymous_bytes() - before
    error = max(_relative_error(y, reference) for y, reference in zip(outputs[:2], expected, strict=True))
    if not error < LARGEST_ERROR:
        raise SystemExit(f"{name} must be within {LARGEST_ERROR} of eager before it is timed, got {error}")
    return Side(
        name, copies, weight_bytes, file_bytes // copies, max(0, anonymous) // copies, error, lambda: method.execute(inputs)
    )


def _relative_error(y: Tensor, reference: Tensor) -> float:
    return float((y - reference).norm() / reference.norm())


def _anonymous_bytes() -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))
