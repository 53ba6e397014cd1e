"""Modules as people bring them: wrapped, hooked, parametrised, quantised, sparse: right, or refused by what they are."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

import edgecomp
from edgecomp.errors import ExportError, ModelError
from edgecomp.exported.session import OnnxModel
from edgecomp.exporters import export
from edgecomp.tensor import TensorSpec

QUICK = ["passes.0.compute=float", "passes.0.weighting=none", "passes.0.refits=0"]
X = {"x": np.random.default_rng(0).standard_normal((2, 32)).astype(np.float32)}


def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(32, 32)


def two(first: nn.Module | None = None) -> nn.Sequential:
    return nn.Sequential(linear() if first is None else first, linear())


def hooked() -> nn.Module:
    model = two()
    model[0].register_forward_hook(lambda _, __, output: output * 2)
    return model


def hooked_before() -> nn.Module:
    model = two()
    model[0].register_forward_pre_hook(lambda _, inputs: (inputs[0] * 2,))
    return model


def patched() -> nn.Module:
    model = two()
    forward = model[0].forward
    model[0].forward = lambda x: forward(x) * 3
    return model


class Added(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.change = nn.Parameter(torch.randn(32, 32))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.change


def parametrised() -> nn.Module:
    model = two()
    parametrize.register_parametrization(model[0], "weight", Added())
    return model


def pruned() -> nn.Module:
    model = two()
    prune.l1_unstructured(model[0], "weight", 0.5)
    return model


class Mine(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.weight[0]


@pytest.mark.parametrize(
    ("make", "packed", "said"),
    [
        (hooked, ["0.weight_product", "1"], None),
        (hooked_before, ["0.weight_product", "1"], None),
        (patched, ["1"], "hooks, or a forward of their own, .*: 0$"),
        (parametrised, ["0", "1"], None),
        (lambda: two(parametrizations.weight_norm(linear())), ["0", "1"], None),
        (lambda: two(parametrizations.spectral_norm(linear())), ["0", "1"], None),
        (lambda: two(nn.utils.weight_norm(linear())), ["0", "1"], None),
        (lambda: two(nn.utils.spectral_norm(linear())), ["0", "1"], None),
        (pruned, ["0", "1"], None),
        (lambda: two(Mine(32, 32)), ["1"], "layers of the kind Mine are not packed: 0$"),
        (lambda: nn.DataParallel(two()), ["0", "1"], None),
        (lambda: torch.compile(two()), ["0", "1"], None),
    ],
)
def test_what_it_computes_is_kept_and_what_stays_dense_is_said(
    make: Callable[[], nn.Module], packed: list[str], said: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    module = make().eval()
    inner: Any = getattr(module, "_orig_mod", module)
    with torch.no_grad():
        expected = inner(torch.from_numpy(X["x"])).numpy()
    with caplog.at_level(logging.WARNING, "edgecomp"):
        model = edgecomp.compress(module, "lut-8bit", [X], overrides=QUICK)
    notices = [message for message in caplog.messages if "left dense" in message]
    assert len(notices) == (said is not None)
    assert said is None or re.search(said, notices[0])
    assert list(model.plans) == packed
    export(model, "onnx", tmp_path / "m.onnx")
    model.save(tmp_path / "m.ec")
    for run in (model.run, OnnxModel(tmp_path / "m.onnx").run, edgecomp.load(tmp_path / "m.ec", model=make()).run):
        np.testing.assert_allclose(run(X)["output"], expected, atol=0.02 * np.abs(expected).max())


def with_weight(make: Callable[[Tensor], Tensor]) -> nn.Module:
    model = two()
    model[0].weight = nn.Parameter(make(model[0].weight.detach()), requires_grad=False)
    return model


class Held(nn.Module):
    """Has a buffer."""

    def __init__(self, held: Tensor) -> None:
        super().__init__()
        self.linear = linear()
        self.register_buffer("held", held)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


class Subclass(torch.Tensor):
    pass


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.linear, self.head = nn.Embedding(50, 32, max_norm=1.0), linear(), nn.Linear(32, 50, bias=False)
        self.head.weight = self.table.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.linear(self.table(x)))


def quantised() -> nn.Module:
    model = two()
    return torch.ao.quantization.quantize_dynamic(model)


def prepared() -> nn.Module:
    model = two()
    model.train().qconfig = torch.ao.quantization.get_default_qat_qconfig("x86")
    return torch.ao.quantization.prepare_qat(model)


def of_torchao() -> nn.Module:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    model = two()
    quantize_(model, Int8WeightOnlyConfig())
    return model


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "TorchScript": (lambda: torch.jit.script(two()), "the model is a TorchScript module.*give the module that it was made of"),
    "TorchScript inside": (lambda: two(torch.jit.trace(linear(), torch.ones(2, 32))), "^0 is a TorchScript module"),
    "compiled inside": (lambda: two(torch.compile(linear())), r"^0 is compiled.*model\.0 = model\.0\._orig_mod"),
    "max_norm": (Tied, r"^table scales rows.*model\.table\.weight\.renorm_\(2\.0, 0, 1\.0\)`, and `model\.table\.max_norm = None`"),
    "lazy": (lambda: two(nn.LazyLinear(32)), r"^0\.weight has no shape yet.*run the model once"),
    "sparse": (lambda: with_weight(Tensor.to_sparse), r"^0\.weight is sparse \(torch\.sparse_coo\).*to_dense"),
    "sparse rows": (lambda: with_weight(Tensor.to_sparse_csr), r"^0\.weight is sparse \(torch\.sparse_csr\)"),
    "sparse buffer": (lambda: Held(torch.eye(3).to_sparse()), "^held is sparse"),
    "quantised buffer": (
        lambda: Held(torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)),
        "^held is quantised.*dequantize",
    ),
    "float8": (
        lambda: with_weight(lambda weight: weight.to(torch.float8_e4m3fn)),
        r"^0\.weight is float8_e4m3fn.*times its scales",
    ),
    "subclass": (
        lambda: with_weight(lambda weight: weight.as_subclass(Subclass)),
        r"^0\.weight is a .*Subclass, a tensor with rules",
    ),
    "torchao": (of_torchao, r"^0\.weight is a torchao\..*, a tensor with rules"),
    "quantised": (quantised, r"is quantised already \(torch\.ao\..*from before"),
    "prepared": (prepared, r"^0 is of a model prepared for quantisation \(torch\.ao\..*from before"),
    "complex": (
        lambda: nn.Sequential(nn.Linear(32, 32, dtype=torch.complex64)),
        "has none; left dense, since their weights are no floats: 0",
    ),
    "complex buffer": (lambda: Held(torch.ones(3, dtype=torch.complex64)), "^held holds complex numbers"),
    "empty": (lambda: nn.Sequential(nn.Linear(32, 0), nn.Linear(0, 32)), "has none; left dense, since they have no weights: 0, 1"),
    "class": (nn.Identity, r"Identity is a class of them: give Identity\(\.\.\.\)"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_compressed_is_refused_by_what_it_is(case: str) -> None:
    make, message = REFUSED[case]
    model = nn.Identity if case == "class" else make()
    sample = (
        {"x": X["x"].astype(np.complex64)} if case == "complex" else {"x": np.ones((2, 3), np.int64)} if case == "max_norm" else X
    )
    with pytest.raises(ModelError, match=message):
        edgecomp.compress(model, "lut-8bit", [sample], overrides=QUICK)


def test_the_remedies_of_messages_work() -> None:
    """Scaled once, a table gives what it gave, and a tie holds."""
    model, indices = Tied().eval(), torch.arange(50).reshape(2, 25)
    with torch.no_grad():
        model.table.weight.renorm_(2.0, 0, 1.0)
        model.table.max_norm = None
        expected = model(indices).numpy()
    packed = edgecomp.compress(model, "lut-8bit", [{"x": indices.numpy()}], overrides=QUICK)
    assert list(packed.plans) == ["table", "linear", "head"]
    np.testing.assert_allclose(packed.run({"x": indices.numpy()})["output"], expected, atol=0.02 * np.abs(expected).max())


@pytest.mark.filterwarnings("ignore")  # of one process alone
def test_a_sharded_model_is_refused(tmp_path: Path) -> None:
    from torch.distributed.fsdp import FullyShardedDataParallel

    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1
    )
    try:
        model = nn.Sequential(FullyShardedDataParallel(two(), device_id=torch.device("cpu")))
        with pytest.raises(ModelError, match=r"^0 is sharded.*weights gathered"):
            edgecomp.compress(model, "lut-8bit", [X], overrides=QUICK)
    finally:
        torch.distributed.destroy_process_group()


def described() -> tuple[nn.Module, list[TensorSpec]]:
    return two(), [TensorSpec("x", "float32", ("batch", 32))]


def samples() -> Iterator[dict[str, Any]]:
    for value in torch.randn(3, 2, 32, generator=torch.Generator().manual_seed(0)):
        yield {"x": value}


@pytest.mark.parametrize("model", [two, described, described()])
def test_functions_make_models_and_samples(model: Any, tmp_path: Path) -> None:
    packed = edgecomp.compress(model, "lut-8bit", samples, overrides=QUICK)
    assert [spec.dims for spec in packed.inputs] == [("batch", 32)]
    packed.save(tmp_path / "m.ec")
    np.testing.assert_array_equal(edgecomp.load(tmp_path / "m.ec", model=model).run(X)["output"], packed.run(X)["output"])


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    packed = edgecomp.compress(two(), "lut-8bit", [X], overrides=QUICK)
    for given, message in ((7, "got int"), (packed, "not compressed yet"), (lambda: 7, r"must return an nn\.Module.*got int")):
        with pytest.raises(ModelError, match=message):
            edgecomp.compress(given, "lut-8bit", [X])  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="must hold config"):
        edgecomp.compress(tmp_path, "lut-8bit", [X])
    with pytest.raises(ExportError, match=r"must be a compressed model.*got .*Path"):
        edgecomp.export(tmp_path, "onnx", tmp_path / "m.onnx")  # type: ignore[arg-type]


class Partly(nn.Module):
    """No output depends on one of its layers, and an output is called as the input is."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.pooler = linear(), nn.Linear(32, 64)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        self.pooler(x)
        return {"x": self.linear(x)}


def test_what_is_left_out_is_not_counted_and_new_names_are_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "edgecomp"):
        model = edgecomp.compress(Partly(), "lut-8bit", [X], overrides=QUICK)
    assert (model.unused, model.parameters) == (["pooler"], 32 * 32 + 32)
    assert "edgecomp: an input is called so too: the output x is called x_out" in caplog.messages
    assert model.outputs == ("x_out",)
