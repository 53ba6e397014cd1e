"""A checkpoint folder on disk (layout: `edgecomp.checkpoint`), read and checked without PyTorch and without the model."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from edgecomp import formats
from edgecomp.array_file import map_arrays
from edgecomp.bounded import LARGEST_JSON_BYTES, read_bytes, read_json
from edgecomp.errors import CheckpointError
from edgecomp.files import outside
from edgecomp.tensor import Factor, LayerPlan, TensorSpec

CHECKPOINT_FORMAT = "edgecomp-checkpoint"
CHECKPOINT_VERSION = 1
MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
ASSETS = "model"
DIGEST = "digest"
_UNSEALED = "0" * 64


@dataclass(frozen=True)
class Contents:
    """The files of a checkpoint, checked as far as they can be without the model; tensors that share one are one array."""

    manifest: Mapping[str, Any]
    inputs: tuple[TensorSpec, ...]
    plans: Mapping[str, LayerPlan]
    factors: Mapping[str, Factor]
    dense: Mapping[str, np.ndarray]


def sha256_of(path: Path) -> str:
    """SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_contents(folder: Path) -> Contents:
    """Read and check a checkpoint's files; builds no model and runs nothing that they name.

    Raises:
        CheckpointError: no checkpoint, a file missing or altered, or written by a newer version.
        FormatError: a factor breaks its format's rules.

    """
    manifest = read_manifest(folder)
    _check_files(folder, manifest)
    with naming_what_is_missing(folder):
        plans = {name: LayerPlan.from_json(plan) for name, plan in manifest["plans"].items()}
        factors, dense = _read_weights(folder / WEIGHTS, manifest)
        inputs = tuple(TensorSpec(spec["name"], spec["dtype"], tuple(spec["dims"])) for spec in manifest["inputs"])
        _check_seal(folder, manifest)
        return Contents(manifest, inputs, plans, factors, dense)


def sealed(manifest: Mapping[str, Any]) -> str:
    """A manifest's text, in which `digest` is of the text itself with zeros in its place: any other bit in it is noticed."""
    text = json.dumps({**manifest, DIGEST: _UNSEALED}, indent=1) + "\n"
    return text.replace(_UNSEALED, hashlib.sha256(text.encode()).hexdigest())


def _check_seal(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Last of all, since other checks say what is wrong."""
    text = read_bytes(folder / MANIFEST, LARGEST_JSON_BYTES)
    digest = str(manifest.get(DIGEST, "none"))
    if hashlib.sha256(text.replace(digest.encode(), _UNSEALED.encode())).hexdigest() != digest:
        raise CheckpointError(
            f"{folder / MANIFEST} must be as it was written, but its digest differs: copy the checkpoint again, or compress again"
        )


@contextlib.contextmanager
def naming_what_is_missing(folder: Path) -> Iterator[None]:
    """Entries of the manifest that the block does not find, or that are of another type, are a CheckpointError."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CheckpointError(
            f"{folder / MANIFEST} must hold every entry of a checkpoint: {type(error).__name__}: {error}"
        ) from error


def read_manifest(folder: Path, *, any_version: bool = False) -> dict[str, Any]:
    """A checkpoint's manifest.

    Args:
        folder: the checkpoint.
        any_version: also of a version that this edgecomp does not read.

    Raises:
        CheckpointError: there is none, or it is damaged.

    """
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
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or outside(path, folder):
            raise CheckpointError(f"{folder / MANIFEST} must list files inside the checkpoint, got {name!r}")
        if not path.is_file():
            raise CheckpointError(f"{folder} must hold {name}, but there is no such file: copy the whole checkpoint again")
        if sha256_of(path) != digest:
            raise CheckpointError(
                f"{path} must be as it was written, but its sha256 differs: copy the checkpoint again, or compress again"
            )
    surplus = {path.relative_to(folder).as_posix() for path in (folder / ASSETS).rglob("*") if path.is_file()} - set(files)
    if surplus:
        raise CheckpointError(f"{folder / ASSETS} must hold only what was written there, found {sorted(surplus)}: remove them")


def _read_weights(path: Path, manifest: Mapping[str, Any]) -> tuple[dict[str, Factor], dict[str, np.ndarray]]:
    """Factors, validated, and dense tensors as arrays; all of them are pages of the file."""
    arrays: dict[str, dict[str, np.ndarray]] = {name: {} for name in manifest["factors"]}
    dense: dict[str, np.ndarray] = {}
    try:
        stored = map_arrays(path).arrays
    except OSError as error:
        raise CheckpointError(f"{path} must be a safetensors file: {error}") from error
    for key, value in stored.items():
        section, _, rest = key.partition("/")
        name, _, array = rest.rpartition("/")
        if section == "dense":
            dense[rest] = value
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
