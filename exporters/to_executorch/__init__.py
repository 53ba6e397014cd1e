"""Export to ExecuTorch: a program in which our operators run the packed weights, and XNNPACK what it can of the rest."""

from __future__ import annotations

from pathlib import Path

from edgecomp.checkpoint import CompressedModel
from edgecomp.errors import ConfigError, ExportError
from edgecomp.exporters.capture import capture
from edgecomp.exporters.options import ExportOptions
from edgecomp.exporters.packed import float16_tensor_bytes
from edgecomp.exporters.result import ExportResult
from edgecomp.exporters.to_executorch.bounds import bounded_sizes, check_bounded
from edgecomp.exporters.to_executorch.lower import check_convolutions, check_loops, finish, lower
from edgecomp.exporters.to_executorch.manifest import manifest
from edgecomp.exporters.to_executorch.rewrite import check_free, split_by_slices
from edgecomp.exporters.to_executorch.save import data_path, save
from edgecomp.exporters.to_executorch.tables import narrow_tables
from edgecomp.files import require_writable_target
from edgecomp.progress import ProgressBar


def check_output(model: CompressedModel, output: Path, options: ExportOptions, overwrite: bool) -> None:
    """Refuse what cannot be written, before long work.

    Raises:
        ConfigError: an option that ExecuTorch has no use for.
        OutputError: a file exists already, or cannot be written.

    """
    if options.for_language:
        raise ConfigError("target executorch has no language models with a cache yet: it takes no option of theirs")
    for path in (output, data_path(output)) if options.external_weights else (output,):
        require_writable_target(path, overwrite=overwrite and not path.is_dir())


def export(model: CompressedModel, output: Path, progress: ProgressBar, options: ExportOptions) -> ExportResult:
    """Write `model` as `output`.

    Raises:
        ExportError: the model cannot be captured or lowered, has a size without a bound, or would not run packed.
        OutputError: the files cannot be written.

    """
    if output.suffix != ".pte":
        raise ExportError(f"an ExecuTorch program has the suffix .pte, got {output}")
    max_sizes = bounded_sizes(model.inputs, options.max_sizes, model.limits)
    with progress.steps("export", 4) as begin:
        begin("capture")
        captured = capture(model, max_sizes)
        check_bounded(captured)
        check_convolutions(captured.program)
        check_loops(captured.program)
        split_by_slices(captured.program)
        widened = float16_tensor_bytes(model) - narrow_tables(captured.program, model)
        begin("lower")
        edge = lower(captured, model, manifest(model, captured, output if options.external_weights else None))
        begin("check")
        check_free(captured)
        program = finish(edge, captured, data_path(output).stem if options.external_weights else None)
        begin("write")
        files = save(program, output, external=options.external_weights)
    if widened > 0:
        progress.say(
            f"notice: ExecuTorch takes dense tensors other than tables as float32: {widened:,} bytes that the checkpoint has in "
            f"float16 are {2 * widened:,} in the program"
        )
    return ExportResult(files, sum(path.stat().st_size for path in files), model.parameters)
