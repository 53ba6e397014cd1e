"""Layers of other kinds as plain ones: they compute what they did, and every weight belongs to a plain layer."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.utils import _pytree as pytree

from edgecomp.layers import find_layers, left_dense
from edgecomp.unfolding import copied, unfold

Case = tuple[nn.Module, tuple[Any, ...], dict[str, Any]]
PADDINGS: tuple[tuple[int | str, str], ...] = (
    (0, "zeros"), (2, "zeros"), ("same", "zeros"), (1, "reflect"), (2, "circular"), ("same", "replicate")
)  # fmt: skip


def draws(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))


def convolutions() -> Iterator[Case]:
    for kernel, (padding, mode), dilation, groups in itertools.product((1, 4), PADDINGS, (1, 2), (1, 2)):
        settings = {"padding": padding, "padding_mode": mode, "dilation": dilation, "groups": groups}
        stride = 1 if padding == "same" else 2
        yield nn.Conv1d(4, 6, kernel, stride, **settings), (draws(2, 4, 13),), {}
        yield nn.Conv3d(4, 6, kernel, stride, **(settings | {"padding_mode": "zeros"})), (draws(1, 4, 9, 8, 7),), {}
        if mode != "zeros":
            yield nn.Conv2d(4, 6, kernel, stride, **settings), (draws(2, 4, 9, 13),), {}
    yield nn.Conv1d(4, 6, 3, bias=False), (draws(4, 7),), {}


def transposed() -> Iterator[Case]:
    for kernel, stride, padding, dilation, bias in itertools.product((1, 2, 3, 4, 5), (1, 2, 3), (0, 2), (1, 2), (False, True)):
        more = max(stride, dilation) - 1
        if dilation * (kernel - 1) + more >= 2 * padding:
            settings = {"output_padding": more, "bias": bias, "dilation": dilation}
            yield nn.ConvTranspose1d(4, 6, kernel, stride, padding, groups=2, **settings), (draws(2, 4, 7),), {}
    yield nn.ConvTranspose2d(4, 6, (3, 4), (2, 1), (1, 2), (1, 0)), (draws(2, 4, 7, 5),), {}
    for size in ((13, 9), (14, 10)):
        yield nn.ConvTranspose2d(4, 6, 3, 2, 1), (draws(4, 7, 5),), {"output_size": size}


def recurrent() -> Iterator[Case]:
    kinds = (nn.LSTM, nn.GRU, nn.RNN)
    for kind, batch_first, bias, bidirectional in itertools.product(kinds, (False, True), (False, True), (False, True)):
        layer = kind(5, 6, num_layers=2, bias=bias, batch_first=batch_first, bidirectional=bidirectional)
        yield layer, (draws(3, 4, 5),), {}
        yield layer, (draws(4, 5),), {}
    yield nn.LSTM(5, 6, proj_size=3), (draws(3, 4, 5), (draws(1, 4, 3), draws(1, 4, 6))), {}
    yield nn.GRU(5, 6), (draws(3, 5), draws(1, 6)), {}
    yield nn.RNN(5, 6, nonlinearity="relu"), (draws(3, 4, 5),), {}
    for cell in (nn.LSTMCell(5, 6), nn.GRUCell(5, 6, bias=False), nn.RNNCell(5, 6, nonlinearity="relu")):
        yield cell, (draws(3, 5),), {}
        yield cell, (draws(5),), {}


def attention() -> Iterator[Case]:
    padded = torch.tensor([[False] * 5, [False] * 4 + [True]])
    for batch_first, width in itertools.product((False, True), (8, 10)):
        layer = nn.MultiheadAttention(8, 2, batch_first=batch_first, kdim=width, vdim=width)
        query, key = (draws(2, 3, 8), draws(2, 5, width)) if batch_first else (draws(3, 2, 8), draws(5, 2, width))
        for settings in (
            {},
            {"need_weights": False, "key_padding_mask": padded},
            {"average_attn_weights": False, "attn_mask": draws(3, 5), "key_padding_mask": padded.float()},
            {"attn_mask": draws(4, 3, 5) > 1},
        ):
            yield layer, (query, key, key), settings
        yield layer, (draws(3, 8), draws(5, width), draws(5, width)), {"key_padding_mask": padded[1]}
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2, enable_nested_tensor=False)
    yield encoder, (draws(2, 5, 8),), {"src_key_padding_mask": padded}
    yield (
        nn.Transformer(8, 2, 1, 1, 16),
        (draws(5, 2, 8), draws(3, 2, 8)),
        {"tgt_mask": nn.Transformer.generate_square_subsequent_mask(3)},
    )


def bags() -> Iterator[Case]:
    rows = torch.tensor([[1, 2, 3], [2, 2, 2]])
    for mode, padding in itertools.product(("sum", "mean", "max"), (None, 2)):
        yield nn.EmbeddingBag(10, 4, mode=mode, padding_idx=padding), (rows,), {}
    for mode, last in itertools.product(("sum", "mean"), (False, True)):
        layer = nn.EmbeddingBag(10, 4, mode=mode, padding_idx=1, include_last_offset=last)
        yield layer, (torch.arange(7), torch.tensor([0, 3, 3, 7 if last else 5])), {}
    yield nn.EmbeddingBag(10, 4, mode="sum"), (rows,), {"per_sample_weights": draws(2, 3)}


def computed() -> Iterator[Case]:
    """Weights that are computed at each run."""
    pruned = nn.Conv1d(4, 6, 3)
    prune.l1_unstructured(pruned, "weight", 0.5)
    for layer in (
        parametrizations.weight_norm(nn.Conv1d(4, 6, 3)),
        parametrizations.spectral_norm(nn.Conv1d(4, 6, 3)),
        nn.utils.weight_norm(nn.ConvTranspose1d(4, 6, 3)),
        nn.utils.spectral_norm(nn.Conv1d(4, 6, 3)),
        parametrizations.orthogonal(nn.GRU(4, 6, batch_first=True), "weight_hh_l0"),
        pruned,
    ):
        yield layer, (draws(3, 4, 4),), {}


@pytest.mark.filterwarnings("ignore")  # of PyTorch's older functions
@pytest.mark.parametrize("kind", [convolutions, transposed, recurrent, attention, bags, computed])
def test_unfolded_layers_compute_what_they_did(kind: Any) -> None:
    torch.manual_seed(0)
    for layer, inputs, settings in kind():
        model = nn.ModuleDict({"layer": layer}).eval()
        names = list(model.state_dict())
        unfolded = copied(model).eval()
        assert unfold(unfolded)
        with torch.no_grad():
            expected, got = layer(*inputs, **settings), unfolded["layer"](*inputs, **settings)
        for a, b in zip(pytree.tree_leaves(got), pytree.tree_leaves(expected), strict=True):
            torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)
        weights = {id(part.get_parameter("weight")) for part in find_layers(unfolded).values()}
        assert weights >= {id(parameter) for name, parameter in unfolded.named_parameters() if parameter.ndim > 1}
        # Nothing is stored that was not there, and the original is as it was.
        count = sum(parameter.numel() for parameter in layer.parameters() if parameter.ndim > 1)
        computes = parametrize.is_parametrized(layer) or layer._forward_pre_hooks
        assert computes or sum(part.get_parameter("weight").numel() for part in find_layers(unfolded).values()) == count
        assert list(model.state_dict()) == names


def test_a_record_unfolds_another_copy_alike_and_fits_no_other_model() -> None:
    model = nn.Sequential(nn.Conv1d(4, 6, 3), nn.Linear(5, 5))
    first = copied(model)
    record = unfold(first)
    assert record == {"0": "convolution"}
    second = copied(model)
    assert unfold(second, record) == record
    assert first.state_dict().keys() == second.state_dict().keys()
    with pytest.raises(ValueError, match="1 must be a layer of the kind convolution, got Linear"):
        unfold(copied(model), {"1": "convolution"})


def test_modules_at_two_places_stay_one() -> None:
    layer = nn.Conv1d(4, 4, 3)
    model = copied(nn.Sequential(layer, nn.ReLU(), layer))
    unfold(model)
    assert model[0] is model[2]


def test_what_is_not_known_stays_and_says_why() -> None:
    hooked = nn.Conv1d(4, 4, 3)
    hooked.register_forward_hook(lambda *_: None)
    model = nn.Sequential(nn.MultiheadAttention(8, 2, add_zero_attn=True), hooked, nn.ConvTranspose3d(4, 4, 2))
    assert unfold(copied(model)) == {}
    found = {name: why for why, names in left_dense(model).items() for name in names}
    assert list(found) == ["0", "0.out_proj", "1", "2"]
    assert "add_zero_attn" in found["0"]
    assert "hooks" in found["1"]
    assert found["2"] == "layers of the kind ConvTranspose3d are not packed"
