"""What an inspection found, as JSON and as tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edgecomp.exported.files import FileInfo
from edgecomp.exported.onnx_file import PARAMETERS
from edgecomp.progress import listed
from edgecomp.size import LeftFloat, SizeReport, compared, share_left_float, shipped

SCHEMA_VERSION = 1
_REASONS = 3  # that a summary names


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
    """A compressed model: its layers and the sum of everything.

    Args:
        name: what to call it.
        source: what was compressed.
        recipe: the resolved recipe.
        layers: the compressed ones.
        dense_tensors: how many tensors no method packed.
        dense_bytes: of these.
        size: of all arrays.
        kept_float32: dense tensors that a recipe of float16 keeps in float32.
        file_bytes: of the checkpoint's files; None for a model that is not from one.
        left_float: what stays float, the most bytes first; empty in checkpoints from before.

    """

    name: str
    source: str | None
    recipe: Mapping[str, Any]
    layers: tuple[LayerRow, ...]
    dense_tensors: int
    dense_bytes: int
    size: SizeReport
    kept_float32: tuple[str, ...] = ()
    file_bytes: int | None = None
    left_float: tuple[LeftFloat, ...] = ()

    @property
    def float_share(self) -> float:
        """The share of the model's parameters that stays float."""
        return share_left_float(self.left_float, self.size.parameters)

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
        if self.left_float:
            lines += ["", "| stays float, since | parameters | bytes | tensors |", "| --- | ---: | ---: | --- |"]
            lines += [f"| {row.reason} | {row.parameters} | {row.bytes} | {listed(row.names)} |" for row in self.left_float]
        return "\n".join([*lines, "", self.summary()]) + "\n"

    def summary(self) -> str:
        """The totals, a line each."""
        size = self.size
        kept = f", {len(self.kept_float32)} of them float32 for what float16 would lose" if self.kept_float32 else ""
        lines = [
            f"{len(self.layers)} packed layers; {self.dense_tensors} dense tensors: {self.dense_bytes:,} bytes{kept}",
            f"weights: {size.packed_bytes:,} bytes for {size.parameters:,} parameters, {size.bits_per_weight:.3f} bits per weight, "
            f"{compared(size.packed_bytes, size.parameters)}; exported files hold the graph too, and tell their own bytes",
        ]
        if self.left_float:
            parts = [f"{row.bytes:,} bytes of {row.reason}" for row in self.left_float if row.parameters]
            lines.append(f"{self.float_share:.1%} of the parameters stay float: {'; '.join(parts[:_REASONS])}")
        return "\n".join([*lines, *([] if self.file_bytes is None else [f"checkpoint: {self.file_bytes:,} bytes"])])


@dataclass(frozen=True)
class OnnxInspection:
    """An exported model, as far as its files tell without the onnx package.

    Args:
        name: file name.
        files: the model and its external data.
        domains: of what its nodes call.
        inputs: type and shape by name.
        outputs: as above.
        producer: the tool that wrote it.
        metadata: by key.
        own_operators: of our library, that its nodes call.
        unknown_operators: of our domain, that our library does not have: they run by their functions.
        needs_library: whether operators of ours have no functions, so that a stock runtime cannot run the model.

    """

    name: str
    files: tuple[FileInfo, ...]
    domains: tuple[str, ...]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    producer: str
    metadata: Mapping[str, str]
    own_operators: tuple[str, ...] = ()
    unknown_operators: tuple[str, ...] = ()
    needs_library: bool = False

    @property
    def bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.bytes for file in self.files)

    @property
    def parameters(self) -> int | None:
        """Of the uncompressed model, as its exporter wrote them."""
        told = self.metadata.get(PARAMETERS, "")
        return int(told) if told.isdecimal() else None

    def to_json(self) -> dict[str, Any]:
        """The inspection as JSON values."""
        return {"kind": "inspect-onnx", "schema_version": SCHEMA_VERSION, **asdict(self), "bytes": self.bytes}

    def to_markdown(self) -> str:
        """Files, signature and metadata."""
        unknown = ", ".join(self.unknown_operators)
        lines = _common_lines(self.files, self.inputs, self.outputs)
        lines += [
            f"- operator domains: {', '.join(domain or 'ai.onnx' for domain in self.domains)}",
            f"- operators of edgecomp's library: {', '.join(self.own_operators) or 'none'}"
            f"{', without functions: no stock runtime runs the model' if self.needs_library else ''}",
            *([f"- not in the library, run by their functions, slowly: {unknown}"] if unknown else []),
            f"- producer: {self.producer}",
        ]
        lines += [f"- {key}: {value}" for key, value in self.metadata.items()]
        return "\n".join([*lines, shipped(self.bytes, self.parameters)]) + "\n"


@dataclass(frozen=True)
class ExecutorchInspection:
    """A program for ExecuTorch, as far as its files tell without that package.

    Args:
        name: file name.
        files: the program and its external constants.
        inputs: dtype and shape by name; a dynamic size as `name <= largest`.
        outputs: as above.
        operators: that it calls.
        backends: that it hands parts to.
        activation_bytes: planned for activations.
        manifest: what edgecomp wrote of it; empty for a program of another tool.

    """

    name: str
    files: tuple[FileInfo, ...]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    operators: tuple[str, ...]
    backends: tuple[str, ...]
    activation_bytes: int
    manifest: Mapping[str, Any]

    @property
    def bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.bytes for file in self.files)

    def to_json(self) -> dict[str, Any]:
        """The inspection as JSON values."""
        return {"kind": "inspect-executorch", "schema_version": SCHEMA_VERSION, **asdict(self), "bytes": self.bytes}

    def to_markdown(self) -> str:
        """Files, signature, what runs it, and the manifest without the provenance, which is long."""
        lines = _common_lines(self.files, self.inputs, self.outputs)
        lines += [
            f"- operators: {', '.join(self.operators)}",
            f"- backends: {', '.join(self.backends) or 'none'}",
            f"- planned for activations: {self.activation_bytes} bytes",
        ]
        left_out = {"inputs", "outputs", "provenance"}
        lines += [f"- {key}: {json.dumps(value)}" for key, value in self.manifest.items() if key not in left_out]
        told = self.manifest.get("parameters")
        return "\n".join([*lines, shipped(self.bytes, told if isinstance(told, int) else None)]) + "\n"


def _common_lines(files: tuple[FileInfo, ...], inputs: Mapping[str, str], outputs: Mapping[str, str]) -> list[str]:
    lines = [f"- {file.name}: {file.bytes} bytes, sha256 {file.sha256}" for file in files]
    lines += [f"- input {name}: {spec}" for name, spec in inputs.items()]
    return lines + [f"- output {name}: {spec}" for name, spec in outputs.items()]


def _joined(values: tuple[int | None, ...]) -> str:
    return " + ".join("-" if value is None else str(value) for value in values)
