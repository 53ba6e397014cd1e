"""Writes the seeds: a few valid inputs of each Python target, from which the fuzzer starts."""

from __future__ import annotations

import gzip
import io
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

sys.path.append(str(Path(__file__).parents[1] / "tests"))

import onnx_models
import tiny_models
from torch import nn

import edgecomp
from edgecomp.checkpoint import MANIFEST, WEIGHTS
from edgecomp.recipe import builtin_recipes, load_recipe

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


def _programs() -> None:
    with tempfile.TemporaryDirectory() as folder:
        sample = {"x": np.ones((1, 32), np.float32)}
        model = edgecomp.compress("make_corpus:small", "lut-2bit", [sample], overrides=["passes.0.refits=0"])
        edgecomp.export(model, "executorch", Path(folder) / "m.pte")
        _write("executorch_file", "small", (Path(folder) / "m.pte").read_bytes())


if __name__ == "__main__":
    _recipes()
    _checkpoints()
    _calibration()
    _onnx_files()
    _programs()
    _write("factor", "zeros", bytes(64))
    _write("factor", "changes", bytes(range(64, 0, -1)))
    _write("kernels", "fitting", bytes([0b00111010]) + bytes(range(1, 255)))
    _write("kernels", "permuted", bytes([0b00011110]) + bytes(range(255, 1, -1)))
    _write("kernels", "wild", bytes([0b01000001]) + bytes(range(1, 200)))
