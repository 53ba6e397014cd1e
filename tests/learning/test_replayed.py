"""Which steps are replayed, and which run as they are; a graph itself needs a GPU."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from edgecomp.context import Batch
from edgecomp.learning.objectives import Divergence
from edgecomp.learning.replayed import Replayed


def batch(mask: list[int]) -> Batch:
    given = [torch.zeros(1, 2, dtype=torch.int64), torch.tensor([mask])]
    return Batch("all", given, mask=1, parts=[Batch("sample", given, mask=1)])


class Kept(Divergence):
    """Targets without a model."""

    def __init__(self, *, kept: bool = True) -> None:
        self.kept = kept

    def targets(self, batch: Batch) -> Any:
        return (torch.zeros(1, 2, 3), torch.zeros(1, 2, 3, dtype=torch.int64)) if self.kept else None


@pytest.mark.parametrize(
    ("objective", "joined"),
    [
        (SimpleNamespace(), batch([1, 1])),
        (Kept(kept=False), batch([1, 1])),
        (Kept(), batch([0, 1])),
        (Kept(), None),
    ],
)
def test_what_cannot_be_replayed_runs(objective: Any, joined: Batch | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Replayed, "_record", lambda *_: pytest.fail("nothing is to be recorded"))
    ran: list[Any] = []
    said: list[str] = []
    step = Replayed(SimpleNamespace(leaves=[]), SimpleNamespace(), objective, said.append).wrapped(lambda _: joined, ran.append)  # type: ignore[arg-type]
    step([1, 2])
    assert ran == [[1, 2]] and not said


def test_a_model_that_cannot_be_recorded_runs_and_it_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(Replayed, "_record", refuse)
    ran: list[Any] = []
    said: list[str] = []
    step = Replayed(SimpleNamespace(leaves=[]), SimpleNamespace(), Kept(), said.append).wrapped(  # type: ignore[arg-type]
        lambda _: batch([1, 1]), ran.append
    )
    for numbers in ([1], [2]):
        step(numbers)
    assert ran == [[1], [2]]
    assert said == [
        "steps run kernel by kernel, since the model cannot be recorded as a CUDA graph: "
        "operation not permitted when stream is capturing"
    ]
