"""Compressing a model: layers found, passes run, packed layers put in their place."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import edgecomp
from edgecomp import calibration as calibration_inputs
from edgecomp.assembly import dense_tensors, install, require_storable
from edgecomp.calibration import LABELS, MASK, Sample
from edgecomp.checkpoint import CompressedModel
from edgecomp.context import Batch, PassContext
from edgecomp.draft import Draft
from edgecomp.errors import CalibrationError, ConfigError, ModelError, first_line
from edgecomp.formats import dense as dense_format
from edgecomp.layers import draft_of, left_dense
from edgecomp.left_float import left_float, tell_float
from edgecomp.models import LoadedModel, body_of, brought
from edgecomp.models.state import unchanged
from edgecomp.origin import describe_calibration, describe_source, work_key
from edgecomp.passes import PASSES, run_passes
from edgecomp.preflight import Preflight, preflight
from edgecomp.progress import ProgressBar, listed
from edgecomp.recipe import Recipe, load_recipe
from edgecomp.reconstruction import layer_error
from edgecomp.resume import Work, open_work
from edgecomp.rounding import Rounding
from edgecomp.size import share_left_float
from edgecomp.support import TARGETS
from edgecomp.tensor import Factor, LayerPlan, Stage, TensorSpec
from edgecomp.trust import NOBODY, Trust
from edgecomp.unfolding import copied, unfold
from edgecomp.weights import trim_heap
from edgecomp.written import is_self, own_samples, self_key, written_windows

DEFAULT_SAMPLES = 128
DEFAULT_SEQUENCE_LENGTH = 512


def compress(
    model: str | Path | nn.Module | LoadedModel | Callable[[], Any],
    recipe: str | Path | Mapping[str, Any] | Recipe,
    calibration: str | Path | Iterable[Sample] | Callable[[], Iterable[Sample]] | None = None,
    *,
    overrides: Sequence[str] = (),
    samples: int = DEFAULT_SAMPLES,
    sequence_length: int = DEFAULT_SEQUENCE_LENGTH,
    quiet: bool = True,
    work_folder: str | Path | None = None,
    device: str = "cpu",
    sizes: Mapping[str, Sequence[int | str]] | None = None,
    exportable: bool = True,
    state: bool = False,
    targets: Sequence[str] = (),
    trust: Trust = NOBODY,
    self_share: float | None = None,
    self_seed: int = 0,
    written_folder: str | Path | None = None,
    strict: bool = False,
) -> CompressedModel:
    """Compress a model; the original is left as it is.

    Args:
        model: what `edgecomp.models.load_model` takes, a loaded model, a module (whose inputs the calibration tells), or a function
            that makes it, alone or with its `TensorSpec`s.
        recipe: what `edgecomp.recipe.load_recipe` takes.
        calibration: a text file, an `.npz`, `package.module:factory`, or dictionaries of input name to array or tensor: a list, a
            DataLoader, a generator, or a function that returns them; for models of text also a list of texts; `self` for a language
            model that writes its own (`edgecomp.written`).
        overrides: settings such as `passes.0.bits=3` on top of the recipe.
        samples: how many calibration samples to use at most.
        sequence_length: tokens of a sample, where text is cut into samples.
        quiet: no progress bars; what is left dense or out is said all the same, by the logger `edgecomp`.
        work_folder: keeps each finished part here, so that the same call after an interruption continues with identical results;
            remove it (`edgecomp.resume.discard`) when the model is saved. Finished parts are used again where the model's source,
            modules and weights, the recipe, the calibration inputs, the versions and the processor are the same; of a factory's
            code, a changed `forward` alone is not noticed.
        device: where methods that learn do so, such as `cuda`; the result is the same in kind, not in its last bits.
        sizes: of inputs by name, such as `{"x": ("batch", 3, "height", "width")}`: numbers are fixed, names dynamic. Without them
            those of the model's specs, else what the samples vary is dynamic.
        exportable: trace the model first, as every exporter will: one that cannot be exported is refused before the passes run,
            weights that `forward` reads past their layers stay dense, and layers that no output depends on are left out. Without,
            all of that shows at the export.
        state: buffers that forward changes become inputs of their names, and outputs `NAME_out`; otherwise they are refused. The
            first run's are those of the module.
        targets: that the model must be exportable to as far as a trace can tell, of `edgecomp.exporters.TARGETS`; what another one
            lacks is said.
        trust: whether code of the model's makers may run; nothing of it does otherwise.
        self_share: of the samples, how many a language model writes itself beside those of `calibration`, above 0 and below 1.
        self_seed: of what it writes.
        written_folder: keeps what it writes here, for an interrupted run and for other recipes of the same model; remove it as
            `work_folder`.
        strict: refuse a model of which more than 10 % stays float, before the passes run as far as that is known by then; it is
            said otherwise, and `provenance["float"]` has what stays float in any case.

    Raises:
        EdgecompError: `ConfigError`, `ModelError`, `CalibrationError` or `ExportError`, each saying how to mend it; `OutputError`
            where `work_folder` cannot be written.

    """
    resolved = load_recipe(recipe, overrides)
    if isinstance(recipe, str | Path) and not trust.code:
        require_no_code(resolved, overrides, str(recipe))
    if samples < 1 or sequence_length < 2:
        raise ConfigError(
            "samples (--samples) must be at least 1 and sequence_length (--sequence-length) at least 2, got "
            f"{samples} and {sequence_length}"
        )
    _check_targets(targets, exportable)
    where = _device(device)
    loaded = _loaded(model, trust)
    files = loaded.files if isinstance(model, str | Path) else ()  # a model in memory may have been changed since it was loaded
    with unchanged(loaded.module):
        loaded.module.eval()
        progress = ProgressBar(quiet)
        if loaded.tokenizer is not None and loaded.fitting_length(sequence_length) < sequence_length:
            progress.say(f"samples of text have {loaded.fitting_length(sequence_length)} tokens at most: the model takes no more")
        own = own_samples(calibration, self_share, samples)
        given = None if is_self(calibration) else calibration
        inputs = _samples(loaded, given, samples - own, sequence_length)
        if own:
            text = Work()
            if written_folder is not None:
                text, message = open_work(Path(written_folder), self_key(describe_source(loaded.module, files)))
                progress.say(message)
            length = loaded.fitting_length(sequence_length)
            windows = written_windows(loaded, count=own, length=length, seed=self_seed, device=where, progress=progress, work=text)
            inputs += [{"input_ids": window[None], MASK: np.ones_like(window)[None]} for window in windows]
        loaded = loaded.described(inputs, sizes)
        if state:
            loaded, inputs = _carrying(loaded, inputs, progress)
        module = copied(loaded.module)
        unfolded = unfold(body_of(module))
        opened = replace(loaded, module=module)
        found = preflight(opened, inputs, progress.say, targets) if exportable else Preflight(opened)
        unfolded |= found.uses
        for notice in loaded.notices:
            progress.say(notice)
        for why, names in left_dense(body_of(found.model.module)).items():
            progress.say(f"left dense, since {why}: {listed(names)}")
        provenance = {
            "edgecomp": edgecomp.__version__,
            "torch": torch.__version__,
            "source": describe_source(loaded.module, files),
            "calibration": describe_calibration(calibration, inputs)
            | ({"self_written": own, "self_share": self_share, "self_seed": self_seed} if own else {}),
        }
        work = Work()
        if work_folder is not None:
            work, message = open_work(Path(work_folder), work_key(found.model, resolved, provenance, where))
            progress.say(message)
        return _compress(found, unfolded, resolved, inputs, provenance, progress, work, where, strict=strict)


def _compress(
    found: Preflight,
    unfolded: Mapping[str, Any],
    resolved: Recipe,
    inputs: Sequence[Sample],
    provenance: Mapping[str, Any],
    progress: ProgressBar,
    work: Work,
    device: torch.device,
    *,
    strict: bool,
) -> CompressedModel:
    passes = [PASSES[config.method](config) for config in resolved.passes]
    loaded = found.model
    body = body_of(loaded.module)
    draft = draft_of(body, without={*found.elsewhere, *found.unused})
    rounding = Rounding(getattr(torch, resolved.dense_dtype))
    require_storable(body, draft.dense)
    parameters = _parameters(body, found.unused)
    state = body.state_dict(keep_vars=True)
    tell_float(left_float(body, draft, found, {name: state[name] for name in draft.dense}), parameters, None, strict=strict)
    originals = dict(draft.matrices)
    layers = {name: body.get_submodule(name) for name in draft.layers}
    context = PassContext(loaded.module, layers, _batches(inputs, loaded.inputs), progress, loaded.kind, device, work)
    run_passes(passes, draft, context)
    plans, factors = _finish(draft, originals, rounding)

    tensors = dense_tensors(body, plans, draft.tensors, rounding, unused=found.unused)
    progress.say(rounding.notice())
    left = left_float(body, draft, found, tensors, factors)
    tell_float(left, parameters, progress, strict=strict)
    module = _skeleton(loaded.module, state.values())
    install(body_of(module), plans, factors, tensors, found.unused)
    return CompressedModel(
        module=module.eval(),
        inputs=loaded.inputs,
        outputs=loaded.outputs,
        kind=loaded.kind,
        source=loaded.source,
        tokenizer=loaded.tokenizer,
        assets=loaded.assets,
        limits=loaded.limits,
        minimums=loaded.minimums,
        state=loaded.state,
        examples=loaded.examples,
        plans=plans,
        factors=factors,
        dense=tensors,
        unused=sorted(found.unused),
        recipe=resolved.to_json(),
        parameters=parameters,
        unfolded=unfolded,
        layer_parameters=_layer_parameters(draft, plans),
        provenance={
            **provenance,
            "factors": {
                name: draft.records[name] for name in factors if name in draft.records
            },  # in the model's order, resumed or not
            "layers": _layer_errors(draft, plans, factors, originals, progress),
            "float": {"share": share_left_float(left, parameters), "tensors": [row.to_json() for row in left]},
            **({"dense": rounding.to_json()} if resolved.dense_dtype == "float16" else {}),
        },
    )


def require_no_code(recipe: Recipe, overrides: Sequence[str], where: str) -> None:
    """Refuse a recipe's file that names code: what somebody else wrote must not run because it was read.

    Raises:
        ConfigError: with what it names.

    """
    given = {assignment.partition("=")[0].strip() for assignment in overrides}
    for index, config in enumerate(recipe.passes):
        objective, key = getattr(config, "objective", ""), f"passes.{index}.objective"
        if ":" in objective and key not in given:
            raise ConfigError(
                f"the recipe {where} names code that would be run, {key} = {objective!r}: give it yourself "
                f"(--set {key}={objective}), or --trust-code if you trust who wrote the recipe"
            )


def _check_targets(targets: Sequence[str], exportable: bool) -> None:
    unknown = next((target for target in targets if target not in TARGETS), None)
    if unknown is not None:
        raise ConfigError(f"targets must be of {', '.join(TARGETS)}, got {unknown!r}")
    if targets and not exportable:
        raise ConfigError(
            "targets (--target) are held to a trace of the model, which --no-export-check (exportable=False) leaves out: give one "
            "of the two"
        )


def _loaded(model: Any, trust: Trust) -> LoadedModel:
    if isinstance(model, CompressedModel):
        raise ModelError(
            "a model must be one that is not compressed yet, got a CompressedModel: edgecomp.export makes a file of it"
        )
    return model if isinstance(model, LoadedModel) else brought(model, trust)


def _batches(samples: Sequence[Sample], inputs: Sequence[TensorSpec]) -> list[Batch]:
    """The samples as tensors; one that a file or factory calls `labels` is no input."""
    mask = next((position for position, spec in enumerate(inputs) if spec.name == MASK), None)
    return [
        Batch(
            f"sample {number}",
            calibration_inputs.to_tensors(sample, inputs),
            torch.from_numpy(np.asarray(sample[LABELS], order="C")) if LABELS in sample else None,
            mask,
        )
        for number, sample in enumerate(samples)
    ]


def _samples(loaded: LoadedModel, calibration: Any, count: int, sequence_length: int) -> list[Sample]:
    if calibration is None:
        return []
    if isinstance(calibration, str | Path):
        return loaded.samples(str(calibration), count=count, sequence_length=sequence_length)
    if isinstance(calibration, list | tuple) and calibration and all(isinstance(text, str) for text in calibration):
        lines = "\n".join(" ".join(text.split()) for text in calibration)
        return loaded.text_samples(lines, "calibration", count=count, sequence_length=sequence_length)
    return calibration_inputs.given_samples(calibration, count)


def _carrying(loaded: LoadedModel, inputs: Sequence[Sample], progress: ProgressBar) -> tuple[LoadedModel, list[Sample]]:
    """The model with its state as inputs and outputs, and samples that bring it."""
    if not inputs:
        raise CalibrationError("--state needs calibration inputs (--calibration), to see which buffers forward changes")
    loaded = loaded.carrying(inputs[0])
    progress.say(f"{', '.join(loaded.state)} became inputs and outputs: give each run the outputs NAME_out of the run before")
    return loaded, loaded.with_state(inputs)


def _parameters(body: nn.Module, unused: Iterable[str]) -> int:
    """Parameters of a model, without those of layers that are left out: what is smaller for that is not compressed."""
    left_out = {id(parameter) for name in unused for parameter in body.get_submodule(name).parameters(recurse=False)}
    return sum(parameter.numel() for parameter in body.parameters() if id(parameter) not in left_out)


def _layer_parameters(draft: Draft, plans: Mapping[str, LayerPlan]) -> dict[str, int]:
    """Parameters of each layer's weight, a tied one counted with its first layer."""
    counted: set[str] = set()
    parameters = {}
    for name in plans:
        layer = draft.layers[name]
        parameters[name] = 0 if layer.factor in counted else layer.parameters
        counted.add(layer.factor)
    return parameters


def _finish(draft: Draft, originals: Mapping[str, Tensor], rounding: Rounding) -> tuple[dict[str, LayerPlan], dict[str, Factor]]:
    """Plans and factors of the layers that a pass changed; matrices that a pass made and none packed become dense factors."""

    def untouched(name: str, plan: LayerPlan) -> bool:
        own = draft.layers[name]
        as_it_was = plan.terms == ((Stage(own.factor, own.op, own.conv),),) and plan.bias == own.bias
        return as_it_was and draft.matrices.get(own.factor) is originals[own.factor]

    plans = {name: plan for name, plan in draft.plans.items() if not untouched(name, plan)}
    factors: dict[str, Factor] = {}
    for stage in (stage for plan in plans.values() for term in plan.terms for stage in term):
        if stage.factor in draft.factors:
            factors[stage.factor] = draft.factors[stage.factor]
        elif stage.factor not in factors:
            values = rounding(stage.factor, draft.matrices[stage.factor].detach().cpu()).numpy()
            factors[stage.factor] = dense_format.pack(values, values.dtype.type)
    return plans, factors


def _layer_errors(
    draft: Draft,
    plans: Mapping[str, LayerPlan],
    factors: Mapping[str, Factor],
    originals: Mapping[str, Tensor],
    progress: ProgressBar,
) -> dict[str, dict[str, float]]:
    """How far each layer's plan is from its original weight, whatever the passes say; a layer that is lost is told."""
    errors: dict[str, dict[str, float]] = {}
    for name, plan in plans.items():
        error = layer_error(plan, factors, originals[draft.layers[name].factor], draft.layers[name].conv)
        errors[name] = {"relative_error": error}
        trim_heap()
        if error >= 1:
            progress.say(f"warning: {name} is farther from its original than zeros would be (relative error {error:.3g})")
    return errors


def _skeleton(module: nn.Module, filled: Iterable[Tensor]) -> nn.Module:
    """A copy with tensors without memory (meta device) in the place of `filled`.

    What is left, such as buffers that no file holds, is float32 as all of a compressed model.
    """
    memo: dict[int, Any] = {}
    for tensor in filled:
        empty = torch.empty_like(tensor, device="meta", requires_grad=False)
        memo[id(tensor)] = nn.Parameter(empty, requires_grad=False) if isinstance(tensor, nn.Parameter) else empty
    return copy.deepcopy(module, memo).float()


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # PyTorch without CUDA asserts
        raise ConfigError(
            f"device must be one that PyTorch can use here, such as cpu or cuda; {name!r}: {first_line(error)}"
        ) from error
    return device
