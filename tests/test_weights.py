"""Weights come for a call and go after it, whatever happens in between."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgecomp.weights import materialised, streamed


class Tied(nn.Module):
    """An embedding whose weight is also the head's, a buffer of floats, and one of integers."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(8, 4)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 8, bias=False)
        self.head.weight = self.table.weight
        self.seen: list[torch.dtype] = []

    def forward(self, ids: Tensor) -> Tensor:
        self.seen += [self.table.weight.dtype]
        y: Tensor = self.head(self.norm(self.table(ids)))
        return y


def tied(dtype: torch.dtype) -> Tied:
    torch.manual_seed(0)
    return Tied().eval().to(dtype)


def state_of(module: nn.Module) -> list[tuple[str, int, int, torch.dtype]]:
    tensors = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    return [(name, id(tensor), tensor.data_ptr(), tensor.dtype) for name, tensor in tensors]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_are_float32_inside_and_the_same_objects_as_before_outside(dtype: torch.dtype) -> None:
    module, ids = tied(dtype), torch.arange(8)
    before = state_of(module)
    expected = tied(dtype).float()(ids)
    with materialised(module):
        assert {tensor.dtype for tensor in module.parameters()} == {torch.float32}
        assert module.norm.running_mean.dtype == torch.float32
        assert module.norm.num_batches_tracked.dtype == torch.int64
        assert module.head.weight is module.table.weight
        with materialised(module), streamed(module):
            assert torch.equal(module(ids), expected)
        assert module.table.weight.dtype == torch.float32
    assert state_of(module) == before


def test_weights_go_where_a_block_raises() -> None:
    module = tied(torch.float16)
    before = state_of(module)
    with pytest.raises(KeyError), materialised(module):
        raise KeyError
    assert state_of(module) == before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_streamed_model_has_one_layer_in_float32_at_a_time(dtype: torch.dtype) -> None:
    module, ids = tied(dtype), torch.arange(8)
    before = state_of(module)
    inside: list[list[torch.dtype]] = []
    for part in (module.table, module.norm, module.head):
        part.register_forward_hook(
            lambda part, *_: inside.append([part.weight.dtype, module.norm.weight.dtype, module.table.weight.dtype])
        )
    with streamed(module):
        y = module(ids)
    assert torch.equal(y, tied(dtype).float()(ids))
    assert module.seen == [dtype]
    f32 = torch.float32
    assert inside == [[f32, dtype, f32], [f32, f32, dtype], [f32, dtype, f32]]
    assert state_of(module) == before
    assert not module.table._forward_pre_hooks


class Raising(nn.Linear):
    error: type[BaseException] = RuntimeError

    def forward(self, x: Tensor) -> Tensor:
        raise self.error


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_streamed_model_lets_go_where_a_layer_raises(error: type[BaseException]) -> None:
    module = nn.Sequential(nn.Linear(4, 4), Raising(4, 4)).half()
    module[1].error = error
    before = state_of(module)
    with pytest.raises(error), streamed(module):
        module(torch.ones(4))
    assert state_of(module) == before


def test_a_hook_that_stops_the_run_leaves_the_outer_layers_in_order() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4))).half()
    before = state_of(module)

    def stop(*_: object) -> None:
        raise LookupError

    module[1][0].register_forward_pre_hook(stop)
    with streamed(module):
        with pytest.raises(LookupError):
            module(torch.ones(4))
        assert state_of(module) == before


@pytest.mark.parametrize("kind", ["attention", "encoder"])
def test_modules_of_pytorch_that_read_their_submodules_weights_run(kind: str) -> None:
    torch.manual_seed(0)
    module = nn.MultiheadAttention(8, 2) if kind == "attention" else nn.TransformerEncoderLayer(8, 2, 16)
    module = module.eval().half()
    x = torch.randn(3, 1, 8)
    inputs = (x, x, x) if kind == "attention" else (x,)
    before = state_of(module)
    with torch.no_grad(), streamed(module):
        y = module(*inputs)
    with torch.no_grad(), materialised(module):
        expected = module(*inputs)
    first, second = (y[0], expected[0]) if kind == "attention" else (y, expected)
    assert torch.equal(first, second)
    assert state_of(module) == before


def test_a_float32_model_gets_no_hooks() -> None:
    module = tied(torch.float32)
    with streamed(module):
        assert not any(part._forward_pre_hooks or part._forward_hooks for part in module.modules())
