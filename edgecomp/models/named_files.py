"""What a file or folder is that is no model to compress, and what to give instead. Nothing is unpickled to tell."""

from __future__ import annotations

import zipfile
from pathlib import Path

_FACTORY = "give package.module:factory, a function that builds the module and loads {} (README.md, Any module)"
_BY_SUFFIX = {
    ".safetensors": "weights without the module that they belong to: give their folder, if that has a config.json, or "
    + _FACTORY.format("them by safetensors.torch.load_file"),
    ".onnx": "an ONNX model, and PyTorch models are compressed: give what it was exported from",
    ".ort": "a model of ONNX Runtime, and PyTorch models are compressed: give what it was exported from",
    ".pte": "a program of ExecuTorch, and PyTorch models are compressed: give what it was exported from",
    ".tflite": "a model of TensorFlow Lite, and PyTorch models are compressed",
    ".h5": "a model or weights of Keras, and PyTorch models are compressed",
    ".keras": "a model of Keras, and PyTorch models are compressed",
    ".pb": "a graph of TensorFlow, and PyTorch models are compressed",
    ".msgpack": "weights of Flax, and PyTorch models are compressed",
}
_PICKLED = "saved by torch.save: pickled weights, or a module whose code is elsewhere: " + _FACTORY.format(
    'them by torch.load("{}", weights_only=True)'
)
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"


def what_is(path: Path) -> str | None:
    """What a path is that holds no model, and the way out; None for what may be one, such as a Hugging Face folder or a hub id."""
    if path.is_dir():
        return _what_folder_is(path)
    if not path.is_file() or path.suffix == ".gguf":
        return None
    if path.suffix in _BY_SUFFIX:
        return _BY_SUFFIX[path.suffix]
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == _ZIP:
        return _what_archive_is(path)
    if magic.startswith(_PICKLE):
        return _PICKLED.format(path.name)
    return "no model of a kind that is read: give a Hugging Face folder, a .gguf file, a .pt2 file, or package.module:factory"


def _what_folder_is(folder: Path) -> str | None:
    if (folder / "config.json").is_file():
        return None
    if (folder / "manifest.json").is_file() and (folder / "weights.safetensors").is_file():
        return "a checkpoint, which is compressed already: edgecomp export makes a model of it"
    weights = sorted(path.name for path in folder.iterdir() if path.suffix in (".safetensors", ".bin", ".pt", ".pth", ".gguf"))
    held = f"only {', '.join(weights[:3])}" if weights else "neither that nor weights"
    return f"no Hugging Face folder: it must hold config.json, and holds {held}"


def _what_archive_is(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]
    except (zipfile.BadZipFile, NotImplementedError):
        return "an archive that is cut short or damaged: copy it again"
    if "constants.pkl" in names or any(name.startswith("code/") for name in names):
        return "a TorchScript program (torch.jit.save), which has no layers to compress any more: " + _FACTORY.format(
            f'the weights, torch.jit.load("{path.name}").state_dict()'
        )
    if any(name.startswith(("models/", "archive_format", "serialized_exported_program")) for name in names):
        return f"a program of torch.export, whose name must end in .pt2: rename it to {path.stem}.pt2"
    if any(name.endswith("data.pkl") for name in names):
        return _PICKLED.format(path.name)
    return (
        "an archive of another kind than models: give a Hugging Face folder, a .gguf file, a .pt2 file, or package.module:factory"
    )
