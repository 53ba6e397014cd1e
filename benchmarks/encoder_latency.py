"""A compressed encoder beside what stock tools make of the same model: latency of one sentence and of a batch, sessions in turns.

    python benchmarks/peers.py MODEL_FOLDER -o PEERS
    python benchmarks/encoder_latency.py MODEL.onnx PEERS/*.onnx [--batches 1x20,32x20] [--threads 1,2] [--json]

The first model is compared with each of the others. A sample is one run; the ratio is the median over pairs of adjacent runs. On a
busy machine --cpu-time counts the calling thread's own time (one thread only).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime
from provenance import commit, machine, print_json

from edgecomp import native

VOCABULARY = 30000


@dataclass(frozen=True)
class Row:
    """One model on one batch."""

    model: str
    batch: int
    tokens: int
    threads: int
    p50_us: float
    over_first: float  # its time by the first model's


def open_session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """A session with our operators registered."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.register_custom_ops_library(native.get_library_path())
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def compare(paths: Sequence[Path], batch: int, tokens: int, threads: int, repetitions: int, clock: Callable[[], int]) -> list[Row]:
    """Run all models in turns."""
    sessions = [open_session(path, threads) for path in paths]
    ids = np.random.default_rng(0).integers(1000, VOCABULARY, (batch, tokens))
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}

    def run_us(session: onnxruntime.InferenceSession) -> float:
        known = {node.name: feeds[node.name] for node in session.get_inputs()}  # some exports leave out token_type_ids
        start = clock()
        session.run(None, known)
        return (clock() - start) / 1e3

    for session in sessions:
        run_us(session)
    times = np.array([[run_us(session) for session in sessions] for _ in range(repetitions)])
    medians, ratios = np.median(times, axis=0), np.median(times / times[:, :1], axis=0)
    return [
        Row(path.stem, batch, tokens, threads, float(p50), float(ratio))
        for path, p50, ratio in zip(paths, medians, ratios, strict=True)
    ]


def main() -> None:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("models", type=Path, nargs="+", help="ONNX encoders; the first is compared with the others")
    parser.add_argument("--batches", default="1x20,32x20", help="sentences x tokens, separated by commas")
    parser.add_argument("--threads", default="1,2", help="separated by commas")
    parser.add_argument("--repetitions", type=int, default=21)
    parser.add_argument("--cpu-time", action="store_true", help="the calling thread's time, not the clock's; one thread only")
    parser.add_argument("--json", action="store_true", help="one JSON object in place of a table")
    arguments = parser.parse_args()
    if arguments.cpu_time and arguments.threads != "1":
        parser.error("--cpu-time must go with --threads 1: other threads' time would be missing")
    clock = time.thread_time_ns if arguments.cpu_time else time.perf_counter_ns
    rows = []
    for size in arguments.batches.split(","):
        batch, tokens = map(int, size.split("x"))
        for threads in map(int, arguments.threads.split(",")):
            print(f"{size} threads={threads}", file=sys.stderr)
            rows += compare(arguments.models, batch, tokens, threads, arguments.repetitions, clock)
    if arguments.json:
        print_json("encoder_latency", [asdict(row) for row in rows])
        return
    print(", ".join(f"{key}: {value}" for key, value in machine().items()) + f", commit: {commit()}\n")
    print("| model | sentences x tokens | threads | p50 ms | time / first model's |\n| --- | --- | ---: | ---: | ---: |")
    for row in rows:
        print(f"| {row.model} | {row.batch} x {row.tokens} | {row.threads} | {row.p50_us / 1e3:.2f} | {row.over_first:.2f} |")


if __name__ == "__main__":
    main()
