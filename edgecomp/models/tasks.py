"""What a Hugging Face model of text is for: by its architecture's name, with the head that it has and what that gives."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from edgecomp.models.base import CausalLM, Encoder, ModelKind
from edgecomp.models.bound import Adapter


class Scores(Adapter):
    """A model with a head: `logits` float32, of tokens `[batch, sequence, classes]` or of texts `[batch, classes]`."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor]:
        """Scores for int64 `[batch, sequence]` ids and mask."""
        return (self.body(input_ids=input_ids, attention_mask=attention_mask).logits,)


class Spans(Adapter):
    """A model that finds answers: `start_logits` and `end_logits`, float32 `[batch, sequence]`."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Scores of each token as an answer's first and last, for int64 `[batch, sequence]` ids and mask."""
        found = self.body(input_ids=input_ids, attention_mask=attention_mask)
        return found.start_logits, found.end_logits


@dataclass(frozen=True)
class Task:
    """One purpose.

    Args:
        adapter: gives such models a plain signature.
        outputs: names of what the adapter returns.
        auto: transformers' class that finds the architecture.
        endings: of the architectures' names.
        kind: decides how text becomes inputs.

    """

    adapter: type[Adapter]
    outputs: tuple[str, ...]
    auto: str
    endings: tuple[str, ...]
    kind: ModelKind = "encoder"


# By the name that a checkpoint has for it; of several whose endings fit, the first.
TASKS: dict[str, Task] = {
    "causal-lm": Task(CausalLM, ("logits",), "AutoModelForCausalLM", ("ForCausalLM", "LMHeadModel"), "causal-lm"),
    "masked-lm": Task(Scores, ("logits",), "AutoModelForMaskedLM", ("ForMaskedLM",)),
    "sequence-classification": Task(Scores, ("logits",), "AutoModelForSequenceClassification", ("ForSequenceClassification",)),
    "token-classification": Task(Scores, ("logits",), "AutoModelForTokenClassification", ("ForTokenClassification",)),
    "question-answering": Task(Spans, ("start_logits", "end_logits"), "AutoModelForQuestionAnswering", ("ForQuestionAnswering",)),
    "encoder": Task(Encoder, ("last_hidden_state",), "AutoModel", ("Model",)),
}


def task_of(architecture: str) -> str | None:
    """The task of an architecture by its name; None for one of another kind."""
    return next((name for name, task in TASKS.items() if architecture.endswith(task.endings)), None)
