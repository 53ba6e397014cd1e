"""What a loader returns: a model that can be called, with names for what goes in and out, and how to build it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from edgecomp import calibration
from edgecomp.calibration import Sample, Tokenizer
from edgecomp.errors import CalibrationError, ModelError
from edgecomp.models.bound import Adapter, Bound, bind, body_of, named_tensors
from edgecomp.models.shapes import check_alike, resized, sizes_of, specs_of
from edgecomp.models.state import unchanged
from edgecomp.tensor import TensorSpec
from edgecomp.weights import streamed

_EXAMPLE_SIZE = 2

ModelKind = Literal["encoder", "causal-lm", "generic"]


class Encoder(Adapter):
    """A Hugging Face encoder: token states `last_hidden_state` float32 `[batch, sequence, hidden]`."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor]:
        """Token states for int64 `[batch, sequence]` ids and mask."""
        return (self.body(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state,)


class CausalLM(Adapter):
    """A Hugging Face language model without key-value cache: `logits` float32 `[batch, sequence, vocabulary]`."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor]:
        """Logits for int64 `[batch, sequence]` ids and mask."""
        return (self.body(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits,)


@dataclass
class LoadedModel:
    """A model ready to be compressed or to serve as a reference.

    Args:
        module: in eval mode; once bound, `forward` takes the inputs in order and returns a tuple of tensors or one tensor. Its
            parameters are of any floating dtype, as they are stored, and float32 while they are worked on (`edgecomp.weights`).
        inputs: its inputs; empty where only samples can tell them (`described`).
        outputs: names of its outputs.
        kind: decides how text becomes inputs, and which quality is measured.
        source: where it came from, as JSON values; for Hugging Face models enough to build it again.
        tokenizer: for models of text.
        assets: writes configuration and tokenizer into a folder, for models that have them.
        files: what it was read from and what decides its weights; empty for a model in memory.
        limits: the largest value of dynamic sizes by name, where the model has one, such as the rows of its table of positions.
        minimums: the smallest value of dynamic sizes by name, where the model has one above 1.
        examples: a value of dynamic sizes by name that the model was seen to take.
        state: buffers of the module that are inputs and outputs: `carrying`.
        guessed: dynamic sizes that nobody named and no samples vary; they become fixed where the model leaves them no choice.
        notices: what loading and describing it left out, renamed or took for granted, to be said when it is compressed.

    """

    module: nn.Module
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]
    kind: ModelKind = "generic"
    source: Mapping[str, Any] = field(default_factory=lambda: {"kind": "module"})
    tokenizer: Tokenizer | None = None
    assets: Sequence[Any] = field(default_factory=tuple)  # objects with save_pretrained(folder)
    files: Sequence[Path] = ()
    limits: Mapping[str, int] = field(default_factory=dict)
    minimums: Mapping[str, int] = field(default_factory=dict)
    examples: Mapping[str, int] = field(default_factory=dict)
    state: tuple[str, ...] = ()
    guessed: frozenset[str] = frozenset()
    notices: Sequence[str] = ()

    def described(self, samples: Sequence[Sample] = (), sizes: Mapping[str, Sequence[int | str]] | None = None) -> LoadedModel:
        """The model with its inputs bound by name, and inputs and outputs filled in where they are unknown.

        Args:
            samples: tell inputs (`specs_of`), and are what the model is run on for its outputs; without any it is run on ones.
            sizes: of inputs, in the place of those known or told by the samples.

        Raises:
            CalibrationError: the inputs are unknown, samples disagree about them, or the model does not take them.
            ModelError: a name or a number of axes does not fit, or an output is no tensor.

        """
        absent = next((name for name, tensor in body_of(self.module).named_parameters() if tensor.is_meta), None)
        if absent is not None:
            raise ModelError(f"the model's parameters must have values, but {absent} is on the meta device: load the weights first")
        sizes = sizes or {}
        told, guessed = (self.inputs, frozenset[str]()) if self.inputs else specs_of(samples)
        specs = tuple(resized(spec, sizes) for spec in told)
        if not specs:
            raise CalibrationError(
                "the inputs of this model are unknown: give calibration inputs (--calibration), or TensorSpecs with a factory's "
                "model"
            )
        names = [spec.name for spec in specs]
        unknown = sorted({*sizes} - {*names})
        if unknown:
            raise ModelError(f"--dim must name inputs of the model, which are {', '.join(names)}; got {unknown[0]}")
        check_alike(samples, specs, self.minimums)
        said = {dim for dims in sizes.values() for dim in dims}
        model = replace(
            self,
            inputs=specs,
            examples={**self.examples, **sizes_of(samples, specs)},
            guessed=guessed.intersection(dim for spec in specs for dim in spec.dims) - said,
        ).bound()
        if model.outputs:
            return model
        module = cast(Bound, model.module)
        with streamed(module), unchanged(module):
            inputs = calibration.to_tensors(samples[0] if samples else _ones(specs), model.inputs)
            outputs = named_tensors(calibration.run_module(lambda *arguments: module.run_body(arguments), inputs))
        renamed = [f"an input is called so too: the output {name} is called {name}_out" for name in outputs if name in names]
        return replace(
            model,
            outputs=tuple(f"{name}_out" if name in names else name for name in outputs),
            notices=(*model.notices, *renamed),
        )

    def bound(self) -> LoadedModel:
        """The model with an adapter that takes its inputs by name, then in the order of `forward`; itself where it has one."""
        if isinstance(self.module, Bound) and self.module.state != self.state:
            return replace(self, module=Bound(self.module.body, self.module.binding, self.state).eval())
        if isinstance(self.module, Adapter):
            return self
        specs = {spec.name: spec for spec in self.inputs}
        order, binding = bind(self.module, [name for name in specs if name not in self.state])
        module = Bound(self.module, binding, self.state).eval()
        return replace(self, module=module, inputs=tuple(specs[name] for name in (*order, *self.state)))

    def carrying(self, sample: Sample) -> LoadedModel:
        """The model with the buffers that forward changes as inputs of their names, and as outputs `NAME_out`; described before.

        Args:
            sample: inputs to see by which buffers change.

        Raises:
            ModelError: none does, or an input or output has the name of one already.

        """
        if not isinstance(self.module, Bound):
            raise ModelError("--state is for models of one's own: Hugging Face models are exported without state")
        body = self.module.body
        before = {name: buffer.clone() for name, buffer in body.named_buffers()}
        with unchanged(body):
            self(sample)
            state = tuple(name for name, value in before.items() if not torch.equal(value, body.get_buffer(name)))
        if not state:
            raise ModelError("--state is for models whose forward changes buffers, and this one changes none")
        outputs = tuple(f"{name}_out" for name in state)
        taken = {spec.name for spec in self.inputs}.intersection(state) or {*self.outputs}.intersection(outputs)
        if taken:
            raise ModelError(
                f"buffers that become inputs and outputs must have names of their own, but {min(taken)} is one already"
            )
        specs = tuple(TensorSpec(name, str(before[name].dtype).removeprefix("torch."), tuple(before[name].shape)) for name in state)
        module = Bound(body, self.module.binding, state).eval()
        return replace(self, module=module, inputs=(*self.inputs, *specs), outputs=(*self.outputs, *outputs), state=state)

    def with_state(self, samples: Sequence[Sample]) -> list[Sample]:
        """Samples that start from the module's own state, where they bring none."""
        start = {name: body_of(self.module).get_buffer(name).numpy() for name in self.state}
        return [{**start, **sample} for sample in samples]

    def __call__(self, sample: Sample) -> tuple[Tensor, ...]:
        """The outputs for one sample; the model must be bound.

        Raises:
            CalibrationError: the model does not take the sample.

        """
        with streamed(self.module):
            outputs = calibration.run_module(self.module, calibration.to_tensors(sample, self.inputs))
        return outputs if isinstance(outputs, tuple) else (outputs,)

    def run(self, sample: Sample) -> dict[str, np.ndarray]:
        """The outputs by name, as arrays."""
        return {name: output.numpy() for name, output in zip(self.outputs, self(sample), strict=True)}

    @property
    def _given(self) -> tuple[TensorSpec, ...]:
        return tuple(spec for spec in self.inputs if spec.name not in self.state)

    def fitting_length(self, length: int) -> int:
        """So many tokens, or as many as the model takes."""
        return min(length, self.limits.get("sequence", length))

    def samples(self, spec: str, *, count: int, sequence_length: int) -> list[Sample]:
        """Samples from a text file, an `.npz`, or `package.module:factory`; text needs a model with a tokenizer.

        Samples of text have `sequence_length` tokens at most, and no more than the model takes (`fitting_length`).

        Raises:
            CalibrationError: unreadable, empty, too short, or text for a model that takes none.

        """
        path = Path(spec)
        if path.suffix == ".npz":
            return self.with_state(calibration.npz_samples(path, self._given, count))
        if ":" in spec and not path.exists():
            return self.with_state(calibration.factory_samples(spec, count))
        if path.suffix == ".py":
            raise CalibrationError(
                f"samples in Python are named by a function that yields them, without .py: give {path.stem}:FUNCTION, not {spec}"
            )
        return self.text_samples(calibration.read_text(path), spec, count=count, sequence_length=sequence_length)

    def text_samples(self, text: str, where: str, *, count: int, sequence_length: int) -> list[Sample]:
        """Samples of a text: of encoders its lines, of others its windows.

        Raises:
            CalibrationError: the model takes no text, or it is too short.

        """
        sequence_length = self.fitting_length(sequence_length)
        if self.tokenizer is None:
            raise CalibrationError(
                f"this model has no tokenizer, so its inputs must be an .npz or package.module:factory, got {where}; a Hugging "
                "Face folder brings one in tokenizer.json, or in the files of an older one, such as vocab.txt"
            )
        if self.kind == "encoder":
            return calibration.sentence_samples(text, self.tokenizer, sequence_length, count, where)
        windows = calibration.text_windows(text, self.tokenizer, sequence_length, count, where)
        return [{"input_ids": window[None], "attention_mask": np.ones_like(window)[None]} for window in windows]


def _ones(specs: Sequence[TensorSpec]) -> Sample:
    """Made inputs: ones are valid as features, as indices of any table with two rows, and as masks."""
    sizes = [[_EXAMPLE_SIZE if isinstance(size, str) else size for size in spec.dims] for spec in specs]
    return {spec.name: np.ones(size, spec.dtype) for spec, size in zip(specs, sizes, strict=True)}
