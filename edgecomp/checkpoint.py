"""Compressed models in memory, and on disk as a folder `model.ec`.

| file | contents |
| --- | --- |
| `manifest.json` | plans, factors' formats and shapes, recipe, provenance, and the sha256 of every other file |
| `weights.safetensors` | `factors/<factor>/<array>` and `dense/<tensor>` |
| `model/` | configuration and tokenizer, for models that have them |
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgecomp import formats
from edgecomp.array_file import map_arrays, write_arrays
from edgecomp.assembly import install, require_complete
from edgecomp.bounded import read_json
from edgecomp.errors import CheckpointError, ModelError, OutputError
from edgecomp.files import replace_folder, require_own, require_writable_target
from edgecomp.models import LoadedModel, body_of, build_skeleton
from edgecomp.tensor import Factor, LayerPlan, TensorSpec
from edgecomp.trust import NOBODY, Trust

CHECKPOINT_FORMAT = "edgecomp-checkpoint"
CHECKPOINT_VERSION = 1
MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
ASSETS = "model"


@dataclass(kw_only=True)
class CompressedModel(LoadedModel):
    """A model whose compressed layers run from packed factors: a `LoadedModel` with a packed module, and what it is made of.

    Args:
        plans: the plan of each compressed layer, by module name below `edgecomp.models.body_of(module)`.
        factors: each packed factor once.
        dense: every other tensor by name, in the dtype that it is stored in; names that share a tensor share the object.
        recipe: the resolved recipe, as JSON values.
        parameters: of the original model, a tied matrix once, buffers not counted.
        layer_parameters: of each compressed layer's weight; 0 where an earlier layer has the same weight.
        provenance: versions, calibration, and what the passes measured of each factor.

    """

    plans: Mapping[str, LayerPlan]
    factors: Mapping[str, Factor]
    dense: Mapping[str, Tensor]
    recipe: Mapping[str, Any]
    parameters: int
    layer_parameters: Mapping[str, int]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write the checkpoint folder: aside first, then renamed.

        Raises:
            OutputError: it exists and `overwrite` is not set or it is no checkpoint, or it cannot be written.

        """
        folder = Path(folder)
        require_checkpoint_target(folder, overwrite=overwrite)
        with replace_folder(folder, overwrite=overwrite) as temporary:
            aliases = _write_weights(self, temporary / WEIGHTS)
            if self.assets:
                (temporary / ASSETS).mkdir()
                for asset in self.assets:
                    asset.save_pretrained(temporary / ASSETS)
            manifest = _manifest(self, aliases, temporary)
            (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def require_checkpoint_target(folder: Path, *, overwrite: bool) -> None:
    """Refuse to write a checkpoint over anything but, with `overwrite`, another checkpoint.

    Raises:
        OutputError: with the way out.

    """
    require_writable_target(folder, overwrite=overwrite)
    if not folder.exists():
        return
    try:
        files = _read_manifest(folder, any_version=True).get("files")
    except CheckpointError as error:
        raise OutputError(f"only a checkpoint may be replaced by one, and {folder} is none: give another output") from error
    require_own(folder, {MANIFEST, *(files if isinstance(files, dict) else ())}, "checkpoint")


def _write_weights(model: CompressedModel, path: Path) -> dict[str, str]:
    """Write all tensors; returns, for names that share an earlier name's tensor, that name."""
    arrays = {f"factors/{name}/{key}": array for name, factor in model.factors.items() for key, array in factor.arrays.items()}
    first: dict[int, str] = {}
    aliases: dict[str, str] = {}
    for name, tensor in model.dense.items():
        owner = first.setdefault(id(tensor), name)
        if owner != name:
            aliases[name] = owner
        else:
            arrays[f"dense/{name}"] = tensor.cpu().numpy()
    write_arrays(path, arrays)
    return aliases


def _manifest(model: CompressedModel, aliases: dict[str, str], folder: Path) -> dict[str, Any]:
    return {
        "format": CHECKPOINT_FORMAT,
        "version": CHECKPOINT_VERSION,
        "kind": model.kind,
        "parameters": model.parameters,
        "layer_parameters": dict(model.layer_parameters),
        "inputs": [asdict(spec) for spec in model.inputs],
        "outputs": list(model.outputs),
        "source": dict(model.source),
        "recipe": dict(model.recipe),
        "provenance": dict(model.provenance),
        "plans": {name: plan.to_json() for name, plan in model.plans.items()},
        "factors": {
            name: {"format": factor.format, "shape": list(factor.shape), "attributes": dict(factor.attributes)}
            for name, factor in model.factors.items()
        },
        "aliases": aliases,
        "files": {
            path.relative_to(folder).as_posix(): _sha256(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path != folder / MANIFEST
        },
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Contents:
    """The files of a checkpoint, checked as far as they can be without the model."""

    manifest: Mapping[str, Any]
    inputs: tuple[TensorSpec, ...]
    plans: Mapping[str, LayerPlan]
    factors: Mapping[str, Factor]
    dense: Mapping[str, Tensor]


def load(folder: str | Path, *, model: str | nn.Module | None = None, trust: Trust = NOBODY) -> CompressedModel:
    """The compressed model that `CompressedModel.save` wrote.

    Args:
        folder: the checkpoint.
        model: what was compressed, or what `edgecomp.models.load_model` takes: needed for all but Hugging Face models, of which the
            checkpoint holds the configuration. Its weights do not matter, and a module is left as it is.
        trust: whether code of the model's makers may run, where the model needs it.

    Raises:
        CheckpointError: no checkpoint, a file missing or altered, written by a newer version, or the model is needed.
        FormatError: a factor breaks its format's rules.
        ModelError: the model cannot be built.

    """
    folder = Path(folder)
    contents = read_contents(folder)
    manifest = contents.manifest
    try:
        with _naming_what_is_missing(folder):
            skeleton = build_skeleton(manifest["source"], folder / ASSETS, model, trust)
            require_complete(body_of(skeleton.module), contents.plans, contents.factors, contents.dense)
            install(body_of(skeleton.module), contents.plans, contents.factors, contents.dense)
            return CompressedModel(
                module=skeleton.module.eval(),
                inputs=contents.inputs,
                outputs=tuple(manifest["outputs"]),
                kind=manifest["kind"],
                source=manifest["source"],
                tokenizer=skeleton.tokenizer,
                assets=skeleton.assets,
                plans=contents.plans,
                factors=contents.factors,
                dense=contents.dense,
                recipe=manifest["recipe"],
                parameters=int(manifest["parameters"]),
                layer_parameters={name: int(manifest["layer_parameters"][name]) for name in contents.plans},
                provenance=manifest["provenance"],
            )
    except ModelError as error:
        raise ModelError(f"the model of {folder} cannot be built: {error}") from error


def read_contents(folder: Path) -> Contents:
    """Read and check a checkpoint's files; builds no model and runs nothing that they name.

    Raises:
        CheckpointError: no checkpoint, a file missing or altered, or written by a newer version.
        FormatError: a factor breaks its format's rules.

    """
    manifest = _read_manifest(folder)
    _check_files(folder, manifest)
    with _naming_what_is_missing(folder):
        plans = {name: LayerPlan.from_json(plan) for name, plan in manifest["plans"].items()}
        factors, dense = _read_weights(folder / WEIGHTS, manifest)
        inputs = tuple(TensorSpec(spec["name"], spec["dtype"], tuple(spec["dims"])) for spec in manifest["inputs"])
        return Contents(manifest, inputs, plans, factors, dense)


@contextlib.contextmanager
def _naming_what_is_missing(folder: Path) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CheckpointError(
            f"{folder / MANIFEST} must hold every entry of a checkpoint: {type(error).__name__}: {error}"
        ) from error


def _read_manifest(folder: Path, *, any_version: bool = False) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest = read_json(path)
    except OSError as error:
        raise CheckpointError(
            f"{folder} must be a checkpoint folder written by edgecomp compress, but {path} cannot be read: {error}"
        ) from error
    except ValueError as error:
        raise CheckpointError(f"{path} must be JSON: {error}; the checkpoint is damaged, compress the model again") from error
    if not isinstance(manifest, dict) or manifest.get("format") != CHECKPOINT_FORMAT:
        raise CheckpointError(f"{path} must describe an {CHECKPOINT_FORMAT}")
    version = manifest.get("version")
    if version != CHECKPOINT_VERSION and not any_version:
        raise CheckpointError(
            f"{folder} has checkpoint version {version}, this edgecomp reads {CHECKPOINT_VERSION}: install a matching edgecomp"
        )
    return manifest


def _check_files(folder: Path, manifest: Mapping[str, Any]) -> None:
    files = manifest.get("files")
    if not isinstance(files, dict) or WEIGHTS not in files:
        raise CheckpointError(f"{folder / MANIFEST} must list the checkpoint's files, among them {WEIGHTS}")
    for name, digest in files.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise CheckpointError(f"{folder / MANIFEST} must list files inside the checkpoint, got {name!r}")
        if not path.is_file():
            raise CheckpointError(f"{folder} must hold {name}, but there is no such file: copy the whole checkpoint again")
        if _sha256(path) != digest:
            raise CheckpointError(
                f"{path} must be as it was written, but its sha256 differs: copy the checkpoint again, or compress again"
            )
    surplus = {path.relative_to(folder).as_posix() for path in (folder / ASSETS).rglob("*") if path.is_file()} - set(files)
    if surplus:
        raise CheckpointError(f"{folder / ASSETS} must hold only what was written there, found {sorted(surplus)}: remove them")


def _read_weights(path: Path, manifest: Mapping[str, Any]) -> tuple[dict[str, Factor], dict[str, Tensor]]:
    """Factors, validated, and dense tensors; all of them are pages of the file."""
    arrays: dict[str, dict[str, np.ndarray]] = {name: {} for name in manifest["factors"]}
    dense: dict[str, Tensor] = {}
    try:
        stored = map_arrays(path).arrays
    except OSError as error:
        raise CheckpointError(f"{path} must be a safetensors file: {error}") from error
    for key, value in stored.items():
        section, _, rest = key.partition("/")
        name, _, array = rest.rpartition("/")
        if section == "dense":
            dense[rest] = torch.from_numpy(value)
        elif section == "factors" and name in arrays:
            arrays[name][array] = value
        else:
            raise CheckpointError(f"{path} holds {key}, which the manifest does not know")
    factors = {}
    for name, entry in manifest["factors"].items():
        n, k = entry["shape"]
        factors[name] = Factor(entry["format"], (n, k), entry["attributes"], arrays[name])
        formats.validate(factors[name])
    for name, owner in manifest["aliases"].items():
        if owner not in dense:
            raise CheckpointError(f"the tensor {name} shares {owner}, which the checkpoint does not hold")
        dense[name] = dense[owner]
    return factors, dense
