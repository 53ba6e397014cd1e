"""Two checkpoints, or two exported models, beside each other: what is another in the second."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgecomp.bounded import parse_json
from edgecomp.checkpoint_file import MANIFEST, Contents, read_contents
from edgecomp.errors import CheckpointError, ModelError
from edgecomp.exported.executorch_file import ExecutorchFile
from edgecomp.exported.files import hash_files
from edgecomp.exported.onnx_file import OnnxFile
from edgecomp.exported.read import read_exported
from edgecomp.identity import METADATA, Identity, find_identity
from edgecomp.inspect.model import inspect_contents
from edgecomp.inspect.result import LayerRow


@dataclass(frozen=True)
class LayerChange:
    """A layer of both checkpoints that is another in the second; fields that stayed are None.

    Args:
        name: the layer.
        bits: of both, such as `("4", "3")`,
        block_size: likewise,
        packed_bytes: likewise,
        relative_error: likewise, to each one's own original.
        codes: part of the codes that are others, where both have as many.
        codebooks: largest change of an entry, likewise.

    """

    name: str
    bits: tuple[str, str] | None
    block_size: tuple[str, str] | None
    packed_bytes: tuple[int, int] | None
    relative_error: tuple[float | None, float | None] | None
    codes: float | None
    codebooks: int | None


@dataclass(frozen=True)
class Difference:
    """What is another in `after`.

    Args:
        before: name of the first.
        after: name of the second.
        identity: what the two say of themselves, by field, where it differs.
        recipe: settings by their dotted names, where they differ.
        total_bytes: of both.
        only_before: layers that the second does not pack.
        only_after: layers that the first does not pack.
        layers: changed ones.
        same_layers: how many are the same to the last bit.

    """

    before: str
    after: str
    identity: Mapping[str, tuple[str, str]]
    recipe: Mapping[str, tuple[Any, Any]]
    total_bytes: tuple[int, int]
    only_before: tuple[str, ...] = ()
    only_after: tuple[str, ...] = ()
    layers: tuple[LayerChange, ...] = ()
    same_layers: int | None = None

    @property
    def same(self) -> bool:
        """Whether nothing is another."""
        return not (self.identity or self.recipe or self.layers or self.only_before or self.only_after)

    def to_json(self) -> dict[str, Any]:
        """The difference as JSON values."""
        return {"kind": "difference", "schema_version": 1, **asdict(self), "same": self.same}

    def to_markdown(self) -> str:
        """What differs, and a table of layers."""
        lines = [f"- {name}: {before or '-'} -> {after or '-'}" for name, (before, after) in self.identity.items()]
        lines += [f"- {name}: {before!r} -> {after!r}" for name, (before, after) in self.recipe.items()]
        first, second = self.total_bytes
        lines.append(f"- bytes: {first:,} -> {second:,} ({100 * (second / max(first, 1) - 1):+.2f} %)")
        for what, names in (("packed in the first alone", self.only_before), ("packed in the second alone", self.only_after)):
            lines += [f"- {what}: {', '.join(names)}"] if names else []
        if self.same_layers is not None:
            lines.append(f"- layers: {self.same_layers} the same to the last bit, {len(self.layers)} changed")
        if self.layers:
            lines += [
                "",
                "| layer | bits | block | bytes | relative error | codes changed | codebooks, by at most |",
                "| --- | --- | --- | --- | --- | ---: | ---: |",
            ]
            lines += [_row(layer) for layer in self.layers]
        return "\n".join(["the same" if self.same else f"{self.before} -> {self.after}", *lines]) + "\n"


def compare(before: Path, after: Path) -> Difference:
    """Compare two checkpoints by their layers, or two exported models by what they say of themselves.

    Raises:
        ModelError: one is a checkpoint and the other is not, or there is no such file.
        CheckpointError: one is incomplete or damaged.

    """
    folders = [(path / MANIFEST).is_file() for path in (before, after)]
    if folders[0] != folders[1]:
        raise ModelError(f"two checkpoints are compared, or two exported models, got {before} and {after}")
    if not folders[0]:
        return _compare_exported(before, after)
    first, second = read_contents(before), read_contents(after)
    return _compare_checkpoints((before, first), (after, second))


def _compare_checkpoints(before: tuple[Path, Contents], after: tuple[Path, Contents]) -> Difference:
    inspections = [inspect_contents(path, contents) for path, contents in (before, after)]
    rows = [{row.name: row for row in inspection.layers} for inspection in inspections]
    shared = [name for name in rows[0] if name in rows[1]]
    found = [_layer(name, rows[0][name], rows[1][name], before[1], after[1]) for name in shared]
    changes = [change for change in found if change is not None]
    texts = [find_identity(str(contents.manifest.get("identity", "")).encode()) for _, contents in (before, after)]
    return Difference(
        before[0].name,
        after[0].name,
        _identities(*texts),
        _settings(before[1].manifest["recipe"], after[1].manifest["recipe"]),
        (inspections[0].size.packed_bytes, inspections[1].size.packed_bytes),
        tuple(name for name in rows[0] if name not in rows[1]),
        tuple(name for name in rows[1] if name not in rows[0]),
        tuple(changes),
        len(shared) - len(changes),
    )


def _layer(name: str, before: LayerRow, after: LayerRow, first: Contents, second: Contents) -> LayerChange | None:
    """What changed of a layer; None where nothing did."""
    arrays = [
        {
            f"{stage.factor}.{key}": array
            for term in contents.plans[name].terms
            for stage in term
            for key, array in contents.factors[stage.factor].arrays.items()
        }
        for contents in (first, second)
    ]
    same = arrays[0].keys() == arrays[1].keys() and all(np.array_equal(array, arrays[1][key]) for key, array in arrays[0].items())
    if same and (before.bits, before.block_size, before.relative_error) == (after.bits, after.block_size, after.relative_error):
        return None
    pairs = ((before.bits, after.bits), (before.block_size, after.block_size))
    bits, blocks = ([" + ".join(str(value or "-") for value in values) for values in pair] for pair in pairs)
    errors = (before.relative_error, after.relative_error)
    return LayerChange(
        name,
        None if bits[0] == bits[1] else (bits[0], bits[1]),
        None if blocks[0] == blocks[1] else (blocks[0], blocks[1]),
        None if before.packed_bytes == after.packed_bytes else (before.packed_bytes, after.packed_bytes),
        None if errors[0] == errors[1] else errors,
        _part_changed(arrays[0], arrays[1], bits),
        _largest_change(arrays[0], arrays[1]),
    )


def _part_changed(before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray], bits: list[str]) -> float | None:
    """Of the bytes of codes, which are planes of one to four fields a byte; None where the two have other layouts."""
    keys = [key for key in before if key.endswith(".codes") and key in after and before[key].shape == after[key].shape]
    if not keys or bits[0] != bits[1]:
        return None
    changed = sum(int((before[key] != after[key]).sum()) for key in keys)
    return changed / max(sum(before[key].size for key in keys), 1)


def _largest_change(before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]) -> int | None:
    keys = [key for key in before if "codebook" in key and key in after and before[key].shape == after[key].shape]
    if not keys:
        return None
    return max(int(np.abs(before[key].astype(np.int32) - after[key].astype(np.int32)).max(initial=0)) for key in keys)


def _compare_exported(before: Path, after: Path) -> Difference:
    files = [read_exported(path) for path in (before, after)]
    told: list[tuple[Identity | None, Mapping[str, Any]]] = []
    for file in files:
        line, recipe = _told(file)
        told.append((find_identity(line.encode()), recipe if isinstance(recipe, dict) else {}))
    digests = [{info.name: info.sha256 for info in hash_files(file)} for file in files]
    identities = dict(_identities(told[0][0], told[1][0]))
    if list(digests[0].values()) != list(digests[1].values()):
        shorts = [", ".join(digest[:16] for digest in found.values()) for found in digests]
        identities["sha256 of the files"] = (shorts[0], shorts[1])
    sizes = [sum(path.stat().st_size for path in file.files) for file in files]
    return Difference(before.name, after.name, identities, _settings(told[0][1], told[1][1]), (sizes[0], sizes[1]))


def _told(file: OnnxFile | ExecutorchFile) -> tuple[str, Any]:
    """An artifact's identity line and recipe."""
    if not isinstance(file, OnnxFile):
        return str(file.manifest.get("identity", "")), file.manifest.get("recipe")
    try:
        return file.metadata.get(METADATA, ""), parse_json(file.metadata.get("edgecomp.recipe", "{}"))
    except ValueError as error:
        raise CheckpointError(f"{file.path} must have a recipe in JSON in its metadata: {error}") from error


def _identities(before: Identity | None, after: Identity | None) -> dict[str, tuple[str, str]]:
    first, second = ({} if identity is None else identity.to_json() for identity in (before, after))
    return {
        key: (first.get(key, ""), second.get(key, "")) for key in {**first, **second} if first.get(key, "") != second.get(key, "")
    }


def _settings(before: Any, after: Any, path: str = "recipe") -> dict[str, tuple[Any, Any]]:
    """Leaves of two JSON values that differ, by their dotted names."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        pairs = [(str(key), before.get(key), after.get(key)) for key in {**before, **after}]
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = [(str(index), *pair) for index, pair in enumerate(zip(before, after, strict=True))]
    else:
        return {} if before == after else {path: (before, after)}
    return {name: values for key, one, other in pairs for name, values in _settings(one, other, f"{path}.{key}").items()}


def _row(layer: LayerChange) -> str:
    def pair(values: tuple[Any, Any] | None, form: str) -> str:
        return "" if values is None else " -> ".join("-" if value is None else format(value, form) for value in values)

    cells = [
        layer.name,
        pair(layer.bits, ""),
        pair(layer.block_size, ""),
        pair(layer.packed_bytes, ","),
        pair(layer.relative_error, ".4f"),
        "" if layer.codes is None else f"{100 * layer.codes:.1f} %",
        "" if layer.codebooks is None else str(layer.codebooks),
    ]
    return "| " + " | ".join(cells) + " |"
