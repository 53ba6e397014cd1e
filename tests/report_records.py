"""Whole records of every kind that a report reads, as small as they may be."""

from __future__ import annotations

from typing import Any

FILE = {"name": "m.onnx", "bytes": 10, "sha256": "0"}
MEMORY = dict.fromkeys(
    ["anonymous_bytes", "file_backed_bytes", "artifact_file_backed_bytes", "resident_bytes", "pss_bytes", "peak_resident_bytes"],
    4096,
)
CONDITIONS = {"temperatures_celsius": {"cpu": 40.0}, "frequencies_hz": [10], "throttling": {}, "load_average_1min": 0.5}
MEASUREMENT = {
    "runtime": "onnxruntime", "versions": {"onnxruntime": "1.32.0"}, "kernels": {"lut_matmul": "avx2"},
    "inputs": {"x": "float32[1]"},
    "outputs": [{"name": "y", "type": "float32", "sha256": "0"}], "batch": 1, "tokens": 8,
    "load": {"cold_ns": 5, "warm_ns": 4, "page_cache_dropped": True, "cached_bytes_before_cold": 0},
    "first_inference_ns": 3, "warmup_ns": [2], "samples_ns": [5, 6, 7], "duration_ns": 18, "frequency_start_hz": 10,
    "frequency_end_hz": 10, "wall_clock_jump_ns": 0, "suspended_ns": 0,
    "memory": dict.fromkeys(("baseline", "empty_session", "loaded", "first_inference", "steady"), MEMORY), "peak_reset": True,
}  # fmt: skip
BENCH: dict[str, Any] = {
    "kind": "bench", "schema_version": 2, "created_utc": "2026-01-01", "command": ["edgecomp"], "device": "local",
    "options": {"threads": 1},
    "artifact": {"name": "m.onnx", "bytes": 10, "files": [FILE], "uses_edgecomp": True,
                 "library": "l.so"},
    "environment": {"cpu_model": "c", "cpu_features": ["avx2"], "cpu_count": 2, "usable_cpus": 2, "memory_bytes": 100,
                    "governor": "g",
                    "board": "b", "system": "s", "kernel": "k", "architecture": "x86_64", "libc": "l", "emulation": "no",
                    "edgecomp_version": "0", "git_commit": None},
    "rounds": [{"started_utc": "2026-01-01", "cooled_s": 0.0, "before": CONDITIONS, "after": CONDITIONS, "measurement": MEASUREMENT,
                "instructions": 100}],
    "summary": {
        "latency": {"count": 3, "min_ns": 5, "p10_ns": 5, "p50_ns": 6, "p90_ns": 7, "p99_ns": 7, "max_ns": 7, "mean_ns": 6.0,
                    "round_p50_ns": [6]},
        "throughput": {"inferences_per_second": 1.0, "items_per_second": 8.0, "item": "token"},
        "cold_load_ns": 5, "warm_load_ns": 4, "first_inference_ns": 3, "steady": MEMORY, "above_empty_session": MEMORY,
        "instructions": 33,
    },
    "parity": {"reference": "local", "identical": False, "relative_difference": 0.1},
    "operators": {"inferences": 2, "total_ns": 100, "operators": [{"operator": "o", "nodes": 1, "calls": 2, "total_ns": 60}]},
    "failure": None, "validity": {"valid": True, "reasons": [], "notes": ["emulated"]},
}  # fmt: skip
OUTPUT = {"name": "y", "max_absolute": 0.1, "relative": 0.1, "cosine": 0.9, "rows": 2, "sentence_cosine": 0.9, "sentences": 2}
VERIFY = {
    "kind": "verify", "schema_version": 1, "artifact": "m.onnx", "files": [FILE],
    "library": "l.so", "batches": 1, "comparisons": [{"left": "library", "right": "reference", "outputs": [OUTPUT]}],
    "perplexity": {"window": 8, "windows": 1, "tokens": 7, "values": {"library": 3.0, "reference": 2.0},
                   "divergences": {"library": 0.1}},
    "created_utc": "2026-01-01", "failures": ["f"],
}  # fmt: skip
INSPECT = {
    "kind": "inspect", "schema_version": 1, "name": "m.ec", "source": "s", "recipe": {"name": "r"},
    "layers": [{"name": "a", "formats": "lut", "shapes": [[2, 2]], "bits": [4], "block_size": [32], "parameters": 4,
                "packed_bytes": 4,
                "bits_per_weight": 8.0, "shared_with": ["b"], "relative_error": 0.1}],
    "dense_tensors": 1, "dense_bytes": 4,
    "size": {"packed_bytes": 8, "parameters": 4, "factor_bytes": {"a": 4}, "array_bytes": {"lut.codes": 4, "dense tensors": 4}},
}  # fmt: skip
