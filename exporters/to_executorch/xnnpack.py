"""What XNNPACK is given of a program: what it says that it takes, less what it then refuses."""

from __future__ import annotations

from executorch.backends.xnnpack.partition.config import ALL_PARTITIONER_CONFIGS
from executorch.backends.xnnpack.partition.config.gemm_configs import ConvolutionConfig
from executorch.backends.xnnpack.partition.config.generic_node_configs import UnsqueezeCopyConfig
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from torch.export import ExportedProgram
from torch.fx import Node


class _Unsqueeze(UnsqueezeCopyConfig):
    def check_constraints(self, node: Node, ep: ExportedProgram) -> bool:
        return _dynamic_sizes(node) <= 1 and bool(super().check_constraints(node, ep))


class _Convolution(ConvolutionConfig):
    def check_constraints(self, node: Node, ep: ExportedProgram) -> bool:
        # Those over one axis become ones over two, by an unsqueeze.
        flat = node.meta["val"].ndim == 3
        return (_dynamic_sizes(node) <= 1 or not flat) and bool(super().check_constraints(node, ep))


def _dynamic_sizes(node: Node) -> int:
    return sum(not isinstance(size, int) for size in node.meta["val"].shape)


def partitioner() -> XnnpackPartitioner:
    """XNNPACK's own, which leaves to ExecuTorch reshapes of two dynamic sizes, and what it would make such reshapes of."""
    mended = {UnsqueezeCopyConfig: _Unsqueeze, ConvolutionConfig: _Convolution}
    return XnnpackPartitioner(configs=[mended.get(config, config) for config in ALL_PARTITIONER_CONFIGS])
