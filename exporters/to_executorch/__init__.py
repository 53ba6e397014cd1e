"""Export to ExecuTorch: a program in which our operators run the packed weights, and XNNPACK what it can of the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgecomp.checkpoint import CompressedModel
from edgecomp.errors import ConfigError, ExportError
from edgecomp.exported.language_folder import PROGRAM
from edgecomp.exporters.capture import capture
from edgecomp.exporters.language_folder import check_folder, is_folder, stop_tokens, write_assets, write_description, written
from edgecomp.exporters.options import ExportOptions
from edgecomp.exporters.packed import float16_tensor_bytes
from edgecomp.exporters.result import ExportResult
from edgecomp.exporters.to_executorch.bounds import bounded_sizes, check_bounded, unbounded
from edgecomp.exporters.to_executorch.lower import check_convolutions, check_loops, finish, lower
from edgecomp.exporters.to_executorch.manifest import manifest
from edgecomp.exporters.to_executorch.rewrite import check_free, split_by_slices
from edgecomp.exporters.to_executorch.save import data_path, save
from edgecomp.exporters.to_executorch.tables import narrow_tables
from edgecomp.files import replace_folder, require_writable_target
from edgecomp.language import DecoderOptions, with_buffers
from edgecomp.language.build import SEQUENCE
from edgecomp.models import body_of
from edgecomp.progress import ProgressBar


def check_output(model: CompressedModel, output: Path, options: ExportOptions, overwrite: bool) -> None:
    """Refuse what cannot be written, before long work.

    Raises:
        ConfigError: an option that ExecuTorch has no use for.
        OutputError: a file exists already, or cannot be written.

    """
    if is_folder(model, output):
        if options.attention != "fused" or options.machine is not None or options.bundle is not None:
            raise ConfigError(
                "target executorch attends by our operators, whose library the application brings: it takes no --attention, --for "
                "or --bundle"
            )
        check_folder(output, overwrite)
        return
    if options.for_language:
        what = "a file without a cache" if model.kind == "causal-lm" else f"a model of kind {model.kind}"
        raise ConfigError(f"cache, logits and context are chosen for a language model's folder, and {output} is {what}")
    for path in (output, data_path(output)) if options.external_weights else (output,):
        require_writable_target(path, overwrite=overwrite and not path.is_dir())


def export(model: CompressedModel, output: Path, progress: ProgressBar, options: ExportOptions) -> ExportResult:
    """Write `model` as `output`; a language model with its cache as a folder.

    Raises:
        ExportError: the model cannot be captured or lowered, has a size without a bound, or would not run packed.
        OutputError: the files cannot be written.

    """
    if is_folder(model, output):
        return _export_folder(model, output, progress, options)
    if output.suffix != ".pte":
        raise ExportError(f"an ExecuTorch program has the suffix .pte, got {output}")
    with progress.steps("export", 4) as begin:
        return _export_file(model, output, begin, options, {}, progress)


def _export_folder(model: CompressedModel, output: Path, progress: ProgressBar, options: ExportOptions) -> ExportResult:
    """A program that ExecuTorch's `TextLLMRunner` loads, its tokenizer, and what `edgecomp generate` needs."""
    with progress.steps("export", 5) as begin, replace_folder(output, overwrite=True) as folder:
        begin("cache")
        decoder = with_buffers(model, DecoderOptions("fused", options.cache, last=True, context=options.context))
        tokens = write_assets(model, folder)
        config: Any = body_of(model.module).config
        context, vocabulary = decoder.limits[SEQUENCE], int(config.vocab_size)
        chunk = bounded_sizes(decoder.inputs, options.max_sizes, decoder.limits)[SEQUENCE]
        methods = {
            "get_max_seq_len": chunk,
            "get_max_context_len": context,
            "get_vocab_size": vocabulary,
            "get_eos_ids": stop_tokens(tokens),
            "use_kv_cache": True,
            "enable_dynamic_shape": True,
            "use_sdpa_with_kv_cache": False,
        }
        _export_file(decoder, folder / PROGRAM, begin, options, methods, progress)
        write_description(folder, "executorch", options, context=context, vocabulary=vocabulary, stop=stop_tokens(tokens))
    return written(model, output, PROGRAM, progress)


def _export_file(
    model: CompressedModel,
    output: Path,
    begin: Callable[[str], None],
    options: ExportOptions,
    methods: Mapping[str, Any],
    progress: ProgressBar,
) -> ExportResult:
    """Write a program, with more methods without inputs, and what they return."""
    begin("capture")
    own = model.limits
    if unbounded(model.inputs, options.max_sizes, own):  # the model may know better, such as by its table of positions
        own = {**capture(model).limits, **own}
    max_sizes = bounded_sizes(model.inputs, options.max_sizes, own)
    captured = capture(model, max_sizes)
    check_bounded(captured)
    check_convolutions(captured.program)
    check_loops(captured.program)
    split_by_slices(captured.program)
    widened = float16_tensor_bytes(model) - narrow_tables(captured.program, model)
    begin("lower")
    edge = lower(captured, model, manifest(model, captured, output if options.external_weights else None), methods)
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
