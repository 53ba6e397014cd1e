"""Compressed models in memory, and on disk as a folder `model.ec`.

| file | contents |
| --- | --- |
| `manifest.json` | plans, factors' formats and shapes, recipe, provenance, and the sha256 of every other file and of itself |
| `weights.safetensors` | `factors/<factor>/<array>` and `dense/<tensor>` |
| `model/` | configuration and tokenizer, for models that have them |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgecomp.array_file import write_arrays
from edgecomp.assembly import install, require_complete
from edgecomp.checkpoint_file import (
    ASSETS,
    CHECKPOINT_FORMAT,
    CHECKPOINT_VERSION,
    MANIFEST,
    WEIGHTS,
    naming_what_is_missing,
    read_contents,
    read_manifest,
    sealed,
    sha256_of,
)
from edgecomp.errors import CheckpointError, ModelError, OutputError, first_line
from edgecomp.files import replace_folder, require_own, require_writable_target
from edgecomp.identity import Identity, identity_of
from edgecomp.models import LoadedModel, body_of, build_skeleton
from edgecomp.tensor import Factor, LayerPlan
from edgecomp.trust import NOBODY, Trust
from edgecomp.unfolding import copied, unfold


@dataclass(kw_only=True)
class CompressedModel(LoadedModel):
    """A model whose compressed layers run from packed factors: a `LoadedModel` with a packed module, and what it is made of.

    Args:
        plans: the plan of each compressed layer, by module name below `edgecomp.models.body_of(module)`.
        factors: each packed factor once.
        dense: every other tensor by name, in the dtype that it is stored in; names that share a tensor share the object.
        unused: layers that no output depends on, and whose weights are left out.
        unfolded: layers and parameters of other kinds that became plain layers, and how (`edgecomp.unfolding.unfold`); names of
            layers and tensors are those of the unfolded model. None where nothing is unfolded, as in checkpoints from before.
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
    unused: Sequence[str] = ()
    unfolded: Mapping[str, Any] | None = None

    @property
    def identity(self) -> Identity:
        """What every artifact of this model says it is; its arrays are read for it."""
        arrays = [(f"{name}/{key}", array) for name, factor in self.factors.items() for key, array in factor.arrays.items()]
        dense = [(name, tensor.cpu().numpy()) for name, tensor in self.dense.items()]
        return identity_of(self.recipe, self.provenance, arrays + dense)

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
            (temporary / MANIFEST).write_text(sealed(manifest), encoding="utf-8")


def require_checkpoint_target(folder: Path, *, overwrite: bool) -> None:
    """Refuse to write a checkpoint over anything but, with `overwrite`, another checkpoint.

    Raises:
        OutputError: with the way out.

    """
    require_writable_target(folder, overwrite=overwrite)
    if not folder.exists():
        return
    try:
        files = read_manifest(folder, any_version=True).get("files")
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
        "identity": str(model.identity),
        "kind": model.kind,
        "parameters": model.parameters,
        "layer_parameters": dict(model.layer_parameters),
        "inputs": [asdict(spec) for spec in model.inputs],
        "outputs": list(model.outputs),
        "limits": dict(model.limits),
        "minimums": dict(model.minimums),
        "state": list(model.state),
        "examples": dict(model.examples),
        "source": dict(model.source),
        "recipe": dict(model.recipe),
        "provenance": dict(model.provenance),
        "unused": list(model.unused),
        **({} if model.unfolded is None else {"unfolded": dict(model.unfolded)}),
        "plans": {name: plan.to_json() for name, plan in model.plans.items()},
        "factors": {
            name: {"format": factor.format, "shape": list(factor.shape), "attributes": dict(factor.attributes)}
            for name, factor in model.factors.items()
        },
        "aliases": aliases,
        "files": {
            path.relative_to(folder).as_posix(): sha256_of(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path != folder / MANIFEST
        },
    }


def load(
    folder: str | Path, *, model: str | Path | nn.Module | Callable[[], Any] | None = None, trust: Trust = NOBODY
) -> CompressedModel:
    """The compressed model that `CompressedModel.save` wrote.

    Args:
        folder: the checkpoint.
        model: what was compressed, as `edgecomp.models.brought` takes it: needed for all but Hugging Face models, of which the
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
        with naming_what_is_missing(folder):
            skeleton = build_skeleton(manifest["source"], folder / ASSETS, model, trust)
            state = tuple(str(name) for name in manifest["state"])
            skeleton = replace(skeleton, inputs=contents.inputs, state=state).bound()
            unused = [str(name) for name in manifest["unused"]]
            unfolded = manifest.get("unfolded")
            if unfolded is not None:
                skeleton = replace(skeleton, module=copied(skeleton.module))
                _unfold(body_of(skeleton.module), unfolded)
            tensors = {id(array): torch.from_numpy(array) for array in contents.dense.values()}
            dense = {name: tensors[id(array)] for name, array in contents.dense.items()}  # shared ones stay shared
            require_complete(body_of(skeleton.module), contents.plans, contents.factors, dense, unused)
            install(body_of(skeleton.module), contents.plans, contents.factors, dense, unused)
            return CompressedModel(
                module=skeleton.module.eval(),
                inputs=contents.inputs,
                outputs=tuple(manifest["outputs"]),
                kind=manifest["kind"],
                limits={str(name): int(size) for name, size in manifest["limits"].items()},
                state=state,
                minimums={str(name): int(size) for name, size in manifest["minimums"].items()},
                examples={str(name): int(size) for name, size in manifest["examples"].items()},
                source=manifest["source"],
                tokenizer=skeleton.tokenizer,
                assets=skeleton.assets,
                plans=contents.plans,
                factors=contents.factors,
                dense=dense,
                unused=unused,
                unfolded=unfolded,
                recipe=manifest["recipe"],
                parameters=int(manifest["parameters"]),
                layer_parameters={name: int(manifest["layer_parameters"][name]) for name in contents.plans},
                provenance=manifest["provenance"],
            )
    except ModelError as error:
        raise ModelError(f"the model of {folder} cannot be built: {error}") from error


def _unfold(body: nn.Module, record: Mapping[str, Any]) -> None:
    """Unfold a model as the record of its checkpoint says.

    Raises:
        CheckpointError: the record is none of this model.

    """
    try:
        unfold(body, record)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:  # whatever a record of another model asks for
        raise CheckpointError(f"the checkpoint must be of this model, but its layers are others: {first_line(error)}") from error


def unround(model: CompressedModel, original: nn.Module) -> bool:
    """Give the model's module the original's values of dense tensors that the checkpoint has in float16.

    So the module becomes a reference for what rounding did. Tensors that are not the original's rounded, since a pass changed
    them, stay; so do dense factors.

    Args:
        model: a model whose module may be changed.
        original: what was compressed.

    Returns:
        Whether the original has any of the tensors.

    """
    if model.unfolded is not None:
        original = copied(original)
        _unfold(body_of(original), model.unfolded)
    body, exact = body_of(model.module), body_of(original).state_dict(keep_vars=True)
    found = False
    for name, stored in model.dense.items():
        value = exact.get(name)
        if stored.dtype == torch.float16 and value is not None and torch.equal(value.detach().to(torch.float16), stored):
            parent, _, leaf = name.rpartition(".")
            getattr(body.get_submodule(parent), leaf).data = value.detach().float()
            found = True
    return found


__all__ = ["ASSETS", "MANIFEST", "WEIGHTS", "CompressedModel", "load", "read_contents", "require_checkpoint_target", "unround"]
