"""Requirements held to evidence: passed, failed or not judged, a line each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from edgecomp.acceptance.evidence import Evidence
from edgecomp.acceptance.requirements import FIGURES, Limit, Requirements, shown
from edgecomp.errors import RequirementError

Outcome = Literal["passed", "failed", "not judged"]


@dataclass(frozen=True)
class Line:
    """One requirement and what became of it.

    Args:
        requirement: as text.
        outcome: of all that was measured of it; one that fails decides, then one that could not be judged.
        value: the worst that was measured; None where nothing was.
        where: artifact and device of that.
        why: what is to be known of it.

    """

    requirement: str
    outcome: Outcome
    value: float | None
    where: str
    why: str


@dataclass(frozen=True)
class Verdict:
    """What became of all requirements."""

    name: str
    lines: tuple[Line, ...]

    @property
    def outcome(self) -> Outcome:
        """`failed` where a line failed, else `not judged` where one is open, else `passed`."""
        outcomes = {line.outcome for line in self.lines}
        return "failed" if "failed" in outcomes else "not judged" if "not judged" in outcomes else "passed"

    @property
    def summary(self) -> str:
        """The verdict in one line."""
        counts = {outcome: sum(line.outcome == outcome for line in self.lines) for outcome in ("passed", "failed", "not judged")}
        told = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
        word = {"passed": "PASSED", "failed": "FAILED", "not judged": "NOT JUDGED"}[self.outcome]
        return f"{word}: {self.name}, {told}"

    def to_json(self) -> dict[str, Any]:
        """The verdict as JSON values."""
        return {**asdict(self), "outcome": self.outcome}

    def to_markdown(self) -> str:
        """The summary, and a table with a row for each requirement."""
        lines = [self.summary, "", "| requirement | verdict | measured | where | |", "| --- | --- | ---: | --- | --- |"]
        for line in self.lines:
            value = "-" if line.value is None else shown(line.value)
            lines.append(f"| {line.requirement} | {line.outcome} | {value} | {line.where} | {line.why} |")
        return "\n".join(lines) + "\n"


def judge(requirements: Requirements, evidence: Sequence[Evidence]) -> Verdict:
    """Hold every limit to what was measured of its figure."""
    return Verdict(requirements.name, tuple(_line(limit, _meant(requirements, evidence)) for limit in requirements.limits))


def raise_on_failure(verdict: Verdict, *, complete: bool = False) -> None:
    """End a command whose verdict is not a good one.

    Args:
        verdict: the verdict.
        complete: whether a line that could not be judged is one too many.

    Raises:
        RequirementError: naming each such line.

    """
    bad = [line for line in verdict.lines if line.outcome == "failed" or (complete and line.outcome == "not judged")]
    if not bad:
        return
    told = "; ".join(
        f"{line.requirement}: {line.outcome}"
        + ("" if line.value is None else f", {shown(line.value)}")
        + (f" ({line.why})" if line.why else "")
        for line in bad
    )
    raise RequirementError(f"{verdict.name} must hold, and {len(bad)} of {len(verdict.lines)} requirements do not: {told}")


def _meant(requirements: Requirements, evidence: Sequence[Evidence]) -> list[Evidence]:
    """Evidence of the artifacts that are judged."""
    if requirements.artifact is not None:
        return [found for found in evidence if fnmatchcase(found.artifact, requirements.artifact)]
    ours = [found for found in evidence if found.own]
    return ours or list(evidence)


def _line(limit: Limit, evidence: Sequence[Evidence]) -> Line:
    found = [
        entry
        for entry in evidence
        if entry.figure == limit.figure
        and fnmatchcase(entry.device, limit.device)
        and (limit.metric is None or entry.metric == limit.metric)
    ]
    if not found:
        elsewhere = sorted({entry.device for entry in evidence if entry.figure == limit.figure})
        measured = f"measured on {', '.join(elsewhere)} alone; " if elsewhere and limit.device != "*" else "not measured: "
        return Line(str(limit), "not judged", None, "", f"{measured}{FIGURES[limit.figure].how}")
    judged = [(_outcome(limit, entry), entry) for entry in found]
    severity = ("failed", "not judged", "passed")
    outcome, entry = min(judged, key=lambda pair: (severity.index(pair[0]), _goodness(limit, pair[1])))
    value = entry.worst if limit.certain and entry.worst is not None else entry.value
    why = f"{entry.why}; the 95 % interval's worse end" if limit.certain and entry.worst is not None else entry.why
    if limit.certain and entry.value is not None and entry.worst is None:
        why = f"{entry.why}; it has no interval".removeprefix("; ")
    return Line(str(limit), outcome, value, f"{entry.artifact} on {entry.device}", why.removeprefix("; "))


def _outcome(limit: Limit, entry: Evidence) -> Outcome:
    if entry.value is None:
        return "not judged"
    value = entry.worst if limit.certain and entry.worst is not None else entry.value
    return "passed" if limit.holds(value) else "failed"


def _goodness(limit: Limit, entry: Evidence) -> float:
    """Larger is better, whichever way the figure goes."""
    value = entry.worst if limit.certain and entry.worst is not None else entry.value
    return 0.0 if value is None else value if limit.max is None else -value
