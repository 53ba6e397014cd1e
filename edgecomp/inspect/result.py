"""What an inspection found, as JSON and as tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edgecomp.exported.files import FileInfo
from edgecomp.size import SizeReport

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
        return "\n".join([*lines, "", self.summary()]) + "\n"

    def summary(self) -> str:
        """The totals, in two lines."""
        size = self.size
        return (
            f"{len(self.layers)} packed layers; {self.dense_tensors} dense tensors: {self.dense_bytes:,} bytes\n"
            f"total: {size.packed_bytes:,} bytes for {size.parameters:,} parameters, {size.bits_per_weight:.3f} bits per weight, "
            f"{size.ratio_to(32):.2f}x smaller than float32, {size.ratio_to(16):.2f}x than float16"
        )


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
        lines = _common_lines(self.files, self.inputs, self.outputs)
        lines += [
            f"- operator domains: {', '.join(domain or 'ai.onnx' for domain in self.domains)}",
            f"- producer: {self.producer}",
        ]
        lines += [f"- {key}: {value}" for key, value in self.metadata.items()]
        return "\n".join(lines) + f"\ntotal: {self.bytes} bytes\n"


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
        return "\n".join(lines) + f"\ntotal: {self.bytes} bytes\n"


def _common_lines(files: tuple[FileInfo, ...], inputs: Mapping[str, str], outputs: Mapping[str, str]) -> list[str]:
    lines = [f"- {file.name}: {file.bytes} bytes, sha256 {file.sha256}" for file in files]
    lines += [f"- input {name}: {spec}" for name, spec in inputs.items()]
    return lines + [f"- output {name}: {spec}" for name, spec in outputs.items()]


def _joined(values: tuple[int | None, ...]) -> str:
    return " + ".join("-" if value is None else str(value) for value in values)
