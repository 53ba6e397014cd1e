"""Where `forward` decides by sizes. A trace follows the way of its own sizes, and others may want another.

`torch.export` says nothing of what a model's code asked: `if x.shape[1] > 10` leaves one branch in the graph, and a comparison with
1 nothing at all, since sizes of 1 are never traced. Its guards hold what PyTorch's own code assumed as well, which is no matter. So
the questions are noted as they are asked, by code that is not PyTorch's or ours.
"""

from __future__ import annotations

import linecache
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import sympy
import torch
from torch import SymBool, SymInt

_OF_PYTORCH_AND_US = (Path(torch.__file__).parent, Path(__file__).parent)
_QUESTIONS = ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__bool__")
# Sizes at which a condition is looked at to know whether it depends on them.
_SIZES = (*range(2, 34), 48, 63, 64, 65, 100, 127, 128, 129, 256, 512, 1000, 1024, 4096)


@dataclass(frozen=True)
class Decision:
    """One question about sizes, and how the trace answered it.

    Args:
        condition: over symbols called as the model's dynamic sizes; true for the sizes of the trace.
        line: of the model's code, that asked.

    """

    condition: sympy.Basic
    line: str

    @property
    def sizes(self) -> tuple[str, ...]:
        """The names of the sizes that it depends on."""
        return tuple(sorted(str(symbol) for symbol in self.condition.free_symbols))

    def holds(self, sizes: Mapping[str, int]) -> bool:
        """Whether these sizes want the way of the trace; a size that is not given is no matter."""
        answer = self.condition.xreplace({_symbol(name): sympy.Integer(size) for name, size in sizes.items()})
        return answer is not sympy.false

    def varies(self, limits: Mapping[str, int]) -> bool:
        """Whether some sizes above 1 and within limits want another way."""
        names = self.sizes
        few = _SIZES if len(names) == 1 else _SIZES[:12]
        ranges = ([size for size in few if size <= limits.get(name, size)] for name in names)
        return any(not self.holds(dict(zip(names, values, strict=True))) for values in product(*ranges))

    def __str__(self) -> str:
        """The condition as one would write it, with the line."""
        return f'{_text(self.condition)} (asked at "{self.line}")'


@dataclass(frozen=True)
class Question:
    """As it was asked, over the symbols of the trace."""

    expression: sympy.Basic
    line: str


@contextmanager
def noted() -> Iterator[list[Question]]:
    """Note what is asked of symbolic sizes meanwhile."""
    questions: list[Question] = []
    plain: dict[str, Callable[..., Any]] = {name: getattr(SymInt, name) for name in _QUESTIONS}

    def asking(name: str) -> Callable[..., Any]:
        def ask(size: SymInt, *other: Any) -> Any:
            answer = plain[name](size, *other)
            frame = sys._getframe(1)
            path = Path(frame.f_code.co_filename)
            if not any(folder in path.parents for folder in _OF_PYTORCH_AND_US):
                expression = _expression(size, answer)
                if expression is not None:
                    questions.append(Question(expression, linecache.getline(str(path), frame.f_lineno).strip()))
            return answer

        return ask

    for name in _QUESTIONS:
        setattr(SymInt, name, asking(name))
    try:
        yield questions
    finally:
        for name, method in plain.items():
            setattr(SymInt, name, method)


def _expression(size: SymInt, answer: Any) -> sympy.Basic | None:
    if isinstance(answer, SymBool):
        return answer.node.expr
    if isinstance(answer, bool) and not isinstance(size.node.expr, sympy.Integer):  # of `if size % 2`
        return sympy.Ne(size.node.expr, 0)
    return None


def decisions(questions: list[Question], sizes: Mapping[str, SymInt], traced: Mapping[str, int]) -> tuple[Decision, ...]:
    """What was decided in a trace, each once.

    Args:
        questions: as they were noted.
        sizes: the trace's dynamic sizes, by name.
        traced: their values in the trace.

    """
    found: dict[str, Decision] = {}
    called = {size.node.expr: _symbol(name) for name, size in sizes.items()}
    at = {_symbol(name): sympy.Integer(size) for name, size in traced.items()}
    for question in questions if sizes else ():
        environment = next(iter(sizes.values())).node.shape_env
        asked = environment.replace(question.expression).xreplace(called)  # sizes that the trace found to be equal are one
        answer = asked.xreplace(at)
        if asked.free_symbols and answer in (sympy.true, sympy.false):  # otherwise by sizes that depend on values
            decision = Decision(asked if answer is sympy.true else sympy.Not(asked), question.line)
            found.setdefault(str(decision.condition), decision)
    return tuple(found.values())


def ways(found: Sequence[Decision], limits: Mapping[str, int]) -> str | None:
    """What to say of an export that is right for some sizes alone; None where it is right for all."""
    wanted = conditions(found, limits)
    if not wanted:
        return None
    return f"forward decides by sizes, and an exported file holds one way: it is right only where {' and '.join(wanted)}"


def conditions(found: Sequence[Decision], limits: Mapping[str, int]) -> list[str]:
    """The conditions that not all sizes within limits meet, as one would write them."""
    return [str(decision) for decision in found if decision.varies(limits)]


def _symbol(name: str) -> sympy.Symbol:
    return sympy.Symbol(name, integer=True, positive=True)


def _text(condition: sympy.Basic) -> str:
    signs = {sympy.Eq: "==", sympy.Ne: "!=", sympy.Gt: ">", sympy.Ge: ">=", sympy.Lt: "<", sympy.Le: "<="}
    sign = signs.get(type(condition))
    if sign is None:
        return str(condition)
    left, right = (_plain(side) for side in condition.args)
    return f"{left} {sign} {right}"


def _plain(side: sympy.Basic) -> str:
    if type(side).__name__ in ("Mod", "PythonMod"):
        return " % ".join(_plain(part) for part in side.args)
    return str(side)
