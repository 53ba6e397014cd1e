"""A step's gradients as a CUDA graph: recorded once and replayed, since thousands of small kernels run faster than they start.

A model of 30 narrow layers spends more of a step on the processor, which starts its kernels, than on the GPU. A graph starts them
at once. It reads and writes the same memory each time: what is learned stays where it is (`Student.place`), and a step's samples
and targets are copied to where the first ones were.

Only the built-in divergence with kept targets can be recorded: its loss asks the device for nothing in between. Batches of other
shapes than the recorded ones, or with padding, run as they would without.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from edgecomp.context import Batch
from edgecomp.errors import first_line
from edgecomp.learning.objectives import Divergence, Objective, coarse_divergence
from edgecomp.learning.running import RunningDraft
from edgecomp.learning.student import Student
from edgecomp.walk import first_tensor

_WARM_UPS = 2  # runs before the recording, in which libraries choose their kernels
_MOST_APART = 0.02  # relative difference of a replayed loss from the one that was run: matrix products are in bfloat16


class Replayed:
    """The gradients of a batch's loss, by a graph where that is possible.

    Args:
        student: what gets gradients.
        running: the model that runs.
        objective: whose loss.
        say: tells why steps are not replayed.

    """

    def __init__(self, student: Student, running: RunningDraft, objective: Objective, say: Callable[[str], None]) -> None:
        self._student, self._running, self._say = student, running, say
        self._objective = objective if isinstance(objective, Divergence) else None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._memory: list[Tensor] = []  # inputs, then targets
        self._gradients: list[Tensor | None] = []

    def wrapped(
        self, joined: Callable[[Sequence[int]], Batch | None], backward: Callable[[Sequence[int]], None]
    ) -> Callable[[Sequence[int]], None]:
        """What computes the gradients of some samples: a replay of the graph, else `backward`."""

        def run(numbers: Sequence[int]) -> None:
            if not self._replay(numbers, joined):
                backward(numbers)

        return run

    def _replay(self, numbers: Sequence[int], joined: Callable[[Sequence[int]], Batch | None]) -> bool:
        """Compute the gradients, if they can be replayed."""
        if self._objective is None:
            return False
        batch = joined(numbers)
        if batch is None or not _whole(batch):
            return False
        with torch.autocast("cuda", torch.bfloat16):
            targets = self._objective.targets(batch)
        if targets is None:
            self._objective = None
            return False
        memory = [*batch.inputs, *targets]
        if self._graph is None:
            try:
                self._record(memory, len(batch.inputs))
            except RuntimeError as error:
                self._say(f"steps run kernel by kernel, since the model cannot be recorded as a CUDA graph: {first_line(error)}")
                self._objective = self._graph = None
                return False
        if self._graph is None or [t.shape for t in memory] != [t.shape for t in self._memory]:
            return False
        for kept, given in zip(self._memory, memory, strict=True):
            kept.copy_(given)
        self._graph.replay()
        for leaf, gradient in zip(self._student.leaves, self._gradients, strict=True):
            leaf.grad = gradient
        return True

    def _record(self, memory: Sequence[Tensor], inputs: int) -> None:
        """Record the loss and its gradients for samples and targets that stay where these are."""
        self._memory = [tensor.clone() for tensor in memory]
        leaves = self._student.leaves

        def run() -> Tensor:
            for leaf in leaves:
                leaf.grad = None
            with torch.autocast("cuda", torch.bfloat16):
                output = first_tensor(self._running.module(*self._memory[:inputs]))
                loss = coarse_divergence(output, *self._memory[inputs:])
            loss.backward()
            return loss.detach()

        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                expected = run()
        torch.cuda.current_stream().wait_stream(stream)
        for leaf in leaves:
            leaf.grad = None
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = run()
        self._gradients = [leaf.grad for leaf in leaves]
        graph.replay()
        if not (loss - expected).abs() <= _MOST_APART * expected.abs():
            raise RuntimeError(f"replayed, it gives a loss of {float(loss)} where it gives {float(expected)}")
        self._graph = graph


def _whole(batch: Batch) -> bool:
    """Whether every position of the samples counts, seen on the processor."""
    return batch.mask is None or all(bool(part.inputs[batch.mask].all()) for part in batch.parts)
