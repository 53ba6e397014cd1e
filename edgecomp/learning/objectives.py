"""What learning minimises: objectives, those that are built in and those of the user's own.

| name | loss of a batch |
| --- | --- |
| `divergence` | of language models the mean over positions of KL(original || learned) of the next-token distributions |
| | (with `top_tokens` of the original's likeliest ones one by one, and of all others as one) |
| | of others mean((y' - y)²) / mean(y²), y the original's first output |
| `hidden-states` | mean over blocks and rows of |h' - h|² / |h|², h what the original's block gives |
| `cross-entropy` | of the first output and the labels; of language models without labels, of each position and the next token |
| `package.module:factory` | of the `Objective` that the function returns for a `PassContext` |

A row is a position of a sequence, else a sample. Positions whose `attention_mask` is 0, padding, count nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from edgecomp.calibration import copies, import_attribute, run_module
from edgecomp.context import Batch, PassContext
from edgecomp.errors import CalibrationError, ConfigError, EdgecompError, first_line
from edgecomp.walk import first_tensor
from edgecomp.weights import streamed

_IGNORED = -100  # a label that does not count, as in PyTorch
_LEAST_REST = 1e-6  # of a distribution: float32 tells no less from 1


class Objective:
    """What learning minimises, and by what its states are judged.

    One of the user's own derives from this class, or has the same members.

    Args:
        context: the original model, its kind, and the calibration samples.

    """

    def __init__(self, context: PassContext) -> None:
        self.context = context

    @property
    def batches(self) -> Sequence[Batch]:
        """The samples to learn from and to judge by: the calibration samples, where an objective has none of its own.

        Asked for several times: always the same ones.
        """
        return self.context.samples

    def check(self) -> None:
        """Refuse samples that the loss cannot use, before long work.

        Raises:
            CalibrationError: naming the sample.

        """

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        """The loss, a scalar of autograd and a mean over the rows of the batch.

        Args:
            module: what is learned; it takes the inputs and gives the outputs of the original model, `context.placed_module`.
            batch: a sample, or several of equal shapes joined along their first axis, on the device.

        """
        raise NotImplementedError

    def judge(self, module: nn.Module, batch: Batch) -> float:
        """How bad the outputs for a sample are that was not learned from; by default the loss."""
        return float(self.loss(module, batch))


class Divergence(Objective):
    """How far the outputs are from the original's.

    Args:
        context: as of every objective.
        top_tokens: of language models the original's likeliest tokens that are compared one by one, the others together as one;
            these targets are kept on the device, 6 bytes a token, and the original runs once for each sample. 0: all tokens.

    """

    def __init__(self, context: PassContext, top_tokens: int = 0) -> None:
        super().__init__(context)
        self._top_tokens = top_tokens
        self._kept: dict[int, tuple[Batch, Tensor, Tensor]] = {}  # by sample: log-probabilities and tokens [sequence, top]

    def check(self) -> None:
        """Refuse likeliest tokens of a model that is no language model."""
        if self._top_tokens and self.context.kind != "causal-lm":
            raise ConfigError(
                f"top_tokens is for language models, and this model is of kind {self.context.kind}: set top_tokens = 0 "
                "(--set passes.N.top_tokens=0)"
            )

    def targets(self, batch: Batch) -> tuple[Tensor, Tensor] | None:
        """Log-probabilities float32 and tokens int64 `[batch, sequence, top]` of the original; None where all are compared.

        Args:
            batch: one sample, or several joined, on the device.

        """
        if not self._top_tokens:
            return None
        parts = batch.parts or [batch]
        missing = [number for number, part in enumerate(parts) if id(part) not in self._kept]
        if missing:
            rows = [len(part.inputs[0]) for part in parts]
            with torch.no_grad():
                scores = first_tensor(self.context.placed_module(*copies(batch.inputs)))
                for number, part_scores in enumerate(scores.split(rows)):
                    if number in missing:
                        likely = torch.log_softmax(part_scores.float(), dim=-1)
                        found, tokens = likely.topk(min(self._top_tokens, likely.shape[-1]), dim=-1)
                        self._kept[id(parts[number])] = parts[number], found.half(), tokens.int()
        kept = [self._kept[id(part)] for part in parts]
        return torch.cat([found for _, found, _ in kept]).float(), torch.cat([tokens for _, _, tokens in kept]).long()

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        """KL divergence of language models, relative mean square of others."""
        targets = self.targets(batch)
        if targets is not None:
            output = first_tensor(module(*copies(batch.inputs)))
            return coarse_divergence(output, *targets, counted(batch, output))
        with torch.no_grad():
            target = first_tensor(self.context.placed_module(*copies(batch.inputs)))
        output = first_tensor(module(*copies(batch.inputs)))
        distance = _kullback_leibler if self.context.kind == "causal-lm" else _relative_square
        return distance(output, target, counted(batch, target))


class HiddenStates(Objective):
    """How far what the blocks give is from what the original's blocks give."""

    def check(self) -> None:
        """Refuse a model without blocks."""
        if not self.context.structure.blocks:
            raise ConfigError(
                f'the objective hidden-states needs {NEEDS_BLOCKS}: set objective = "divergence" '
                "(--set passes.N.objective=divergence)"
            )

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        """The mean over the blocks."""
        with torch.no_grad():
            targets = self._states(self.context.placed_module, batch)
        states = self._states(module, batch)
        pairs = zip(states, targets, strict=True)
        return torch.stack([row_error(state, target, counted(batch, target)) for state, target in pairs]).mean()

    def _states(self, module: nn.Module, batch: Batch) -> list[Tensor]:
        states: list[Tensor] = []
        blocks = [module.get_submodule(name) for name in self.context.structure.blocks]

        def keep(_: nn.Module, __: Any, output: Any) -> None:
            states.append(first_tensor(output).clone())  # the next block may change it in place

        with _hooks([block.register_forward_hook(keep) for block in blocks]):
            module(*copies(batch.inputs))
        return states


class CrossEntropy(Objective):
    """The loss that models are trained with, of labels or of the next tokens."""

    def check(self) -> None:
        """Refuse samples without labels, without one that counts, or with one that is no class of the model's."""
        classes: dict[object, int] = {}
        for batch in self.batches:
            labels = self._labels(batch)
            # Tokens fit the outputs of any sample as they do those of the first.
            sizes = None if batch.labels is None else (labels.shape, *(tensor.shape for tensor in batch.inputs))
            if sizes not in classes:
                classes[sizes] = self._classes(batch, labels)
            known = labels[labels != _IGNORED]
            if not known.numel():
                raise CalibrationError(f"{batch.name} must hold a label that counts, or a next token, and holds none")
            if known.min() < 0 or known.max() >= classes[sizes]:
                raise CalibrationError(
                    f"labels of {batch.name} must be classes of the model, 0 to {classes[sizes] - 1}, or {_IGNORED} for none, "
                    f"got {int(known.min())} to {int(known.max())}"
                )

    def _classes(self, batch: Batch, labels: Tensor) -> int:
        with streamed(self.context.module):
            output = first_tensor(run_module(self.context.module, batch.inputs))
        return self._scores(output, labels, batch.name).shape[1]

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        """Mean over the labels that count."""
        labels = self._labels(batch)
        scores = self._scores(first_tensor(module(*copies(batch.inputs))), labels, batch.name)
        return nn.functional.cross_entropy(scores.float(), labels, ignore_index=_IGNORED)

    def _labels(self, batch: Batch) -> Tensor:
        """Labels, of language models those of all positions but the first; where they are the tokens, without padding."""
        causal = self.context.kind == "causal-lm"
        labels = batch.inputs[0] if causal and batch.labels is None else batch.labels
        mask = _mask(batch) if causal and batch.labels is None else None
        if labels is not None and mask is not None and mask.ndim == 2 and mask.shape == labels.shape:
            known = torch.cat([mask[:, :1], mask[:, :-1]], dim=1)  # the position that foretells a token
            labels = labels.masked_fill(~(mask & known), _IGNORED)
        if labels is None:
            raise CalibrationError(
                f"cross-entropy needs labels, and {batch.name} has none: give calibration samples an array `labels`, from an .npz "
                "or package.module:factory"
            )
        if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
            raise CalibrationError(f"labels of {batch.name} must be integers, got {str(labels.dtype).removeprefix('torch.')}")
        if causal and labels.ndim != 2:
            raise CalibrationError(f"labels of {batch.name} must have the shape [batch, sequence], got {list(labels.shape)}")
        return (labels[:, 1:] if causal else labels).to(torch.int64)

    def _scores(self, output: Tensor, labels: Tensor, name: str) -> Tensor:
        """The first output, its classes along axis 1 as PyTorch's loss has them; of language models without the last position."""
        if self.context.kind == "causal-lm":
            output = output[:, :-1]
        if output.ndim > 1 and output.shape[:-1] == labels.shape:
            return output.movedim(-1, 1)
        if output.ndim > 2 and (output.shape[0], *output.shape[2:]) == tuple(labels.shape):
            return output
        raise CalibrationError(
            f"labels of {name} must have the shape of the first output {list(output.shape)} without its classes, "
            f"got {list(labels.shape)}"
        )


OBJECTIVES: dict[str, type[Objective]] = {
    "divergence": Divergence,
    "hidden-states": HiddenStates,
    "cross-entropy": CrossEntropy,
}

NEEDS_BLOCKS = (
    "a model with blocks in an nn.ModuleList or nn.Sequential that run one after the other, each on the output of the one before "
    "it and nothing else, and this one has none"
)


def make_objective(name: str, context: PassContext, *, top_tokens: int = 0) -> Objective:
    """The objective of that name for a model, its samples checked; `top_tokens` is for `divergence`.

    Raises:
        ConfigError: no such objective, or one that does not suit the model.
        CalibrationError: a sample that it cannot use.

    """
    if name in OBJECTIVES:
        made: Any = Divergence(context, top_tokens) if top_tokens else OBJECTIVES[name](context)
    elif ":" in name:
        made = _of_factory(name, context)
    else:
        raise ConfigError(f"objective must be one of {', '.join(OBJECTIVES)}, or package.module:factory, got {name!r}")
    batches = made.batches
    if not len(batches):
        raise CalibrationError(f"the objective {name} must have at least one sample, got none")
    for batch in batches:
        require_usable(batch)
    made.check()
    checked: Objective = made
    return checked


def _of_factory(name: str, context: PassContext) -> Any:
    factory = import_attribute(name, ConfigError)
    try:
        made = factory(context)
        members = all(callable(getattr(made, member, None)) for member in ("loss", "judge", "check")) and hasattr(made, "batches")
    except EdgecompError:
        raise
    except Exception as error:  # the user's own code may raise anything
        raise ConfigError(f"{name} must return an Objective for a PassContext, but fails: {first_line(error)}") from error
    if not members:
        raise ConfigError(f"{name} must return an edgecomp.learning.objectives.Objective, got {type(made).__name__}")
    return made


def require_usable(batch: Batch) -> None:
    """Refuse a sample without inputs, or with some that are empty or not finite.

    Raises:
        CalibrationError: naming it.

    """
    if not batch.inputs:
        raise CalibrationError(f"{batch.name} must hold the model's inputs, and holds none")
    for position, tensor in enumerate(batch.inputs):
        if not tensor.numel():
            raise CalibrationError(
                f"inputs to learn from must not be empty, but input {position} of {batch.name} is {list(tensor.shape)}"
            )
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise CalibrationError(
                f"inputs to learn from must be finite, but input {position} of {batch.name} holds NaN or infinity"
            )
    mask = _mask(batch)
    if mask is not None and mask.ndim == 2 and not mask.any():
        raise CalibrationError(f"the attention mask of {batch.name} must have a position that counts, and is 0 everywhere")


def _mask(batch: Batch) -> Tensor | None:
    """Which positions count: bool `[batch, sequence]`, or None where no input tells."""
    return None if batch.mask is None else batch.inputs[batch.mask] != 0


def counted(batch: Batch, target: Tensor) -> Tensor | None:
    """The positions of a target `[batch, sequence, features]` that count: bool `[batch, sequence]`, or None where all do.

    As `edgecomp.verify` has it: a target of other sizes than the mask, such as one vector a sentence, counts as a whole.
    """
    mask = _mask(batch)
    if mask is None or target.ndim != 3 or target.shape[:2] != mask.shape or bool(mask.all()):
        return None
    return mask.to(target.device)


def row_error(output: Tensor, target: Tensor, rows: Tensor | None = None) -> Tensor:
    """Mean over rows of |output - target|² / |target|²; a row is a position of `[batch, sequence, features]`, else a sample.

    Args:
        output: what is judged.
        target: what it should be.
        rows: which positions count (`counted`); None for all.

    """
    first = 2 if target.ndim == 3 else 1
    squares = (output - target).square().flatten(first).sum(dim=-1)
    errors = squares / target.square().flatten(first).sum(dim=-1).clamp_min(1e-30)
    return (errors if rows is None else errors[rows]).mean()


def _kullback_leibler(output: Tensor, target: Tensor, rows: Tensor | None) -> Tensor:
    """Mean over positions of KL(target || output), of logits `[..., vocabulary]`."""
    log_target = torch.log_softmax(target.float(), dim=-1)
    log_output = torch.log_softmax(output.float(), dim=-1)
    divergence = (log_target.exp() * (log_target - log_output)).sum(dim=-1)
    return (divergence if rows is None else divergence[rows]).mean()


def coarse_divergence(output: Tensor, likely: Tensor, tokens: Tensor, rows: Tensor | None = None) -> Tensor:
    """Mean over positions of the divergence of some tokens one by one and of all others as one, a lower bound of the whole.

    Args:
        output: what is learned gives: logits `[batch, sequence, vocabulary]`.
        likely: log-probabilities that the original gives to some tokens, float32 `[batch, sequence, top]`.
        tokens: these tokens, int64.
        rows: which positions count (`counted`); None for all.

    """
    scores = output.float()
    log_output = scores.gather(-1, tokens) - scores.logsumexp(dim=-1, keepdim=True)
    one_by_one = (likely.exp() * (likely - log_output)).sum(dim=-1)
    # What is left of 1 is a difference of sums in float32, and nothing is where all tokens are likely ones.
    rest, rest_output = [(1 - logs.exp().sum(dim=-1)).clamp_min(_LEAST_REST) for logs in (likely, log_output)]
    divergence = one_by_one + rest * (rest.log() - rest_output.log())
    return (divergence if rows is None else divergence[rows]).mean()


def _relative_square(output: Tensor, target: Tensor, rows: Tensor | None) -> Tensor:
    if rows is not None:
        output, target = output[rows], target[rows]
    return (output.float() - target.float()).square().mean() / target.float().square().mean().clamp_min(1e-30)


@contextmanager
def _hooks(handles: Sequence[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
