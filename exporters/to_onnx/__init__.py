"""Export to ONNX: one file that runs packed where our operator library is registered, and by standard operators where it is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import onnx
import onnx_ir as ir

import edgecomp
from edgecomp.checkpoint import CompressedModel
from edgecomp.errors import ConfigError, ExportError, OutputError, first_line
from edgecomp.exported.language_folder import MODEL
from edgecomp.exported.onnx_file import CONDITIONS, LIMITS, PARAMETERS
from edgecomp.exporters.capture import Capture, capture
from edgecomp.exporters.language_folder import check_folder, is_folder, written
from edgecomp.exporters.options import ExportOptions
from edgecomp.exporters.result import ExportResult
from edgecomp.exporters.to_onnx.folder import NO_MACHINE, library, name_sizes, write_folder
from edgecomp.exporters.to_onnx.functions import function_protos
from edgecomp.exporters.to_onnx.initializers import settle_initializers
from edgecomp.exporters.to_onnx.lower import OPSET, lower
from edgecomp.exporters.to_onnx.packed import check_packed, fill_absent_inputs
from edgecomp.exporters.to_onnx.save import data_path, save
from edgecomp.files import replace_folder, require_writable_target
from edgecomp.identity import METADATA
from edgecomp.language import DecoderOptions, with_cache
from edgecomp.ops import DOMAIN, DOMAIN_VERSION
from edgecomp.progress import ProgressBar


def check_output(model: CompressedModel, output: Path, options: ExportOptions, overwrite: bool) -> None:
    """Refuse what cannot be written, before long work.

    Raises:
        ConfigError: an option that this model has no use for.
        OutputError: a file exists already, or cannot be written.

    """
    if options.for_executorch:
        raise ConfigError(
            "target onnx leaves sizes free and always has its weights beside it: it takes neither option of executorch"
        )
    if is_folder(model, output):
        check_folder(output, overwrite)
        return
    if options.for_language:
        what = "a file without a cache" if model.kind == "causal-lm" else f"a model of kind {model.kind}"
        raise ConfigError(
            f"attention, cache, logits, context and library are chosen for a language model's folder, and {output} is {what}"
        )
    if output.suffix != ".onnx":
        raise OutputError(f"the file of an ONNX model has the suffix .onnx, got {output}")
    for path in (output, data_path(output)):
        require_writable_target(path, overwrite=overwrite and not path.is_dir())


def export(model: CompressedModel, output: Path, progress: ProgressBar, options: ExportOptions) -> ExportResult:
    """Write `model` as `output`, with its weights beside it in `<stem>.onnx.data`; a language model with its cache as a folder.

    Raises:
        ExportError: the model cannot be captured or lowered, or would not run packed.
        OutputError: the files cannot be written.

    """
    if is_folder(model, output):
        return _export_folder(model, output, progress, options)
    with progress.steps("export", 4) as begin:
        files = _write(model, model, output, begin)
    return ExportResult(files, sum(path.stat().st_size for path in files), model.parameters)


def _export_folder(model: CompressedModel, output: Path, progress: ProgressBar, options: ExportOptions) -> ExportResult:
    found = None if options.machine == NO_MACHINE else library(options.machine, options.bundle)
    with progress.steps("export", 5) as begin, replace_folder(output, overwrite=True) as folder:
        begin("cache")
        decoder = with_cache(model, DecoderOptions(options.attention, options.cache, options.last_logits, options.context))
        _write(model, decoder, folder / MODEL, begin)
        write_folder(model, decoder, folder, found, options)
    return written(model, output, MODEL, progress)


def _write(original: CompressedModel, model: CompressedModel, output: Path, begin: Callable[[str], None]) -> tuple[Path, ...]:
    """The file of a model, which is the original or that with a cache, and its data."""
    begin("capture")
    captured = capture(model)
    begin("lower")
    onnx_model = lower(captured, [spec.name for spec in model.inputs], model.outputs)
    begin("check")
    check_packed(onnx_model.graph, model)
    fill_absent_inputs(onnx_model.graph)
    settle_initializers(onnx_model.graph, model)
    if model is not original:
        name_sizes(onnx_model.graph, model)
    _describe(onnx_model, model, captured)
    # Last: an optimiser or converter that runs over functions would inline them, and decompress the weights.
    _attach_functions(onnx_model)
    begin("write")
    return save(onnx_model, output, _check)


def _attach_functions(model: ir.Model) -> None:
    used = {node.op_type for node in model.graph.all_nodes() if node.domain == DOMAIN}
    if not used:
        return
    for proto in function_protos(used, OPSET):
        function = ir.serde.deserialize_function(proto)
        model.functions[function.identifier()] = function
    model.opset_imports[DOMAIN] = DOMAIN_VERSION


def _describe(onnx_model: ir.Model, model: CompressedModel, captured: Capture) -> None:
    onnx_model.producer_name = "edgecomp"
    onnx_model.producer_version = edgecomp.__version__
    formats = sorted({factor.format for factor in model.factors.values()})
    onnx_model.metadata_props.update(
        {
            "edgecomp.version": edgecomp.__version__,
            METADATA: str(model.identity),
            PARAMETERS: str(model.parameters),
            "edgecomp.formats": _json(formats),
            "edgecomp.recipe": _json(model.recipe),
            "edgecomp.provenance": _json(model.provenance),
            LIMITS: _json(captured.limits),
            CONDITIONS: _json(captured.conditions),
            "edgecomp.inputs": _json([{"name": spec.name, "dtype": spec.dtype, "dims": spec.dims} for spec in model.inputs]),
        }
    )


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _check(path: Path) -> None:
    try:
        onnx.checker.check_model(path, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the exported model is not valid ONNX: {first_line(error)}") from error
