"""Models as people bring them, through both targets: packed, they give what PyTorch gives for the same inputs by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import edgecomp
from edgecomp.calibration import Sample
from edgecomp.checkpoint import CompressedModel, load
from edgecomp.errors import CheckpointError, ExportError
from edgecomp.exported.executorch_session import ExecutorchModel
from edgecomp.exported.session import OnnxModel
from edgecomp.exporters import ExportOptions, export
from edgecomp.models import load_model
from edgecomp.trust import Trust

TRUSTED = Trust(code=True)  # of the programs that tests write themselves


def floats(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def ids(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 50, shape)


class QueryAndKey(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k = nn.Linear(32, 32), nn.Linear(32, 32)

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        return torch.softmax(self.q(query) @ self.k(key).mT, dim=-1) @ key + 2 * query


class Optional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(32, 32)

    def forward(self, x: Tensor, scale: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        y = self.linear(x)
        y = y if scale is None else y * (scale + 7)
        return y if mask is None else y * mask


class Positional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(32, 32)

    def forward(self, *args: Tensor) -> Tensor:
        return self.linear(args[0]) - args[1]


class KeywordOnly(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(32, 32)

    def forward(self, x: Tensor, *, gain: Tensor) -> dict[str, Any]:
        return {"x": x + 1, "y": self.linear(x) * gain, "parts": (x - gain, None, gain * 3)}


@dataclass
class Output:
    logits: Tensor
    hidden: Tensor | None = None


class Positions(nn.Module):
    """Takes 32 tokens at most."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.linear = nn.Embedding(50, 32), nn.Linear(32, 32)
        self.positions = nn.Parameter(torch.randn(32, 32))

    def forward(self, tokens: Tensor) -> Output:
        return Output(self.linear(self.table(tokens) + self.positions[: tokens.shape[1]]))


class Unbatched(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 32)

    def forward(self, wave: Tensor, t: Tensor) -> Tensor:
        return self.linear(wave.reshape(4, 64)).mean(dim=0) * t


class Attributes(nn.Module):
    """Asks its layers for their sizes and dtypes, as many models of transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.linear, self.conv = nn.Embedding(50, 32), nn.Linear(32, 32), nn.Conv2d(32, 32, 3, 2, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.table(tokens % self.table.num_embeddings).to(self.linear.weight.dtype)
        image = self.linear(x).mT.reshape(x.shape[0], self.conv.in_channels, 2, 2)
        return self.conv(image.to(self.conv.weight.device)).sum(dim=(2, 3)) * self.conv.stride[0] + self.linear.out_features


class Attention(nn.Module):
    """Its projection is a parameter that the stock exporter of PyTorch left in columns."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.linear = nn.MultiheadAttention(32, 4, batch_first=True), nn.Linear(32, 32)
        self.columns = nn.Parameter(torch.randn(8, 32).T)
        self.register_buffer("transposed", torch.randn(8, 32).T)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        seen = self.linear(self.attention(x, x, x, need_weights=False)[0])
        return seen @ self.columns, seen @ self.transposed


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(32, 32)

    def forward(self, x: Tensor) -> Tensor:
        x += 1
        x[:, 1:].relu_()
        return self.linear(x)


class Unused(nn.Module):
    """One layer feeds nothing, one is never called, one is read past, and one is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.pooler, self.never, self.read = (nn.Linear(32, 32) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.used(self.used(x))
        torch.tanh(self.pooler(h))
        return h + self.read(x) @ self.read.weight


class UNet(nn.Module):
    """Takes even heights alone."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up, self.head = nn.Conv2d(32, 32, 3, 2, 1), nn.ConvTranspose2d(32, 32, 2, 2), nn.Conv2d(64, 32, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(torch.cat([image, self.up(self.down(image).relu())], dim=1))


class Parts(nn.Module):
    """Splits what has a dynamic first axis, in every way."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(32, 64)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.linear(x).chunk(2, dim=-1)
        c, d = torch.split(a * b, [8, 24], dim=1)
        e, f, g = d.split(8, dim=-1)
        h, i = torch.stack([e, f], dim=1).unbind(dim=1)
        j, k = torch.tensor_split(c + g, 2, dim=-1)
        return (h + i)[:, :4] + j * torch.sigmoid(k) * x.shape[0]


class Integers(nn.Module):
    """Takes int32 indices and a mask of booleans, and returns integers and booleans."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.linear = nn.Embedding(50, 32), nn.Linear(32, 32)

    def forward(self, tokens: Tensor, mask: Tensor) -> dict[str, Tensor]:
        y = self.linear(self.table(tokens)) * mask[..., None]
        return {"y": y, "best": y.argmax(dim=-1), "positive": y > 0.5}


CASES: dict[str, tuple[type[nn.Module], Sequence[Sample], list[Sequence[int | str]]]] = {
    "query and key": (
        QueryAndKey,
        [{"key": floats(2, k, 32), "query": floats(2, q, 32)} for k, q in ((7, 5), (9, 4))],
        [("batch", "query_1", 32), ("batch", "key_1", 32)],
    ),
    "optional": (Optional, [{"mask": floats(2, 32), "x": floats(2, 32)}], [("batch", 32), ("batch", 32)]),
    "positional": (Positional, [{"b": floats(2, 32), "a": floats(2, 32, seed=1)}], [("batch", 32), ("batch", 32)]),
    "keyword-only": (KeywordOnly, [{"gain": np.float32(2), "x": floats(2, 32)}], [("batch", 32), ()]),
    "positions": (Positions, [{"tokens": ids(1, n)} for n in (9, 14, 5, 20)], [("batch", "tokens_1")]),
    "unbatched": (Unbatched, [{"t": np.float32(3), "wave": floats(256)}], [(256,), ()]),
    "attributes": (Attributes, [{"tokens": ids(2, 4)}], [("batch", 4)]),
    "attention": (Attention, [{"x": floats(2, n, 32)} for n in (5, 9)], [("batch", "x_1", 32)]),
    "in place": (InPlace, [{"x": floats(2, 32)}], [("batch", 32)]),
    "unused": (Unused, [{"x": floats(2, 32)}], [("batch", 32)]),
    "parts": (Parts, [{"x": floats(b, 32)} for b in (2, 3)], [("batch", 32)]),
    "integers": (
        Integers,
        [{"mask": np.ones((2, 6), bool), "tokens": ids(2, 6).astype(np.int32)}],
        [("batch", 6), ("batch", 6)],
    ),
    "u-net": (UNet, [{"image": floats(1, 32, n, 16)} for n in (16, 24)], [("batch", 32, "image_2", 16)]),
}


def packed(module: nn.Module | str, samples: Sequence[Sample], **settings: Any) -> CompressedModel:
    return edgecomp.compress(module, "lut-4bit", samples, overrides=["passes.0.compute=float"], **settings)


@contextmanager
def runners(model: CompressedModel, folder: Path) -> Iterator[dict[str, Callable[[Sample], dict[str, np.ndarray]]]]:
    """What runs a model's exports; a process of ExecuTorch takes seconds to start, so that all samples are its."""
    sizes = {dim: model.examples[dim] for spec in model.inputs for dim in spec.dims if isinstance(dim, str)}
    export(model, "onnx", folder / "model.onnx")
    export(model, "executorch", folder / "model.pte", options=ExportOptions(max_sizes=sizes))
    with ExecutorchModel(folder / "model.pte") as program:
        yield {
            "library": OnnxModel(folder / "model.onnx").run,
            "stock": OnnxModel(folder / "model.onnx", "none").run,
            "executorch": program.run,
        }


def assert_same(model: CompressedModel, samples: Sequence[Sample], folder: Path) -> None:
    with runners(model, folder) as running:
        for name, run in running.items():
            for sample in samples:
                expected, got = model.run(sample), run(sample)
                assert got.keys() == expected.keys(), name
                for output, value in expected.items():
                    np.testing.assert_allclose(
                        got[output], value, rtol=1e-4, atol=1e-4 * np.abs(value).max(), err_msg=f"{name} {output}"
                    )


@pytest.mark.parametrize("case", CASES)
def test_packed_in_both_targets(case: str, tmp_path: Path) -> None:
    make, samples, dims = CASES[case]
    torch.manual_seed(0)
    module = make().eval()
    model = packed(module, samples)
    assert [spec.dims for spec in model.inputs] == dims
    assert_same(model, samples, tmp_path)
    # The same through a checkpoint, and near the original: 4 bits, not another binding.
    model.save(tmp_path / "model.ec")
    again = load(tmp_path / "model.ec", model=module)
    for sample in samples:
        original = model_of(module, samples).run(sample)
        for name, value in again.run(sample).items():
            np.testing.assert_array_equal(value, model.run(sample)[name])
            got, expected = value.astype(np.float64), original[name].astype(np.float64)
            assert np.sum(got * expected) > 0.9 * np.linalg.norm(got) * np.linalg.norm(expected)


def model_of(module: nn.Module, samples: Sequence[Sample]) -> Any:
    return edgecomp.models.LoadedModel(module, (), ()).described(samples)


def test_what_is_left_dense_or_out(capsys: pytest.CaptureFixture[str]) -> None:
    model = packed(Unused().eval(), CASES["unused"][1], quiet=False)
    assert list(model.plans) == ["used"]
    assert model.unused == ["never", "pooler"]
    assert {name for name in model.dense if "read" in name} == {"read.weight", "read.bias"}
    assert not [name for name in model.dense if "never" in name or "pooler" in name]
    said = capsys.readouterr().err
    assert "read stays dense, since its weight is read outside of it too: by node matmul (aten.matmul.default) in the model" in said
    assert "left out, since no output depends on them: never, pooler" in said


class Tree(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.conv = nn.Linear(32, 32), nn.Conv2d(32, 32, 3)

    def forward(self, batch: dict[str, Tensor], flag: None = None, *, gain: Tensor) -> dict[str, Any]:
        return {"y": self.linear(batch["x"]) * gain, "z": [self.conv(batch["image"]), batch["x"] + 1]}


def test_a_program_takes_its_inputs_as_it_was_exported(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Tree().eval()
    batch = {"x": torch.from_numpy(floats(2, 32)), "image": torch.from_numpy(floats(1, 32, 5, 5))}
    program = torch.export.export(module, (batch, None), {"gain": torch.tensor(2.0)})
    torch.export.save(program, tmp_path / "model.pt2")
    sample = {"gain": np.float32(3), "batch_image": floats(1, 32, 5, 5), "batch_x": floats(2, 32)}
    original = load_model(str(tmp_path / "model.pt2"), TRUSTED).described([sample])
    with torch.no_grad():
        expected = module(batch, None, gain=torch.tensor(3.0))
    assert original.outputs == ("y", "z", "z_1")
    for name, value in zip(original.outputs, (expected["y"], *expected["z"]), strict=True):
        torch.testing.assert_close(torch.from_numpy(original.run(sample)[name]), value)
    model = packed(str(tmp_path / "model.pt2"), [sample], trust=TRUSTED)
    assert set(model.plans) == {"linear", "conv"}
    assert_same(model, [sample], tmp_path)


def test_sizes_of_a_program_have_names_and_limits(tmp_path: Path) -> None:
    shapes = {"tokens": {0: torch.export.Dim("b"), 1: torch.export.Dim("s", max=32)}}

    class Plain(Positions):
        def forward(self, tokens: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(tokens).logits

    program = torch.export.export(Plain().eval(), (torch.from_numpy(ids(2, 9)),), dynamic_shapes=shapes)
    torch.export.save(program, tmp_path / "model.pt2")
    samples = [{"tokens": ids(2, 9)}, {"tokens": ids(1, 32)}]
    model = packed(str(tmp_path / "model.pt2"), samples, trust=TRUSTED)
    assert [spec.dims for spec in model.inputs] == [("batch", "tokens_1")]
    assert model.limits["tokens_1"] == 32
    assert_same(model, samples, tmp_path)


def test_sizes_beyond_a_limit_are_refused_with_it(tmp_path: Path) -> None:
    model = packed(Positions().eval(), CASES["positions"][1])
    export(model, "onnx", tmp_path / "model.onnx")
    artifact = OnnxModel(tmp_path / "model.onnx")
    assert artifact.session.get_modelmeta().custom_metadata_map["edgecomp.limits"] == '{"tokens_1":32}'
    assert artifact.run({"tokens": ids(1, 32)})["logits"].shape == (1, 32, 32)
    with pytest.raises(edgecomp.errors.ModelError, match="tokens_1 of tokens is 33, and this model takes 32 at most"):
        artifact.run({"tokens": ids(1, 33)})


@pytest.mark.parametrize("limits", ["[]", "{", '{"tokens_1": "many"}', "[" * 100_000])
def test_limits_that_are_none_are_refused(limits: str, tmp_path: Path) -> None:
    tensor = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [tensor("x", 1, ["n"])], [tensor("y", 1, ["n"])]
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    onnx.helper.set_model_props(model, {"edgecomp.limits": limits})
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(CheckpointError, match=r"edgecomp\.limits must be a JSON object of numbers"):
        OnnxModel(tmp_path / "model.onnx")


class Chooses(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.ModuleList([Optional(), Optional()])
        self.inner[1].forward = lambda x: self.inner[0](x) if x.sum() > 0 else x  # type: ignore[method-assign]

    def forward(self, x: Tensor) -> Tensor:
        return self.inner[1](x)


class Counts(nn.Module):
    def __init__(self, *, assigned: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(32, 32)
        self.assigned = assigned
        self.register_buffer("seen", torch.zeros(32))

    def forward(self, x: Tensor) -> Tensor:
        if self.assigned:
            self.seen = self.seen * 0.5 + x.mean(dim=0)
        else:
            self.seen[1:].mul_(0.5).add_(x.mean(dim=0)[1:])
        return self.linear(x) + self.seen


class Last(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(32, 32)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.mT).unsqueeze(-1)


class Cells(nn.Module):
    """A loop in Python over the length."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(32, 32)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[0], 32)
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
        return h


@pytest.mark.parametrize(
    ("make", "samples", "message"),
    [
        (Chooses, [{"x": floats(2, 32)}], r"chooses by values of tensors, in module inner.1.*torch.where"),
        (lambda: Counts(assigned=False), [{"x": floats(2, 32)}], "changes the buffers seen.*take them as inputs"),
        (lambda: Counts(assigned=True), [{"x": floats(2, 32)}], "changes the buffers seen.*take them as inputs"),
        (Cells, [{"x": floats(2, n, 32)} for n in (5, 9)], r"takes x_1 of x for fixed .*`--dim x=batch,NUMBER,32`"),
    ],
)
def test_what_cannot_be_exported_is_refused_before_the_passes(
    make: Callable[[], nn.Module], samples: Sequence[Sample], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgecomp.compression.run_passes", lambda *_: pytest.fail("a pass ran"))
    with pytest.raises(ExportError, match=message):
        packed(make().eval(), samples)


def test_without_the_check_it_is_compressed(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, samples = Counts(assigned=False).eval(), [{"x": floats(2, 32)}]
    model = packed(module, samples, exportable=False)
    assert list(model.plans) == ["linear"]
    assert not module.seen.any()  # the calibration left its traces in a copy
    with pytest.raises(ExportError, match="changes the buffers seen"):
        export(model, "onnx", tmp_path / "model.onnx")


class Volumes(nn.Module):
    """Computes its kernel at each run, so that it is no layer's."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel, self.linear = nn.Parameter(torch.randn(8, 3, 3, 3, 3)), nn.Linear(216, 32)

    def forward(self, volume: Tensor) -> Tensor:
        return self.linear(nn.functional.conv3d(volume, 2 * self.kernel).flatten(2))


def test_convolutions_that_executorch_cannot_run_are_refused(tmp_path: Path) -> None:
    model = packed(Volumes().eval(), [{"volume": floats(1, 3, 8, 8, 8)}])
    with pytest.raises(ExportError, match=r"node conv3d \(aten.conv3d.default\) in the model is over three"):
        export(model, "executorch", tmp_path / "model.pte")


def test_a_convolution_of_dynamic_batch_and_length_runs_in_executorch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv1d(4, 8, 3), nn.ReLU(), nn.Conv1d(8, 32, 3), Last())
    samples = [{"x": floats(batch, 4, length)} for batch, length in ((2, 9), (3, 12))]
    assert_same(packed(module.eval(), samples), samples, tmp_path)
