"""Export to ONNX: one file that runs packed where our operator library is registered, and by standard operators where it is not."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import onnx_ir as ir

import edgecomp
from edgecomp.checkpoint import CompressedModel
from edgecomp.errors import ConfigError, ExportError, first_line
from edgecomp.exported.onnx_file import LIMITS, PARAMETERS
from edgecomp.exporters.capture import Capture, capture
from edgecomp.exporters.options import ExportOptions
from edgecomp.exporters.result import ExportResult
from edgecomp.exporters.to_onnx.functions import function_protos
from edgecomp.exporters.to_onnx.initializers import settle_initializers
from edgecomp.exporters.to_onnx.lower import OPSET, lower
from edgecomp.exporters.to_onnx.packed import check_packed, fill_absent_inputs
from edgecomp.exporters.to_onnx.save import data_path, save
from edgecomp.identity import METADATA
from edgecomp.ops import DOMAIN, DOMAIN_VERSION
from edgecomp.progress import ProgressBar


def output_files(output: Path, options: ExportOptions) -> tuple[Path, ...]:
    """The files that `export` writes for `output`.

    Raises:
        ConfigError: an option that ONNX has no use for.

    """
    if options != ExportOptions():
        raise ConfigError(
            "target onnx leaves sizes free and always has its weights beside it: it takes neither option of executorch"
        )
    return output, data_path(output)


def export(model: CompressedModel, output: Path, progress: ProgressBar, options: ExportOptions) -> ExportResult:
    """Write `model` as `output`, with its weights beside it in `<stem>.onnx.data`.

    Raises:
        ExportError: the model cannot be captured or lowered, or would not run packed.
        OutputError: the files cannot be written.

    """
    with progress.steps("export", 4) as begin:
        begin("capture")
        captured = capture(model)
        begin("lower")
        onnx_model = lower(captured, [spec.name for spec in model.inputs], model.outputs)
        begin("check")
        check_packed(onnx_model.graph, model)
        fill_absent_inputs(onnx_model.graph)
        settle_initializers(onnx_model.graph, model)
        _describe(onnx_model, model, captured)
        # Last: an optimiser or converter that runs over functions would inline them, and decompress the weights.
        _attach_functions(onnx_model)
        begin("write")
        files = save(onnx_model, output, _check)
    return ExportResult(files, sum(path.stat().st_size for path in files), model.parameters)


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
