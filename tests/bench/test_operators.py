"""Time by operator: what is read from a trace, and what the runner traces."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from onnx_models import embedding_table, save_encoder, save_loop, save_with_our_node

from edgecomp.bench.operators import condense, read_operator_times
from edgecomp.bench.options import BenchOptions
from edgecomp.bench.output import format_records
from edgecomp.bench.record import OperatorTime, OperatorTimes
from edgecomp.bench.runner import run_bench, run_benches
from edgecomp.errors import ConfigError, RuntimeUnavailableError

TIMED = BenchOptions(sequence=8, rounds=1, warmup=1, min_iterations=5, min_duration_s=0, max_spread=1e9, time_operators=True)


def event(name: str, ts: float, dur: float, **arguments: object) -> dict[str, Any]:
    return {"name": name, "ts": ts, "dur": dur, "args": arguments}


def read(folder: Path, events: list[dict[str, Any]], runs: int = 1, instructions: tuple[str, ...] = ()) -> OperatorTimes:
    (folder / "trace.json").write_text(json.dumps(events), encoding="utf-8")
    return read_operator_times(folder / "trace.json", runs, instructions)


def times_of(times: OperatorTimes) -> dict[str, tuple[int, int, int]]:
    return {time.operator: (time.nodes, time.calls, time.total_ns) for time in times.operators}


def test_a_nodes_body_counts_for_what_it_is(tmp_path: Path) -> None:
    events = [
        event("model_run", 0, 100),
        event("scan_kernel_time", 1, 60, op_name="Scan"),
        event("a_kernel_time", 2, 20, op_name="MatMul"),
        event("a_kernel_time", 22, 30, op_name="MatMul"),
        event("scan_kernel_time_fence_before", 1, 1, op_name="Scan"),
        event("a_kernel_time", 61, 10, op_name="MatMul"),  # begins as the other ends: another node of that name, not in its body
    ]
    times = read(tmp_path, events)
    assert times_of(times) == {"MatMul": (2, 3, 60_000), "Scan": (1, 1, 10_000)}
    assert (times.inferences, times.total_ns) == (1, 100_000)
    assert [times.share(time) for time in times.operators] == [0.6, 0.1]


def test_inferences_before_the_last_ones_warmed_up(tmp_path: Path) -> None:
    events = [
        event("model_run", 0, 900),
        event("a_kernel_time", 5, 800, op_name="Add"),
        event("model_run", 1000, 10),
        event("a_kernel_time", 1001, 4, op_name="Add"),
        event("model_run", 2000, 20),
        event("a_kernel_time", 2001, 6.5, op_name="Add"),
    ]
    times = read(tmp_path, events, runs=2)
    assert (times_of(times), times.total_ns) == ({"Add": (1, 2, 10_500)}, 30_000)
    with pytest.raises(ValueError, match="must hold 4 inferences and holds 3"):
        read(tmp_path, events, runs=4)


def test_a_programs_instructions_are_named_by_the_program_and_parts_by_their_delegate(tmp_path: Path) -> None:
    events = [
        event("model_run", 0, 100),
        event("0_kernel_time", 1, 40, instruction=0),
        event("1_kernel_time", 50, 40, instruction=1),
        event("1 GELU (NC) #1_kernel_time", 55, 10, instruction=1, part="GELU (NC) #1"),
        event("1 GELU (NC) #2_kernel_time", 65, 10, instruction=1, part="GELU (NC) #2"),
    ]
    times = read(tmp_path, events, instructions=("edgecomp::lut_matmul.out", "XnnpackBackend"))
    assert times_of(times) == {
        "edgecomp::lut_matmul.out": (1, 1, 40_000),
        "XnnpackBackend": (1, 1, 20_000),
        "XnnpackBackend: GELU (NC)": (2, 2, 20_000),
    }


def test_small_shares_stand_together_and_all_add_up() -> None:
    operators = [OperatorTime(operator=name, nodes=1, calls=2, total_ns=ns) for name, ns in (("A", 900), ("B", 9), ("C", 1))]
    times = OperatorTimes(inferences=2, total_ns=1000, operators=operators)
    assert [(line.operator, line.nodes, line.total_ns) for line in condense(times)] == [
        ("A", 1, 900),
        ("2 others", 2, 10),
        ("the runtime itself", 0, 90),
    ]


def test_onnx_operators_are_timed(tmp_path: Path) -> None:
    record = run_bench(save_encoder(tmp_path / "m.onnx", embedding_table()), TIMED)
    times = record.operators
    assert times is not None
    assert times.inferences == 10
    found = times_of(times)
    assert {name: counts[:2] for name, counts in found.items()} == {"Gather": (1, 10), "Identity": (1, 10)}
    assert sum(time.total_ns for time in times.operators) <= times.total_ns
    assert len(record.rounds) == 1
    assert len(record.rounds[0].measurement.samples_ns) == 5  # the trace is a process of its own
    text = format_records([record], "md")
    assert "| m.onnx | nodes | ms an inference | share |" in text
    assert "| the runtime itself |" in text


def test_what_runs_in_a_body_is_found(tmp_path: Path) -> None:
    """A loop of three additions."""
    times = run_bench(save_loop(tmp_path / "loop.onnx", 3), TIMED).operators
    assert times is not None
    found = times_of(times)
    assert found["Loop"][:2] == (1, 10)
    assert found["Add"][:2] == (1, 30)


def test_programs_operators_are_timed(tied_program: Path) -> None:
    times = run_bench(tied_program, TIMED).operators
    assert times is not None
    found = times_of(times)
    assert found["edgecomp::lut_gather.out"][:2] == (1, 10)
    assert found["edgecomp::lut_matmul.out"][:2] == (2, 20)
    assert all(ns >= 0 for _, _, ns in found.values())
    # ExecuTorch's events have nanoseconds: next to nothing lies between the operators.
    assert 0.5 < sum(time.total_ns for time in times.operators) / times.total_ns <= 1


def test_without_asking_none_are_timed(tmp_path: Path) -> None:
    record = run_bench(save_with_our_node(tmp_path / "m.onnx"), replace(TIMED, time_operators=False, library="none"))
    assert record.operators is None


def test_a_runtime_that_cannot_trace_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(_: object) -> OperatorTimes:
        raise RuntimeUnavailableError("built without event tracing")

    monkeypatch.setattr("edgecomp.bench.job.Job.time_operators", cannot)
    record = run_bench(save_encoder(tmp_path / "m.onnx", embedding_table()), TIMED)
    assert record.validity.valid
    assert record.operators is None
    assert "operators are not timed: built without event tracing" in format_records([record], "md")


def test_emulated_devices_alone_are_refused(tmp_path: Path) -> None:
    model = save_encoder(tmp_path / "m.onnx", embedding_table())
    with pytest.raises(ConfigError, match="devices that are not emulated, got qemu://cortex-a72 alone"):
        run_benches([model], TIMED, devices=["qemu://cortex-a72"])
