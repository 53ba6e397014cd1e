"""The measured process: `python -m edgecomp.bench._worker`, a request as JSON on stdin, a measurement as JSON on stdout.

It imports numpy and onnxruntime and no more, and does one thing after another: base line, empty session, cold load, first
inference, warm-up, samples, then (when all memory is read) a second, warm load. A C++ runner that answers the same request with the
same JSON can take its place; `edgecomp.bench.record.Measurement` is the answer's schema.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgecomp.artifact.inputs import InputSizes, count_items, count_tokens, make_inputs
from edgecomp.artifact.session import import_onnxruntime, input_specs, open_session, run_session
from edgecomp.bench.memory import cached_bytes, drop_page_cache, read_memory, reset_peak
from edgecomp.errors import ConfigError, EdgecompError

# The smallest useful model: IR version 8, opset 13, one Identity from x to y, both float [1].
EMPTY_MODEL = (
    b"\x08\x08"
    b":;\n\x10\n\x01x\x12\x01y\x22\x08Identity\x12\x05emptyZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01"
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01"
    b"B\x04\n\x00\x10\r"
)


def measure(request: Mapping[str, Any]) -> dict[str, Any]:
    """Measure the artifact that the request names."""
    path = Path(request["artifact"])
    files = [Path(file) for file in request["files"]]
    library = None if request["library"] is None else Path(request["library"])
    threads = request["threads"]

    ort = import_onnxruntime()
    memory = {"baseline": read_memory(files)}
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    empty = ort.InferenceSession(EMPTY_MODEL, options, providers=["CPUExecutionProvider"])
    empty.run(None, {"x": np.zeros(1, np.float32)})
    memory["empty_session"] = read_memory(files)
    del empty, options
    peak_reset = reset_peak()

    dropped = drop_page_cache(files)
    cached = cached_bytes(files)
    start = time.perf_counter_ns()
    session = open_session(path, library, threads)
    cold_ns = time.perf_counter_ns() - start
    memory["loaded"] = read_memory(files)

    inputs = _inputs(session, request)
    samples = _Samples(session, inputs)
    first_ns = samples.take()
    memory["first_inference"] = read_memory(files)
    warmup_ns = [samples.take() for _ in range(request["warmup"])]
    samples_ns, duration_ns = _sample(samples, request)
    memory["steady"] = read_memory(files)

    del session, samples
    gc.collect()
    start = time.perf_counter_ns()
    open_session(path, library, threads)
    warm_ns = time.perf_counter_ns() - start

    return {
        "runtime": "onnxruntime",
        "versions": {"python": sys.version.split()[0], "onnxruntime": ort.__version__, "numpy": np.__version__},
        "kernels": _kernels() if request["ask_kernels"] else {},
        "inputs": {name: f"{value.dtype.name}{list(value.shape)}" for name, value in inputs.items()},
        "batch": count_items(inputs),
        "tokens": count_tokens(inputs),
        "load": {"cold_ns": cold_ns, "warm_ns": warm_ns, "page_cache_dropped": dropped, "cached_bytes_before_cold": cached},
        "first_inference_ns": first_ns,
        "warmup_ns": warmup_ns,
        "samples_ns": samples_ns,
        "duration_ns": duration_ns,
        "memory": memory,
        "peak_reset": peak_reset,
    }


class _Samples:
    """Times single inferences; an error of the first is reported with the inputs' shapes."""

    def __init__(self, session: Any, inputs: dict[str, np.ndarray]) -> None:
        self._session, self._inputs = session, inputs

    def take(self) -> int:
        start = time.perf_counter_ns()
        run_session(self._session, self._inputs)
        return time.perf_counter_ns() - start


def _sample(samples: _Samples, request: Mapping[str, Any]) -> tuple[list[int], int]:
    samples_ns: list[int] = []
    gc.collect()
    gc.disable()  # a collection in the middle of a sample would count as the model's time
    start = time.perf_counter_ns()
    elapsed = 0
    while elapsed < request["max_duration_ns"] and (
        len(samples_ns) < request["min_iterations"] or elapsed < request["min_duration_ns"]
    ):
        samples_ns.append(samples.take())
        elapsed = time.perf_counter_ns() - start
    gc.enable()
    return samples_ns, elapsed


def _inputs(session: Any, request: Mapping[str, Any]) -> dict[str, np.ndarray]:
    specs = input_specs(session)
    if request["inputs"] is None:
        sizes = InputSizes(request["batch"], request["sequence"], request["sizes"])
        return make_inputs(specs, sizes, token_ids=request["token_ids"], seed=request["seed"])
    try:
        with np.load(request["inputs"], allow_pickle=False) as arrays:
            return {spec.name: arrays[spec.name] for spec in specs}
    except (KeyError, ValueError, OSError) as error:
        names = ", ".join(spec.name for spec in specs)
        raise ConfigError(f"{request['inputs']} must be an .npz with the arrays {names}: {error}") from error


def _kernels() -> dict[str, str]:
    """The kernels that our library chose in this process."""
    variants: dict[str, str] = importlib.import_module("edgecomp.native").selected_variants()
    return variants


def main() -> int:
    """Answer one request; on an error that a user can cause, the answer is its class and message."""
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints must not end up in the answer
    try:
        result, code = measure(json.load(sys.stdin)), 0
    except EdgecompError as error:
        result, code = {"error": type(error).__name__, "message": str(error)}, error.exit_code
    with answer:
        json.dump(result, answer)
    return code


if __name__ == "__main__":
    sys.exit(main())
