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
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime
from records import add_json_option, print_rows

from edgecomp import native

VOCABULARY = 30000


def open_session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """A session with our operators registered."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.register_custom_ops_library(native.get_library_path())
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def compare(
    paths: Sequence[Path], batch: int, tokens: int, threads: int, repetitions: int, clock: Callable[[], int]
) -> dict[str, Any]:
    """Run all models in turns; a row has the first model's median time, and of each other its own, and its ratio to the first."""
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
    row = {"model": paths[0].stem, "batch": batch, "tokens": tokens, "threads": threads, "us": float(medians[0])}
    for path, p50, ratio in list(zip(paths, medians, ratios, strict=True))[1:]:
        row |= {f"{path.stem}_us": float(p50), f"{path.stem}_over_model": float(ratio)}
    return row


def main() -> None:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("models", type=Path, nargs="+", help="ONNX encoders; the first is compared with the others")
    parser.add_argument("--batches", default="1x20,32x20", help="sentences x tokens, separated by commas")
    parser.add_argument("--threads", default="1,2", help="separated by commas")
    parser.add_argument("--repetitions", type=int, default=21)
    parser.add_argument("--cpu-time", action="store_true", help="the calling thread's time, not the clock's; one thread only")
    add_json_option(parser)
    arguments = parser.parse_args()
    if arguments.cpu_time and arguments.threads != "1":
        parser.error("--cpu-time must go with --threads 1: other threads' time would be missing")
    clock = time.thread_time_ns if arguments.cpu_time else time.perf_counter_ns
    rows = []
    for size in arguments.batches.split(","):
        batch, tokens = map(int, size.split("x"))
        for threads in map(int, arguments.threads.split(",")):
            print(f"{size} threads={threads}", file=sys.stderr)
            rows.append(compare(arguments.models, batch, tokens, threads, arguments.repetitions, clock))
    print_rows("encoder_latency", rows, as_json=arguments.json)


if __name__ == "__main__":
    main()
