"""Writes the seeds: a few valid inputs of each Python target, from which the fuzzer starts."""

from __future__ import annotations

import gzip
import io
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

TESTS = Path(__file__).parents[1] / "tests"
sys.path += [str(TESTS), str(TESTS / "report"), str(TESTS / "exporters")]

import onnx_models
import packed_models
import test_hostile_records
import tiny_models
from lut_cases import narrow_factor
from torch import Tensor, nn

import edgecomp
from edgecomp.checkpoint import MANIFEST, WEIGHTS
from edgecomp.devices import open_device
from edgecomp.devices.session import Session
from edgecomp.models.bound import Bound, ByName
from edgecomp.modules import PackedFactor, PackedLayer
from edgecomp.ops import CACHES, KV_APPEND, KV_ATTENTION
from edgecomp.recipe import builtin_recipes, load_recipe
from edgecomp.tensor import ConvParams, TensorSpec

CORPUS = Path(__file__).parent / "corpus"


def small() -> nn.Module:
    """A model of one layer; its checkpoint is a seed."""
    return nn.Sequential(nn.Linear(32, 32))


def _write(target: str, name: str, data: bytes) -> None:
    (CORPUS / target).mkdir(parents=True, exist_ok=True)
    (CORPUS / target / name).write_bytes(data)


def _recipes() -> None:
    for name in builtin_recipes():
        recipe = json.dumps(load_recipe(name).to_json())
        _write("recipe", name, b"passes.0.bits=3\njson\n" + recipe.encode())
    layers = '[[passes]]\nmethod = "lut-kmeans"\nskip = ["a*"]\n[[passes.layers]]\nmatch = ["*"]\nops = ["conv"]\nbits = 5\n'
    _write("recipe", "toml", b'name="x"\ntoml\nversion = 1\n' + layers.encode())


def _checkpoints() -> None:
    sample = {"x": np.ones((1, 32), np.float32)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.ec"
        edgecomp.compress("make_corpus:small", "lut-2bit", [sample], overrides=["passes.0.refits=0"]).save(path)
        manifest = json.loads((path / MANIFEST).read_text())
        _write("checkpoint", "small", json.dumps(manifest).encode() + b"\0" + (path / WEIGHTS).read_bytes())


def _calibration() -> None:
    for compressed in (False, True):
        archive = io.BytesIO()
        (np.savez_compressed if compressed else np.savez)(archive, x=np.ones((2, 4), np.float32), y=np.arange(2))
        _write("calibration", f"npz-{compressed}", b"\0" + archive.getvalue())
    array = io.BytesIO()
    np.save(array, np.ones((2, 4), np.float32))
    _write("calibration", "npy", b"\0" + array.getvalue())
    _write("calibration", "text", b"\1" + "zwölf Boxkämpfer\n".encode())
    _write("calibration", "gz", b"\2" + gzip.compress(tiny_models.TEXT.encode(), mtime=0))


def _onnx_files() -> None:
    with tempfile.TemporaryDirectory() as folder:
        ours = onnx_models.save_with_our_node(Path(folder) / "ours.onnx")
        _write("onnx_file", "function", ours.read_bytes())
        encoder = onnx_models.save_encoder(Path(folder) / "m.onnx", np.ones((4, 4), np.float32), external=True)
        _write("onnx_file", "external", encoder.read_bytes())
        plain = onnx.load(onnx_models.save_encoder(Path(folder) / "p.onnx", np.ones((4, 4), np.float32)))
        _write("onnx_file", "plain", plain.SerializeToString())
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(Path(folder) / "m.ort")
        options.add_session_config_entry("session.save_model_format", "ORT")
        onnxruntime.InferenceSession(str(ours), options)
        _write("ort_file", "function", (Path(folder) / "m.ort").read_bytes())


class _Apart(nn.Module):
    """A layer for each operator, on inputs of its own."""

    def __init__(self, layers: dict[str, PackedLayer]) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(layers)

    def forward(self, ids: Tensor, x: Tensor, image: Tensor) -> tuple[Tensor, ...]:
        given = {"table": ids, "linear": x}
        return tuple(layer(given.get(name, image)) for name, layer in self.layers.items())


def _every_operator() -> edgecomp.CompressedModel:
    table = packed_models.random_factor(20, 32, bits=3, permuted=True)
    wide, depthwise = ConvParams(4, (3, 3), padding=(1, 1, 1, 1)), ConvParams(4, (3, 3), padding=(1, 1, 1, 1), groups=4)
    stages = {
        "table": (packed_models.gather("table.w"), table, False),
        "linear": (packed_models.linear("linear.w"), table, True),
        "conv": (packed_models.conv(wide, "conv.w"), packed_models.conv_factor(6, wide, bits=2), True),
        "narrow": (packed_models.conv(depthwise, "narrow.w"), narrow_factor(4, depthwise), True),
    }
    factors = {stage.factor: factor for stage, factor, _ in stages.values()}
    plans = {name: packed_models.plan([stage], bias=biased, compute="int8") for name, (stage, _, biased) in stages.items()}
    layers = {
        name: PackedLayer(
            plans[name],
            {stage.factor: PackedFactor(factor)},
            nn.Parameter(torch.ones(factor.shape[0]), requires_grad=False) if biased else None,
        )
        for name, (stage, factor, biased) in stages.items()
    }
    inputs = [TensorSpec("ids", "int64", (3,)), TensorSpec("x", "float32", (2, 32)), TensorSpec("image", "float32", (1, 4, 5, 5))]
    made = packed_models.compressed(_Apart(layers), {f"layers.{name}": plan for name, plan in plans.items()}, factors, inputs)
    return replace(made, outputs=tuple(stages))


class _Kept(nn.Module):
    """Each operator of attention, of each cache: keys go into a buffer, values behind others that stay as they are."""

    def __init__(self) -> None:
        super().__init__()
        for cache, (dtype, extra) in CACHES.items():
            for kind in ("keys", "values"):
                self.register_buffer(f"{kind}_{cache}", torch.zeros(1, 1, 4, 8 + extra, dtype=getattr(torch, dtype)))
        self.register_buffer("angles", torch.ones(4, 2))

    def forward(self, x: torch.Tensor, before: torch.Tensor, total: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = []
        for cache in CACHES:
            append, attend = (getattr(torch.ops.edgecomp, table[cache].name) for table in (KV_APPEND, KV_ATTENTION))
            buffer = self.get_buffer(f"keys_{cache}")
            keys = append(buffer, x, before, total, self.angles, self.angles, first=16)
            values = append(self.get_buffer(f"values_{cache}"), x, before, total, self.angles, self.angles, first=24)
            turns = {"heads": 2, "head_size": 8, "window": 3, "scale": 0.5, "cap": 9.0}
            found.append(attend(x, keys, values, before, self.angles, self.angles, **turns))
            buffer.copy_(keys)
        return tuple(found)


def _attention() -> edgecomp.CompressedModel:
    inputs = [TensorSpec("x", "float32", (1, 2, 32)), TensorSpec("before", "int32", (1,)), TensorSpec("total", "int32", ())]
    made = packed_models.compressed(_Kept(), {}, {}, inputs)
    return replace(made, module=Bound(_Kept().eval(), ByName(3, ()), keeps=True), outputs=tuple(CACHES))


def _programs() -> None:
    with tempfile.TemporaryDirectory() as folder:
        sample = {"x": np.ones((1, 32), np.float32)}
        model = edgecomp.compress("make_corpus:small", "lut-2bit", [sample], overrides=["passes.0.refits=0"])
        edgecomp.export(model, "executorch", Path(folder) / "m.pte")
        _write("executorch_file", "small", (Path(folder) / "m.pte").read_bytes())
        edgecomp.export(_every_operator(), "executorch", Path(folder) / "operators.pte")
        _write("executorch_file", "operators", (Path(folder) / "operators.pte").read_bytes())
        edgecomp.export(_attention(), "executorch", Path(folder) / "attention.pte")
        _write("executorch_file", "attention", (Path(folder) / "attention.pte").read_bytes())


def _answers() -> None:
    """What the measuring program really says."""
    with tempfile.TemporaryDirectory() as folder, open_device("local") as device:
        model = onnx_models.save_encoder(Path(folder) / "m.onnx", np.ones((4, 4), np.float32))
        ids = Path(folder) / "ids.npy"
        np.save(ids, np.ones((1, 2), np.int64))
        session = Session(device)
        files = [("artifact", model), ("file", model), ("threads", 1)]
        inputs = [("input", f"{name}={ids}") for name in ("input_ids", "attention_mask")]
        sampling = [("warmup", 1), ("min_iterations", 2), ("output_folder", folder)]
        described = session.ask(model, [*files, ("action", "describe")], 30)
        measured = session.ask(model, [*files, *inputs, *sampling], 30)
        for name, answer in (("describe", described), ("measure", measured)):
            answer["machine"]["cpu_features"] = ["avx2"]  # not those of whatever machine makes the seeds
            _write("answer", name, name[:1].encode() + json.dumps(answer).encode())
        _write("answer", "error", b"m" + json.dumps({"error": "ModelError", "message": "no"}).encode())
        events = [
            {"name": "model_run", "ts": 1, "dur": 9},
            {"name": "a_kernel_time", "ts": 2, "dur": 3, "args": {"op_name": "Add"}},
        ]
        _write("answer", "trace", b"t" + json.dumps(events).encode())


def _records() -> None:
    for kind, record in test_hostile_records.RECORDS.items():
        _write("records", kind, kind[:1].encode() + json.dumps(record).encode())


def _configurations() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, save in (("bert", tiny_models.save_bert), ("llama", tiny_models.save_llama)):
            (Path(folder) / name).mkdir()
            path = save(Path(folder) / name)
            parts = [(path / file).read_bytes() for file in ("config.json", "tokenizer_config.json")]
            _write("configuration", name, b"\0".join(parts))
    named = {"model_type": "llama", "attn_implementation": "a/b", "text_config": {"quantization_config": {"quant_method": "c"}}}
    _write("configuration", "names", json.dumps(named).encode() + b'\0{"tokenizer_class": "RagRetriever"}')


def _gguf() -> None:
    import gguf

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_array("tokens", ["a", "b"])
        writer.add_custom_alignment(64)
        writer.add_tensor("t", np.ones((2, 32), np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        _write("gguf", "small", path.read_bytes())


if __name__ == "__main__":
    _recipes()
    _checkpoints()
    _calibration()
    _onnx_files()
    _programs()
    _answers()
    _records()
    _configurations()
    _gguf()
    for operator in range(4):
        _write("attributes", str(operator), bytes([operator]))
        _write("attributes", f"changed-{operator}", bytes([operator, 1, 0, 7, 0, 0, 1, 2, 3, 1, 1, 1]) + bytes(range(40)))
    _write("program", "same", b"")
    _write("program", "changed", bytes([0, 20, 0, 255, 255, 255, 255, 90, 0, 1, 0, 0, 0]))
    _write("program", "operators", bytes([1]))
    _write("factor", "zeros", bytes(64))
    _write("factor", "changes", bytes(range(64, 0, -1)))
    _write("kernels", "fitting", bytes([0b00111010]) + bytes(range(1, 255)))
    _write("kernels", "permuted", bytes([0b00011110]) + bytes(range(255, 1, -1)))
    _write("kernels", "wild", bytes([0b01000001]) + bytes(range(1, 200)))
