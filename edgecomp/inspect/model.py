"""Inspects a compressed model, layer by layer: formats, bits, bytes, sharing, and the error that compression left."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from edgecomp.checkpoint_file import Contents, naming_what_is_missing, read_contents
from edgecomp.inspect.result import Inspection, LayerRow
from edgecomp.size import LeftFloat, count_bytes
from edgecomp.tensor import Factor, LayerPlan

if TYPE_CHECKING:
    from edgecomp.checkpoint import CompressedModel

Value = TypeVar("Value")


def inspect_model(model: CompressedModel, name: str, folder: Path | None = None) -> Inspection:
    """Inspect a compressed model.

    Args:
        model: the model; errors come from what its passes recorded in `provenance["factors"]`.
        name: what to call it, such as the file name of the checkpoint.
        folder: the checkpoint, if it is one, whose files are counted too.

    """
    dense = unique_tensors(model.dense)
    arrays = {name: tensor.numpy() for name, tensor in dense.items()}
    return _inspection(
        name,
        model.source,
        model.recipe,
        model.plans,
        model.factors,
        arrays,
        model.parameters,
        model.layer_parameters,
        model.provenance,
        folder,
    )


def inspect_checkpoint(folder: Path) -> Inspection:
    """Inspect a checkpoint by its files; builds no model and needs none.

    Raises:
        CheckpointError: no checkpoint, a file missing or altered, or written by a newer version.
        FormatError: a factor breaks its format's rules.

    """
    return inspect_contents(folder, read_contents(folder))


def inspect_contents(folder: Path, contents: Contents) -> Inspection:
    """Inspect a checkpoint that was read.

    Raises:
        CheckpointError: its manifest lacks an entry.

    """
    manifest = contents.manifest
    with naming_what_is_missing(folder):
        return _inspection(
            folder.name,
            manifest["source"],
            manifest["recipe"],
            contents.plans,
            contents.factors,
            unique_tensors(contents.dense),
            int(manifest["parameters"]),
            {name: int(manifest["layer_parameters"][name]) for name in contents.plans},
            manifest["provenance"],
            folder,
        )


def _inspection(
    name: str,
    source: Mapping[str, Any],
    recipe: Mapping[str, Any],
    plans: Mapping[str, LayerPlan],
    factors: Mapping[str, Factor],
    dense: Mapping[str, np.ndarray],
    parameters: int,
    layer_parameters: Mapping[str, int],
    provenance: Mapping[str, Any],
    folder: Path | None,
) -> Inspection:
    return Inspection(
        name=name,
        source=source.get("model"),
        recipe=dict(recipe),
        layers=inspect_layers(plans, factors, layer_parameters, provenance.get("factors", {})),
        dense_tensors=len(dense),
        dense_bytes=sum(array.nbytes for array in dense.values()),
        size=count_bytes(factors, dense, parameters),
        kept_float32=tuple(name for name, note in provenance.get("dense", {}).items() if note.get("kept")),
        left_float=tuple(map(LeftFloat.from_json, provenance.get("float", {}).get("tensors", ()))),
        file_bytes=None if folder is None else sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
    )


def inspect_layers(
    plans: Mapping[str, LayerPlan],
    factors: Mapping[str, Factor],
    parameters: Mapping[str, int],
    notes: Mapping[str, Mapping[str, Any]],
) -> tuple[LayerRow, ...]:
    """A row for each layer; what layers share is counted in the first, so that the columns add up to the total.

    Args:
        plans: the layers' plans.
        factors: the factors that they name.
        parameters: of each layer's weight; 0 where an earlier layer has the same.
        notes: what passes measured of a factor; its error is the layer's where the layer is that factor alone.

    """
    rows = []
    users: dict[str, list[str]] = {}  # layers by the factor that they use
    for layer, plan in plans.items():
        used = list(dict.fromkeys(stage.factor for term in plan.terms for stage in term))
        packed_bytes = sum(factors[factor].packed_bytes for factor in used if factor not in users)
        shared_with = tuple(dict.fromkeys(user for factor in used for user in users.get(factor, ())))
        rows.append(
            LayerRow(
                name=layer,
                formats=" + ".join(factors[factor].format for factor in used),
                shapes=tuple(factors[factor].shape for factor in used),
                bits=tuple(factors[factor].attributes.get("bits") for factor in used),
                block_size=tuple(factors[factor].attributes.get("block_size") for factor in used),
                parameters=parameters[layer],
                packed_bytes=packed_bytes,
                bits_per_weight=8 * packed_bytes / parameters[layer] if parameters[layer] and not shared_with else None,
                shared_with=shared_with,
                relative_error=notes.get(used[0], {}).get("relative_error") if len(used) == 1 else None,
            )
        )
        for factor in used:
            users.setdefault(factor, []).append(layer)
    return tuple(rows)


def unique_tensors(tensors: Mapping[str, Value]) -> dict[str, Value]:
    """Each tensor once, under its first name."""
    owners: dict[int, str] = {}
    for name, tensor in tensors.items():
        owners.setdefault(id(tensor), name)
    return {name: tensors[name] for name in owners.values()}
