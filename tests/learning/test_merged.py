"""Operations merged on a GPU: the same numbers merged or not, and one by one where a compiler fails, with a word."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from edgecomp.learning import codes
from edgecomp.learning.merged import Merged


def a_gpu_s(tensor: Tensor) -> Any:
    """What `Merged` sees of a tensor on a GPU."""
    return SimpleNamespace(device=torch.device("cuda"), value=tensor)


def doubled(tensor: Any) -> Any:
    return tensor.value * 2


def test_on_a_processor_the_function_runs_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda *a, **k: pytest.fail("nothing is to be compiled"))
    assert Merged(torch.neg)(torch.ones(2)).tolist() == [-1, -1]


def test_where_the_compiler_fails_the_function_runs_as_it_is_and_that_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried = []

    def broken(function: Callable[..., Any], **_: Any) -> Callable[..., Any]:
        def run(*_: Any) -> Any:
            tried.append(function)
            raise RuntimeError("no compiler")

        return run

    monkeypatch.setattr(torch, "compile", broken)
    function = Merged(doubled)
    with caplog.at_level(logging.WARNING, "edgecomp"):
        for _ in range(2):
            assert function(a_gpu_s(torch.ones(2))).tolist() == [2, 2]
    assert len(tried) == 1
    assert [record.getMessage() for record in caplog.records] == [
        "a step of learning takes longer, since PyTorch's compiler cannot merge it: no compiler"
    ]


def test_memory_that_is_exhausted_is_no_fault_of_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "compile", lambda *a, **k: full)
    with pytest.raises(torch.OutOfMemoryError):
        Merged(doubled)(a_gpu_s(torch.ones(2)))


@pytest.mark.parametrize(("candidates", "entries"), [(2, 4), (3, 8), (4, 4)])
def test_gradients_of_scores_are_those_of_their_formula(candidates: int, entries: int) -> None:
    chance = torch.Generator().manual_seed(candidates)
    scores = torch.randn(candidates, 6, 10, generator=chance)
    first = torch.randint(0, entries - candidates + 1, (6, 10), generator=chance).to(torch.uint8)
    row_books = torch.randn(6, entries, generator=chance).mul(40).round().sort(dim=1).values
    of_values = torch.randn(6, 10, generator=chance)

    chosen = first + scores.argmax(dim=0)
    own = row_books.gather(1, chosen)
    of_scores, sums = codes._gradients_of_scores(scores, first, row_books, of_values)
    torch.testing.assert_close(codes._values_of_scores(scores, first, row_books), own)
    for k, likely in enumerate(scores.softmax(dim=0)):
        torch.testing.assert_close(of_scores[k], of_values * likely * (row_books.gather(1, first.long() + k) - own))
    torch.testing.assert_close(sums, torch.zeros(6, entries).scatter_add_(1, chosen, of_values))


def test_the_compiler_merges_what_is_learned() -> None:
    """Dynamo traces the functions without a break, as a GPU's compiler gets them."""
    scores, first = torch.randn(3, 4, 6), torch.zeros(4, 6, dtype=torch.uint8)
    row_books, of_values = torch.randn(4, 4), torch.randn(4, 6)
    for function, arguments in (
        (codes._values_of_scores, (scores, first, row_books)),
        (codes._gradients_of_scores, (scores, first, row_books, of_values)),
        (codes._sums_of_codes, (first, of_values, 4)),
    ):
        traced = torch.compile(function, dynamic=True, backend="eager", fullgraph=True)
        torch.testing.assert_close(traced(*arguments), function(*arguments))
