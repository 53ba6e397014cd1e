"""Time by operator, from the trace that the measuring program writes (runtimes/runner/backend.h, `StartTrace`)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgecomp.bench.record import OperatorTime, OperatorTimes
from edgecomp.bounded import read_json

LEAST_SHARE = 0.01  # of the time, for a line of its own
_RUN = "model_run"
_NODE = "_kernel_time"


@dataclass
class _Operator:
    """What was gathered of an operator."""

    nodes: set[tuple[str, ...]] = field(default_factory=set)
    calls: int = 0
    total_ns: float = 0


def read_operator_times(trace: Path, runs: int, instructions: Sequence[str]) -> OperatorTimes:
    """The time that each operator took of the last `runs` inferences of a trace.

    An operator's time is its own: what runs inside it (the body of a `Scan`, the parts of a delegate) counts for what that is.

    Args:
        trace: in Chrome's trace format: ONNX Runtime's profile, or what the runner makes of ExecuTorch's events.
        runs: inferences to count; those before warmed up.
        instructions: what each instruction of a program calls; empty for ONNX models, whose events name the operator.

    Raises:
        ValueError: the trace is not what it must be.

    """
    events = [event for event in read_json(trace) if "dur" in event]
    inferences = sorted((event for event in events if event["name"] == _RUN), key=lambda event: event["ts"])[-runs:]
    if runs < 1 or len(inferences) < runs:
        raise ValueError(f"the trace must hold {runs} inferences and holds {len(inferences)}")
    start = inferences[0]["ts"]
    nodes = [event for event in events if event["name"].endswith(_NODE) and event["ts"] >= start]
    operators: dict[str, _Operator] = {}
    for call in _calls(nodes):
        found = operators.setdefault(_name(call.event["args"], instructions), _Operator())
        found.nodes.add(call.node)
        found.calls += 1
        found.total_ns += max(call.own_us, 0) * 1000
    total_ns = round(sum(event["dur"] for event in inferences) * 1000)
    times = [
        OperatorTime(operator=name, nodes=len(found.nodes), calls=found.calls, total_ns=round(found.total_ns))
        for name, found in operators.items()
    ]
    return OperatorTimes(inferences=runs, total_ns=total_ns, operators=sorted(times, key=lambda time: -time.total_ns))


def condense(times: OperatorTimes) -> list[OperatorTime]:
    """The operators that are worth a line, the rest together, and what no operator took: all of the inferences' time."""
    lines = [time for time in times.operators if times.share(time) >= LEAST_SHARE]
    rest = times.operators[len(lines) :]
    if rest:
        sums = {name: sum(getattr(time, name) for time in rest) for name in ("nodes", "calls", "total_ns")}
        lines.append(OperatorTime(operator=f"{len(rest)} other{'s' if len(rest) > 1 else ''}", **sums))
    between = max(times.total_ns - sum(time.total_ns for time in times.operators), 0)
    return [*lines, OperatorTime(operator="the runtime itself", nodes=0, calls=0, total_ns=between)]


@dataclass
class _Call:
    """An event: which node ran, by the names from the outermost node on, and its time less that of the events inside it."""

    event: Mapping[str, Any]
    node: tuple[str, ...]
    own_us: float

    @property
    def end(self) -> float:
        return float(self.event["ts"] + self.event["dur"])


def _calls(events: Sequence[Mapping[str, Any]]) -> list[_Call]:
    """Of one thread, which runs all."""
    calls: list[_Call] = []
    around: list[_Call] = []
    # Of two that begin together, the longer one holds the other.
    for event in sorted(events, key=lambda event: (event["ts"], -event["dur"])):
        while around and around[-1].end <= event["ts"]:
            around.pop()
        call = _Call(event, (*(around[-1].node if around else ()), event["name"]), event["dur"])
        if around:
            around[-1].own_us -= event["dur"]
        around.append(call)
        calls.append(call)
    return calls


def _name(arguments: Mapping[str, Any], instructions: Sequence[str]) -> str:
    if "op_name" in arguments:
        return str(arguments["op_name"])
    called = instructions[arguments["instruction"]]
    # XNNPACK numbers the parts of each delegate: `GELU (NC) #1`.
    return f"{called}: {re.sub(r' #[0-9]+$', '', arguments['part'])}" if "part" in arguments else called
