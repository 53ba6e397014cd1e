"""What a loader returns: a model that can be called, with names for what goes in and out, and how to build it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn

from edgecomp import calibration
from edgecomp.calibration import Sample, Tokenizer
from edgecomp.errors import CalibrationError
from edgecomp.models.outputs import flattened, is_plain, names_of, tensors_of
from edgecomp.tensor import TensorSpec
from edgecomp.weights import streamed

_EXAMPLE_SIZE = 2

ModelKind = Literal["encoder", "causal-lm", "generic"]


@dataclass
class LoadedModel:
    """A model ready to be compressed or to serve as a reference.

    Args:
        module: in eval mode; `forward` takes the inputs in order and returns a tuple of tensors or one tensor. Its parameters are
            of any floating dtype, as they are stored, and float32 while they are worked on (`edgecomp.weights`).
        inputs: its inputs; empty where only a sample can tell them (`with_sample`).
        outputs: names of its outputs.
        kind: decides how text becomes inputs, and which quality is measured.
        source: where it came from, as JSON values; for Hugging Face models enough to build it again.
        tokenizer: for models of text.
        assets: writes configuration and tokenizer into a folder, for models that have them.
        files: what it was read from and what decides its weights; empty for a model in memory.

    """

    module: nn.Module
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]
    kind: ModelKind = "generic"
    source: Mapping[str, Any] = field(default_factory=lambda: {"kind": "module"})
    tokenizer: Tokenizer | None = None
    assets: Sequence[Any] = field(default_factory=tuple)  # objects with save_pretrained(folder)
    files: Sequence[Path] = ()

    def with_sample(self, sample: Sample) -> LoadedModel:
        """A model with inputs and outputs filled in from a sample, where they are unknown: axis 0 is a dynamic `batch`."""
        model = self
        if not model.inputs:
            inputs = tuple(
                TensorSpec(name, np.asarray(value).dtype.name, ("batch", *np.shape(value)[1:]))
                for name, value in sample.items()
                if name != calibration.LABELS
            )
            model = replace(model, inputs=inputs)
        if not model.outputs:
            result = model._result(sample)
            outputs = names_of(result, [spec.name for spec in model.inputs])
            if not is_plain(result):
                source = {**model.source, "flattened": True}
                model = replace(model, module=flattened(model.module), source=source)
            model = replace(model, outputs=outputs)
        return model

    def with_outputs(self) -> LoadedModel:
        """The model with outputs filled in from a run on made inputs, where they are unknown; the inputs must be known."""
        if self.outputs:
            return self
        sizes = [[_EXAMPLE_SIZE if isinstance(size, str) else size for size in spec.dims] for spec in self.inputs]
        # Ones are valid as features, as indices of any table with two rows, and as masks.
        return self.with_sample({spec.name: np.ones(size, spec.dtype) for spec, size in zip(self.inputs, sizes, strict=True)})

    def __call__(self, sample: Sample) -> tuple[Tensor, ...]:
        """The outputs for one sample.

        Raises:
            CalibrationError: the model does not take the sample.
            ModelError: an output is no tensor.

        """
        return tensors_of(self._result(sample))

    def _result(self, sample: Sample) -> Any:
        """What the module returns, of whatever structure."""
        with streamed(self.module):
            return calibration.run_module(self.module, calibration.to_tensors(sample, self.inputs))

    def run(self, sample: Sample) -> dict[str, np.ndarray]:
        """The outputs by name, as arrays."""
        return {name: output.numpy() for name, output in zip(self.outputs, self(sample), strict=True)}

    def samples(self, spec: str, *, count: int, sequence_length: int) -> list[Sample]:
        """Samples from a text file, an `.npz`, or `package.module:factory`; text needs a model with a tokenizer.

        Raises:
            CalibrationError: unreadable, empty, too short, or text for a model that takes none.

        """
        path = Path(spec)
        if path.suffix == ".npz":
            return calibration.npz_samples(path, self.inputs, count)
        if ":" in spec and not path.exists():
            return calibration.factory_samples(spec, count)
        if path.suffix == ".py":
            raise CalibrationError(
                f"samples in Python are named by a function that yields them, without .py: give {path.stem}:FUNCTION, not {spec}"
            )
        text = calibration.read_text(path)
        if self.tokenizer is None:
            raise CalibrationError(
                f"this model has no tokenizer, so its inputs must be an .npz or package.module:factory, got {spec}; a Hugging Face "
                "folder brings one in tokenizer.json, or in the files of an older one, such as vocab.txt"
            )
        if self.kind == "encoder":
            return calibration.sentence_samples(text, self.tokenizer, sequence_length, count, spec)
        windows = calibration.text_windows(text, self.tokenizer, sequence_length, count, spec)
        return [{"input_ids": window[None], "attention_mask": np.ones_like(window)[None]} for window in windows]
