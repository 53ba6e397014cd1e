"""Exporters: a compressed model to the file of a runtime, its weights still packed."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from edgecomp.checkpoint import CompressedModel
from edgecomp.errors import ExportError, OutputError, RuntimeUnavailableError
from edgecomp.exporters.options import ExportOptions
from edgecomp.exporters.result import ExportResult
from edgecomp.progress import ProgressBar

__all__ = ["TARGETS", "ExportOptions", "ExportResult", "export"]

# Target -> module with `export(model, output, progress, options) -> ExportResult`, and with `check_output(model, output, options,
# overwrite)`, which refuses before long work. Imported when asked for, since each needs packages of its own (the extra of the
# target's name).
TARGETS: dict[str, str] = {
    "onnx": "edgecomp.exporters.to_onnx",
    "executorch": "edgecomp.exporters.to_executorch",
}
# Suffixes that say what a file is for; none of them may be given to a file for another runtime.
SUFFIXES: dict[str, tuple[str, ...]] = {"onnx": (".onnx", ".ort"), "executorch": (".pte",)}


def export(
    model: CompressedModel,
    target: str,
    output: str | Path,
    *,
    options: ExportOptions | None = None,
    overwrite: bool = False,
    quiet: bool = True,
) -> ExportResult:
    """Write `model` as the file of a target's runtime.

    Args:
        model: the compressed model.
        target: key of `TARGETS`.
        output: the file to write; a target may write more files beside it. `onnx` writes a language model with its cache into a
            folder, where the name has no suffix `.onnx`.
        options: what the target leaves to choose.
        overwrite: replace files that exist.
        quiet: no progress bar.

    Raises:
        ExportError: the target is unknown, or the model cannot be lowered to it.
        OutputError: a file exists already, or cannot be written.
        RuntimeUnavailableError: a package that the target needs is missing.

    """
    if not isinstance(model, CompressedModel):
        raise ExportError(
            f"what is exported must be a compressed model, of edgecomp.compress or edgecomp.load, got {type(model).__name__}"
        )
    if target not in TARGETS:
        raise ExportError(f"unknown target {target!r}; targets: {', '.join(TARGETS)}")
    try:
        exporter = import_module(TARGETS[target])
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "edgecomp":
            raise
        raise RuntimeUnavailableError(
            f"target {target} needs the package {error.name}, which is not installed: pip install 'edgecomp[{target}]'"
        ) from error
    output, options = Path(output), options or ExportOptions()
    if not output.name:
        raise OutputError("an export must have a name for its file, such as model.onnx, got none")
    other = next((name for name, suffixes in SUFFIXES.items() if output.suffix in suffixes and name != target), None)
    if other is not None:
        raise ExportError(f"{output} has the suffix of a file for {other}, and the target is {target}: give --target {other}")
    exporter.check_output(model, output, options, overwrite)
    result: ExportResult = exporter.export(model, output, ProgressBar(quiet), options)
    return result
