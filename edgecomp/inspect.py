"""What a compressed model is made of, layer by layer: formats, bits, bytes, sharing, and the error that compression left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecomp.artifact.onnx_file import FileInfo, hash_files
from edgecomp.artifact.session import NONE, OnnxArtifact
from edgecomp.size import SizeReport, count_bytes, count_parameters, layer_parameters, weights_key
from edgecomp.tensor import Factor, LayerPlan

if TYPE_CHECKING:
    from edgecomp.checkpoint import CompressedModel

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class LayerRow:
    """One compressed layer.

    Args:
        name: module name.
        formats: `format` or, of several factors, `format + format`, in the plan's order.
        shapes: `[N, K]` of each factor.
        bits: width of a code of each factor; None where the format has none.
        block_size: of each factor; None where the format has none.
        parameters: of the uncompressed layer; 0 where the layer is tied to an earlier one.
        packed_bytes: of the factors that no earlier layer of the list uses.
        bits_per_weight: 8 * packed_bytes / parameters; None where either is counted with another layer.
        shared_with: earlier layers that use a factor of this one.
        relative_error: ||compressed - original|| / ||original|| of the weights, if the pass recorded it.

    """

    name: str
    formats: str
    shapes: tuple[tuple[int, int], ...]
    bits: tuple[int | None, ...]
    block_size: tuple[int | None, ...]
    parameters: int
    packed_bytes: int
    bits_per_weight: float | None
    shared_with: tuple[str, ...]
    relative_error: float | None


@dataclass(frozen=True)
class Inspection:
    """A compressed model: its layers and the sum of everything."""

    name: str
    source: str | None
    recipe: Mapping[str, Any]
    layers: tuple[LayerRow, ...]
    dense_tensors: int
    dense_bytes: int
    size: SizeReport

    def to_json(self) -> dict[str, Any]:
        """The inspection as JSON values; `inspect*.json` of a run folder."""
        return {"kind": "inspect", "schema_version": SCHEMA_VERSION, **asdict(self), "size": self.size.to_json()}

    def to_markdown(self) -> str:
        """A table of the layers, and the totals."""
        lines = [
            "| layer | format | N x K | bits | block | bytes | bits/weight | relative error | shared with |",
            "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
        ]
        for row in self.layers:
            cells = [
                row.name,
                row.formats,
                " + ".join(f"{n} x {k}" for n, k in row.shapes),
                _joined(row.bits),
                _joined(row.block_size),
                str(row.packed_bytes),
                "" if row.bits_per_weight is None else f"{row.bits_per_weight:.3f}",
                "" if row.relative_error is None else f"{row.relative_error:.4f}",
                ", ".join(row.shared_with),
            ]
            lines.append("| " + " | ".join(cells) + " |")
        size = self.size
        lines += [
            "",
            f"{self.dense_tensors} dense tensors: {self.dense_bytes} bytes",
            f"total: {size.packed_bytes} bytes for {size.parameters} parameters, {size.bits_per_weight:.3f} bits per weight, "
            f"{size.ratio_to(32):.2f}x smaller than float32, {size.ratio_to(16):.2f}x than float16",
        ]
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class OnnxInspection:
    """An exported model, as far as its files tell without the onnx package."""

    name: str
    files: tuple[FileInfo, ...]
    domains: tuple[str, ...]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    producer: str
    metadata: Mapping[str, str]

    @property
    def bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.bytes for file in self.files)

    def to_json(self) -> dict[str, Any]:
        """The inspection as JSON values."""
        return {"kind": "inspect-onnx", "schema_version": SCHEMA_VERSION, **asdict(self), "bytes": self.bytes}

    def to_markdown(self) -> str:
        """Files, signature and metadata."""
        lines = [f"- {file.name}: {file.bytes} bytes, sha256 {file.sha256}" for file in self.files]
        lines += [f"- input {name}: {spec}" for name, spec in self.inputs.items()]
        lines += [f"- output {name}: {spec}" for name, spec in self.outputs.items()]
        lines += [
            f"- operator domains: {', '.join(domain or 'ai.onnx' for domain in self.domains)}",
            f"- producer: {self.producer}",
        ]
        lines += [f"- {key}: {value}" for key, value in self.metadata.items()]
        return "\n".join(lines) + f"\ntotal: {self.bytes} bytes\n"


def inspect_model(model: CompressedModel, name: str) -> Inspection:
    """Inspect a compressed model.

    Args:
        model: the model; `provenance["layers"][layer]["relative_error"]` and `provenance["source"]` are read where they exist.
        name: what to call it, such as the file name of the checkpoint.

    """
    dense = dense_tensors(model)
    size = count_bytes(model.factors, dense, count_parameters(model.plans, model.factors, dense))
    return Inspection(
        name=name,
        source=model.provenance.get("source"),
        recipe=dict(model.recipe),
        layers=inspect_layers(model.plans, model.factors, model.provenance.get("layers", {})),
        dense_tensors=len(dense),
        dense_bytes=sum(tensor.nbytes for tensor in dense.values()),
        size=size,
    )


def inspect_layers(
    plans: Mapping[str, LayerPlan], factors: Mapping[str, Factor], notes: Mapping[str, Mapping[str, Any]]
) -> tuple[LayerRow, ...]:
    """A row for each layer; what layers share is counted in the first, so that the columns add up to the total."""
    rows = []
    users: dict[str, list[str]] = {}  # layers by the factor that they use
    matrices: set[tuple[tuple[str, ...], ...]] = set()
    for layer, plan in plans.items():
        used = list(dict.fromkeys(stage.factor for term in plan.terms for stage in term))
        packed_bytes = sum(factors[factor].packed_bytes for factor in used if factor not in users)
        shared_with = tuple(dict.fromkeys(user for factor in used for user in users.get(factor, ())))
        parameters = 0 if weights_key(plan) in matrices else layer_parameters(plan, factors)
        rows.append(
            LayerRow(
                name=layer,
                formats=" + ".join(factors[factor].format for factor in used),
                shapes=tuple(factors[factor].shape for factor in used),
                bits=tuple(factors[factor].attributes.get("bits") for factor in used),
                block_size=tuple(factors[factor].attributes.get("block_size") for factor in used),
                parameters=parameters,
                packed_bytes=packed_bytes,
                bits_per_weight=8 * packed_bytes / parameters if parameters and not shared_with else None,
                shared_with=shared_with,
                relative_error=notes.get(layer, {}).get("relative_error"),
            )
        )
        matrices.add(weights_key(plan))
        for factor in used:
            users.setdefault(factor, []).append(layer)
    return tuple(rows)


def dense_tensors(model: CompressedModel) -> dict[str, np.ndarray]:
    """The tensors of the model that no packed factor holds, each once under its first name."""
    from edgecomp.modules import PackedFactor

    packed = {id(buffer) for module in model.module.modules() if isinstance(module, PackedFactor) for buffer in module.buffers()}
    tensors = {}
    for name, tensor in model.module.state_dict(keep_vars=True).items():
        if id(tensor) not in packed:
            packed.add(id(tensor))
            tensors[name] = tensor.detach().cpu().numpy()
    return tensors


def inspect_onnx(path: Path) -> OnnxInspection:
    """Inspect an exported model by its files and by what the stock ONNX Runtime says of it.

    Raises:
        ModelError: no such file.
        CheckpointError: the model is incomplete, or ONNX Runtime refuses it.

    """
    artifact = OnnxArtifact(path, NONE)
    file, session = artifact.file, artifact.session
    meta = session.get_modelmeta()
    return OnnxInspection(
        name=path.name,
        files=hash_files(file),
        domains=tuple(sorted(file.domains)),
        inputs={spec.name: f"{spec.type} {spec.shape}" for spec in session.get_inputs()},
        outputs={spec.name: f"{spec.type} {spec.shape}" for spec in session.get_outputs()},
        producer=meta.producer_name,
        metadata=dict(meta.custom_metadata_map),
    )


def _joined(values: tuple[int | None, ...]) -> str:
    return " + ".join("-" if value is None else str(value) for value in values)
