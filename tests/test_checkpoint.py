"""Checkpoints that are damaged, altered, incomplete or of another version; saving that fails."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from limits import small_files
from safetensors.numpy import load_file, save_file

import edgecomp
from edgecomp.checkpoint import CompressedModel
from edgecomp.checkpoint_file import sealed
from edgecomp.cli import main
from edgecomp.errors import CheckpointError, EdgecompError, FormatError, OutputError
from edgecomp.recipe import load_recipe

MODEL = "tiny_models:tied_tokens"
RECIPE = {"version": 1, "passes": [{"method": "lut-kmeans", "bits": 2, "refits": 0, "weighting": "none"}]}


@pytest.fixture(scope="module")
def model() -> CompressedModel:
    return edgecomp.compress(MODEL, RECIPE, "tiny_models:tokens")


@pytest.fixture(scope="module")
def saved(model: CompressedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "m.ec"
    model.save(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A checkpoint of one's own."""
    return Path(shutil.copytree(saved, tmp_path / "m.ec"))


def test_others_may_read_what_was_saved(saved: Path) -> None:
    assert {path.stat().st_mode & 0o777 for path in saved.rglob("*") if path.is_file()} == {0o644}


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(sealed(manifest))


def edit_weights(folder: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    """Change the weights, and their digest in the manifest."""
    path = folder / "weights.safetensors"
    arrays = load_file(path)
    change(arrays)
    save_file(arrays, path)
    digest = sha256(path.read_bytes()).hexdigest()
    edit_manifest(folder, lambda manifest: manifest["files"].update({path.name: digest}))


def set_entry(*path: str | int, value: Any) -> Callable[[Path], None]:
    """Set one entry of the manifest, or remove it where the value is `...`."""

    def edit(manifest: dict[str, Any]) -> None:
        target: Any = manifest
        for key in path[:-1]:
            target = target[key]
        if value is ...:
            del target[path[-1]]
        else:
            target[path[-1]] = value

    return lambda folder: edit_manifest(folder, edit)


def set_array(name: str, value: np.ndarray | None) -> Callable[[Path], None]:
    """Replace or add an array of the weights, or remove it."""

    def edit(arrays: dict[str, np.ndarray]) -> None:
        arrays.pop(name, None)
        if value is not None:
            arrays[name] = value

    return lambda folder: edit_weights(folder, edit)


def cut(name: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])

    return edit


def cut_and_sign(folder: Path) -> None:
    cut("weights.safetensors")(folder)
    digest = sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    set_entry("files", "weights.safetensors", value=digest)(folder)


def unseal(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["digest"], manifest["identity"]
    (folder / "manifest.json").write_text(json.dumps(manifest))


def add_asset(folder: Path) -> None:
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")


DAMAGES: dict[str, tuple[Callable[[Path], None], type[EdgecompError], str]] = {
    "no folder": (lambda folder: shutil.rmtree(folder), CheckpointError, "must be a checkpoint folder"),
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), CheckpointError, "must be a checkpoint folder"),
    "no weights": (lambda folder: (folder / "weights.safetensors").unlink(), CheckpointError, "must hold weights.safetensors"),
    "manifest cut": (cut("manifest.json"), CheckpointError, "must be JSON"),
    "weights cut": (cut("weights.safetensors"), CheckpointError, "sha256 differs"),
    "weights cut and signed": (cut_and_sign, CheckpointError, "must be a safetensors file"),
    "asset added": (add_asset, CheckpointError, r"model/config\.json"),
    "manifest a list": (lambda folder: (folder / "manifest.json").write_text("[]") and None, CheckpointError, "must describe"),
    "another format": (set_entry("format", value="zip"), CheckpointError, "must describe an edgecomp-checkpoint"),
    "newer version": (set_entry("version", value=2), CheckpointError, "version 2, this edgecomp reads 1"),
    "no version": (set_entry("version", value=...), CheckpointError, "version None"),
    "no seal": (unseal, CheckpointError, "its digest differs"),
    "no files": (set_entry("files", value=...), CheckpointError, "must list the checkpoint's files"),
    "weights not listed": (set_entry("files", value={}), CheckpointError, "among them weights.safetensors"),
    "file outside": (set_entry("files", "../secret", value="0"), CheckpointError, r"inside the checkpoint, got '\.\./secret'"),
    "file at the root": (set_entry("files", "/etc/passwd", value="0"), CheckpointError, "inside the checkpoint"),
    "no plans": (set_entry("plans", value=...), CheckpointError, "KeyError: 'plans'"),
    "plans a list": (set_entry("plans", value=[]), CheckpointError, "must hold every entry"),
    "no recipe": (set_entry("recipe", value=...), CheckpointError, "KeyError: 'recipe'"),
    "unknown compute": (set_entry("plans", "fc", "compute", value="int4"), CheckpointError, "int8 or float, got 'int4'"),
    "no parameters": (set_entry("parameters", value=...), CheckpointError, "KeyError: 'parameters'"),
    "plan with an unknown entry": (set_entry("plans", "fc", "scale", value=3), CheckpointError, "has the entries"),
    "stage with an unknown entry": (set_entry("plans", "fc", "terms", 0, 0, "scale", value=3), CheckpointError, "has the entries"),
    "plan without terms": (set_entry("plans", "fc", "terms", value=[]), CheckpointError, "at least one term"),
    "plan of no layer": (
        set_entry("plans", "fc2", value={"terms": [[]], "bias": None, "compute": "int8"}),
        CheckpointError,
        "term",
    ),
    "unknown factor": (
        set_entry("plans", "fc", "terms", 0, 0, "factor", value="gone"),
        CheckpointError,
        r"fc needs the factors \['gone'\]",
    ),
    "another model's factor": (
        set_entry("plans", "fc", "terms", 0, 0, "factor", value="table.weight"),
        CheckpointError,
        "fc must lead from 64 inputs",
    ),
    "unknown format": (set_entry("factors", "fc.weight", "format", value="zip"), FormatError, "lut, lut_narrow, dense, got 'zip'"),
    "another shape": (set_entry("factors", "fc.weight", "shape", value=[63, 64]), CheckpointError, "fc must lead from 64 inputs"),
    "another number of tiles": (set_entry("factors", "fc.weight", "shape", value=[99, 64]), FormatError, "codes"),
    "shape of one size": (set_entry("factors", "fc.weight", "shape", value=[64]), CheckpointError, "ValueError"),
    "shape in words": (set_entry("factors", "fc.weight", "shape", value=["64", "64"]), CheckpointError, "TypeError"),
    "bits 9": (set_entry("factors", "fc.weight", "attributes", "bits", value=9), FormatError, "bits must be 1 to 8"),
    "bits 3": (set_entry("factors", "fc.weight", "attributes", "bits", value=3), FormatError, "bits=3"),
    "factor not listed": (set_entry("factors", "fc.weight", value=...), CheckpointError, "which the manifest does not know"),
    "alias of nothing": (set_entry("aliases", "a", value="b"), CheckpointError, "shares b"),
    "missing bias": (set_array("dense/fc.bias", None), CheckpointError, r"lacks fc\.bias"),
    "bias of another shape": (
        set_array("dense/fc.bias", np.zeros(63, np.float16)),
        CheckpointError,
        r"fc\.bias must have the shape \[64\]",
    ),
    "missing array": (set_array("factors/fc.weight/scales", None), FormatError, "scales"),
    "surplus array": (set_array("factors/fc.weight/extra", np.zeros(1, np.float32)), FormatError, "extra"),
    "surplus tensor": (set_array("dense/fc.extra", np.zeros(1, np.float32)), CheckpointError, r"no tensor fc\.extra"),
    "surplus section": (set_array("sparse/fc", np.zeros(1, np.float32)), CheckpointError, "sparse/fc"),
    "row_scale NaN": (
        set_array("factors/fc.weight/row_scale", np.full((4, 16), np.nan, np.float32)),
        FormatError,
        "row_scale must be finite",
    ),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_damaged_checkpoints_are_refused_with_what_is_wrong(what: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage, error, message = DAMAGES[what]
    damage(folder)
    with pytest.raises(error, match=message):
        edgecomp.load(folder, model=MODEL)
    assert main(["inspect", str(folder), "--model", MODEL]) == error.exit_code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("edgecomp inspect: error: ")
    assert "Traceback" not in printed.err


def test_files_beside_the_listed_ones_do_no_harm(folder: Path) -> None:
    (folder / "README.md").write_text("mine")
    edgecomp.load(folder, model=MODEL)


def test_a_link_out_of_the_folder_is_no_file_of_the_checkpoint(folder: Path, tmp_path: Path) -> None:
    weights = folder / "weights.safetensors"
    weights.rename(tmp_path / "elsewhere")
    weights.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="inside the checkpoint"):
        edgecomp.load(folder, model=MODEL)


def test_a_checkpoint_in_the_hubs_cache_is_links_and_checked_by_what_they_lead_to(saved: Path, tmp_path: Path) -> None:
    folder, blobs = tmp_path / "snapshots" / "revision" / "m.ec", tmp_path / "blobs"
    folder.mkdir(parents=True)
    blobs.mkdir()
    for path in saved.iterdir():
        shutil.copy(path, blobs / f"{path.name}-digest")
        (folder / path.name).symlink_to(blobs / f"{path.name}-digest")
    edgecomp.load(folder, model=MODEL)
    (blobs / "weights.safetensors-digest").write_bytes(b"other")
    with pytest.raises(CheckpointError, match="sha256 differs"):
        edgecomp.load(folder, model=MODEL)


def test_the_recipe_of_a_checkpoint_is_a_recipe(saved: Path) -> None:
    assert load_recipe(edgecomp.load(saved, model=MODEL).recipe) == load_recipe(RECIPE)


def test_the_checkpoint_holds_what_was_compressed(saved: Path, model: CompressedModel) -> None:
    loaded = edgecomp.load(saved, model=MODEL)
    assert loaded.factors.keys() == model.factors.keys()
    for name, factor in model.factors.items():
        assert (loaded.factors[name].shape, loaded.factors[name].attributes) == (factor.shape, factor.attributes)
        assert all(np.array_equal(loaded.factors[name].arrays[key], array) for key, array in factor.arrays.items())
    assert all(torch.equal(loaded.dense[name], tensor) for name, tensor in model.dense.items())


def state_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_existing_output_is_kept_unless_it_may_be_replaced(folder: Path, model: CompressedModel) -> None:
    (folder / "mine").write_text("mine")
    before = state_of(folder.parent)
    with pytest.raises(OutputError, match="exists already"):
        model.save(folder)
    with pytest.raises(OutputError, match="nothing else to be replaced, found mine"):
        model.save(folder, overwrite=True)
    assert state_of(folder.parent) == before
    (folder / "mine").unlink()
    model.save(folder, overwrite=True)
    assert state_of(folder.parent) == {name: data for name, data in before.items() if not name.endswith("mine")}


class FullDisk:
    """An asset that cannot be written to its end."""

    def save_pretrained(self, folder: Path) -> None:
        (folder / "config.json").write_text("{")
        raise OSError(28, "No space left on device")


def test_a_save_that_fails_leaves_the_old_checkpoint_and_no_trace(folder: Path, model: CompressedModel) -> None:
    failing = CompressedModel(**{**vars(model), "assets": (FullDisk(),)})
    before = state_of(folder.parent)
    for target in (folder, folder.parent / "new.ec"):
        with pytest.raises(OutputError, match="No space left on device; nothing was changed"):
            failing.save(target, overwrite=True)
        assert state_of(folder.parent) == before
    assert [path.name for path in folder.parent.iterdir()] == ["m.ec"]


def test_weights_that_cannot_be_written_leave_no_trace(tmp_path: Path, model: CompressedModel) -> None:
    with pytest.raises(OutputError, match="nothing was changed"), small_files():
        model.save(tmp_path / "m.ec")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, model: CompressedModel) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="folder of an output must exist"):
        model.save(tmp_path / "file" / "m.ec")


def test_a_checkpoint_runs_no_code_that_it_names(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "harmful.py").write_text("from pathlib import Path\nPath('harm').touch()\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    set_entry("source", "model", value="harmful:f")(folder)
    with pytest.raises(CheckpointError, match=r"weights of a factory \(harmful:f\), not its code.*--model"):
        edgecomp.load(folder)
    assert not (tmp_path / "harm").exists()


def test_assets_of_a_hugging_face_model_are_checked_too(tmp_path: Path, bert_folder: str) -> None:
    edgecomp.compress(bert_folder, RECIPE).save(tmp_path / "m.ec")
    config = tmp_path / "m.ec" / "model" / "config.json"
    config.write_text(config.read_text().replace('"hidden_size": 64', '"hidden_size": 32'))
    with pytest.raises(CheckpointError, match=r"config\.json must be as it was written"):
        edgecomp.load(tmp_path / "m.ec")
    digest = sha256(config.read_bytes()).hexdigest()
    set_entry("files", "model/config.json", value=digest)(tmp_path / "m.ec")
    with pytest.raises(CheckpointError, match="must lead from"):
        edgecomp.load(tmp_path / "m.ec")


def test_only_a_checkpoint_is_replaced(model: CompressedModel, tmp_path: Path) -> None:
    folder = tmp_path / "photographs"
    folder.mkdir()
    (folder / "one.jpg").write_bytes(b"dear")
    with pytest.raises(OutputError, match="only a checkpoint may be replaced"):
        model.save(folder, overwrite=True)
    assert (folder / "one.jpg").read_bytes() == b"dear"
