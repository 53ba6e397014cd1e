"""What the ONNX exporter writes, and what it refuses."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from packed_models import Chain, chain_model, compressed, conv, conv_factor, features, gather, linear, plan, random_factor
from torch import Tensor, nn

from edgecomp.checkpoint import CompressedModel
from edgecomp.errors import CheckpointError, ExportError, OutputError, RuntimeUnavailableError
from edgecomp.exported.read import read_exported
from edgecomp.exported.session import OnnxModel
from edgecomp.exporters import TARGETS, export
from edgecomp.exporters.to_onnx.save import layout
from edgecomp.inspect.exported import inspect_onnx
from edgecomp.modules import PackedFactor, PackedLayer
from edgecomp.ops import LUT_GATHER, LUT_MATMUL
from edgecomp.tensor import ConvParams, TensorSpec

IDS = TensorSpec("ids", "int64", ("batch", "sequence"))


def tied_model() -> CompressedModel:
    plans = {"table": plan([gather()]), "hidden": plan([linear("h")], bias=True), "head": plan([linear()])}
    return chain_model(plans, {"w": random_factor(200, 64), "h": random_factor(64, 64, bits=3)}, IDS)


def exported(model: CompressedModel, folder: Path) -> onnx.ModelProto:
    path = folder / "model.onnx"
    export(model, "onnx", path)
    return onnx.load(path, load_external_data=False)


def test_every_packed_layer_is_our_node_with_every_attribute(tmp_path: Path) -> None:
    proto = exported(tied_model(), tmp_path)
    assert Counter(node.op_type for node in proto.graph.node) == {"LutGather": 1, "LutMatMul": 2}
    for node in proto.graph.node:
        assert node.domain == "ai.edgecomp"
        operator = LUT_MATMUL if node.op_type == "LutMatMul" else LUT_GATHER
        assert len(node.input) == len(operator.inputs) and all(node.input)
        assert {attribute.name for attribute in node.attribute} == {declared.name for declared in operator.attributes}
    assert {function.name for function in proto.functions} == {"LutGather", "LutMatMul"}
    assert all({(o.domain, o.version) for o in f.opset_import} == {("", 21)} for f in proto.functions)
    assert {(o.domain, o.version) for o in proto.opset_import} == {("", 21), ("ai.edgecomp", 1)}
    assert proto.ir_version <= 10


def test_initializers_are_stored_once_and_packed(tmp_path: Path) -> None:
    model = tied_model()
    proto = exported(model, tmp_path)
    by_type = Counter(onnx.TensorProto.DataType.Name(t.data_type) for t in proto.graph.initializer)
    # Two factors of five arrays (their tile_books differ in length), one bias, and the empty row_index and bias.
    assert by_type == {"UINT8": 2, "INT8": 4, "UINT16": 2, "FLOAT": 4, "INT32": 1}
    packed = sum(factor.packed_bytes for factor in model.factors.values())
    assert sum(onnx.numpy_helper.to_array(t, str(tmp_path)).nbytes for t in proto.graph.initializer) == packed + 64 * 4


def test_equal_tensors_of_different_layers_are_stored_once(tmp_path: Path) -> None:
    factor = random_factor(64, 64)
    model = chain_model({"a": plan([linear("a")]), "b": plan([linear("b")])}, {"a": factor, "b": factor}, features(64))
    proto = exported(model, tmp_path)
    assert sum(t.data_type == onnx.TensorProto.UINT8 for t in proto.graph.initializer) == 1


def test_sizes_and_metadata(tmp_path: Path) -> None:
    proto = exported(tied_model(), tmp_path)
    names = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*proto.graph.input, *proto.graph.output)]
    assert names == [["batch", "sequence"], ["batch", "sequence", 200]]
    assert [v.name for v in (*proto.graph.input, *proto.graph.output)] == ["ids", "y"]
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    assert json.loads(metadata["edgecomp.recipe"]) == {"method": "random"}
    assert json.loads(metadata["edgecomp.inputs"]) == [{"name": "ids", "dtype": "int64", "dims": ["batch", "sequence"]}]
    assert json.loads(metadata["edgecomp.formats"]) == ["lut"]
    assert proto.producer_name == "edgecomp"
    assert b"torch" not in proto.SerializeToString() and b".py" not in proto.SerializeToString()


def test_layout_of_the_data_file(tmp_path: Path) -> None:
    model = chain_model(
        {name: plan([linear(name)], bias=True) for name in "abc"},
        {name: random_factor(160, 160, bits=bits) for name, bits in zip("abc", (3, 4, 5), strict=True)},
        features(160),
    )
    proto = exported(model, tmp_path)
    size = (tmp_path / "model.onnx.data").stat().st_size
    ranges = []
    for tensor in proto.graph.initializer:
        external = {entry.key: entry.value for entry in tensor.external_data}
        length = int(external.get("length", len(tensor.raw_data)))
        assert bool(external) == (length >= 256)
        if external:
            assert external["location"] == "model.onnx.data"
            offset = int(external["offset"])
            assert offset % (4096 if length >= 4096 else 64) == 0
            ranges.append((offset, offset + length))
    ranges.sort()
    assert all(stop <= start for (_, stop), (start, _) in pairwise(ranges))
    assert ranges[-1][1] <= size
    # Three matrices of codes waste less than a page each; everything else lies in the gaps behind them.
    assert size < sum(stop - start for start, stop in ranges) + 3 * 4096


def test_large_tensors_begin_at_64_kib() -> None:
    sizes = (3 << 20, 70000, 5000, (1 << 20) + 1, 300, 4096, 2000)
    placements = layout([ir.tensor(np.zeros(size, np.uint8)) for size in sizes])
    assert sorted(placement.tensor.nbytes for placement in placements) == sorted(sizes)
    for placement in placements:
        size = placement.tensor.nbytes
        assert placement.offset % (65536 if size >= 1 << 20 else 4096 if size >= 4096 else 64) == 0
    ends = [placement.offset + placement.tensor.nbytes for placement in placements]
    assert all(end <= following.offset for end, following in zip(ends, placements[1:], strict=False))
    # The tensors of less than a MiB lie in the gap before the second large one, but for the one that is longer than the gap.
    assert ends[-1] < (3 << 20) + 65536 * 3 + (1 << 20)


def test_data_of_another_export_is_refused(tmp_path: Path) -> None:
    for name, seed in (("first", 0), ("second", 1)):
        (tmp_path / name).mkdir()
        model = chain_model({"fc": plan([linear()])}, {"w": random_factor(64, 64, seed=seed)}, features(64))
        export(model, "onnx", tmp_path / name / "model.onnx")
    first, second = tmp_path / "first", tmp_path / "second"
    OnnxModel(second / "model.onnx").run({"x": np.zeros((1, 64), np.float32)})
    shutil.copy(first / "model.onnx.data", second)
    for read in (read_exported, OnnxModel, inspect_onnx):
        with pytest.raises(CheckpointError, match=r"model\.onnx\.data must be the file that was exported with model\.onnx"):
            read(second / "model.onnx")
    read_exported(first / "model.onnx")


def test_same_model_same_bytes(tmp_path: Path) -> None:
    contents = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        result = export(tied_model(), "onnx", tmp_path / name / "model.onnx")
        assert result.total_bytes == sum(path.stat().st_size for path in result.files)
        contents.append([path.read_bytes() for path in result.files])
    assert contents[0] == contents[1]


def test_checker_accepts_all_operators(tmp_path: Path) -> None:
    params = ConvParams(3, (3, 3), (2, 2), (1, 1, 1, 1))
    image = TensorSpec("x", "float32", ("batch", 3, 20, 20))
    path = tmp_path / "conv.onnx"
    export(chain_model({"conv": plan([conv(params)])}, {"w": conv_factor(8, params)}, image), "onnx", path)
    onnx.checker.check_model(path, full_check=True)


def test_existing_output_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_text("precious")
    with pytest.raises(OutputError, match="exists already"):
        export(tied_model(), "onnx", path)
    assert path.read_text() == "precious"
    export(tied_model(), "onnx", path, overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]


def test_missing_folder_and_unknown_target(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="create it first"):
        export(tied_model(), "onnx", tmp_path / "nowhere" / "model.onnx")
    with pytest.raises(ExportError, match="unknown target 'coreml'; targets: onnx"):
        export(tied_model(), "coreml", tmp_path / "model")


def test_missing_package_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "exporter_of_nothing.py").write_text("import surely_not_installed")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(TARGETS, "nothing", "exporter_of_nothing")
    with pytest.raises(RuntimeUnavailableError, match=r"surely_not_installed.*pip install 'edgecomp\[nothing\]'"):
        export(tied_model(), "nothing", tmp_path / "model")


def test_invalid_model_never_takes_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise onnx.checker.ValidationError("broken")

    monkeypatch.setattr(onnx.checker, "check_model", refuse)
    with pytest.raises(ExportError, match="not valid ONNX: broken"):
        export(tied_model(), "onnx", tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


class _Wrapped(nn.Module):
    """A packed layer in a forward of the test's choice."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = PackedLayer(plan([linear()]), {"w": PackedFactor(random_factor(64, 64))}, None)


class _Branching(_Wrapped):
    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.fc(x) if x.sum() > 0 else x,)


class _Untranslatable(_Wrapped):
    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (torch.linalg.eigvals(self.fc(x)[:, :64].T @ x).real,)


class _Unreached(_Wrapped):
    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (x + 1,)


class _Decompressing(_Wrapped):
    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.fc(x) + self.fc.factor("w").row_scale.sum(),)  # type: ignore[operator]


class _HalfPrecision(_Wrapped):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(64).half()

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.fc(x),)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (_Branching, "must be traceable, but its forward chooses by values.*x \\[3, 64\\]"),
        (_Untranslatable, "no ONNX form.*linalg_eig"),
        (_Unreached, "lut_matmul must run the factor w of fc, and none does"),
        (_Decompressing, "row_scale must be read by operators of edgecomp only"),
        (_HalfPrecision, "float16 at norm.weight"),
    ],
)
def test_failed_export_says_why_and_leaves_nothing(tmp_path: Path, module: type[nn.Module], message: str) -> None:
    model = compressed(module(), {"fc": plan([linear()])}, {"w": random_factor(64, 64)}, [features(64)])
    with pytest.raises(ExportError, match=message) as raised:
        export(model, "onnx", tmp_path / "model.onnx")
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_sizes_that_must_be_equal_need_one_name(tmp_path: Path) -> None:
    class Sum(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor]:
            return (a + b,)

    specs = [TensorSpec("a", "float32", ("n",)), TensorSpec("b", "float32", ("m",))]
    with pytest.raises(ExportError):
        export(compressed(Sum(), {}, {}, specs), "onnx", tmp_path / "model.onnx")


def test_residuals_are_not_fused_with_their_norms(tmp_path: Path) -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(64)

        def forward(self, x: Tensor) -> tuple[Tensor]:
            return (self.norm(x + x.relu()) + x,)

    nodes = exported(compressed(Residual(), {}, {}, [features(64)]), tmp_path).graph.node
    assert [node.op_type for node in nodes] == ["Relu", "Sum", "LayerNormalization", "Add"]


def test_model_without_packed_layers(tmp_path: Path) -> None:
    proto = exported(compressed(Chain({"fc": nn.Linear(4, 2)}), {}, {}, [features(4)]), tmp_path)
    assert not proto.functions
    assert {node.domain for node in proto.graph.node} == {""}
