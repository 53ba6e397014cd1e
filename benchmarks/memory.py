"""Memory of an exported model that runs with the library, and by its functions on a stock ONNX Runtime.

    python benchmarks/memory.py MODEL.onnx [--sequence 128] [--threads 1] [--json]

Each row is a fresh process (see `edgecomp.bench`). Anonymous bytes, which can leave memory only by swapping, and the peak are above
an empty session of the same process; file-backed bytes are resident pages of the model's own files, which the system can drop.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from records import add_json_option, print_rows

from edgecomp.bench.options import BenchOptions
from edgecomp.bench.runner import run_bench
from edgecomp.exported.library import AUTO, NONE

BACKENDS = {"library": AUTO, "stock functions": NONE}


def measure(model: Path, backend: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One row.

    Raises:
        SystemExit: the model has no nodes of ours, so there is nothing to compare.

    """
    # Few inferences, however long they take: memory does not grow after the first ones, and the functions are slow.
    options = BenchOptions(
        threads=arguments.threads,
        batch=arguments.batch,
        sequence=arguments.sequence,
        library=BACKENDS[backend],
        rounds=1,
        warmup=1,
        min_iterations=3,
        min_duration_s=0,
        max_duration_s=600,
    )
    record = run_bench(model, options)
    if not record.artifact.uses_edgecomp:
        raise SystemExit(f"{model} must have nodes of ai.edgecomp, and has none: export a compressed model")
    above = record.summary.above_empty_session
    return {
        "backend": backend,
        "model": record.artifact.name,
        "test": record.test,
        "tokens": arguments.sequence,
        "threads": arguments.threads,
        "file_bytes": record.artifact.bytes,
        "anonymous_bytes": above.anonymous_bytes,
        "peak_bytes": above.peak_resident_bytes,
        "peak_over_file": round(above.peak_resident_bytes / record.artifact.bytes, 3),
        "file_backed_bytes": record.summary.steady.artifact_file_backed_bytes,
    }


def main() -> None:
    """Measure what the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="MODEL.onnx", help="exported by edgecomp")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--sequence", type=int, default=128)
    add_json_option(parser)
    arguments = parser.parse_args()
    rows = [measure(arguments.model, backend, arguments) for backend in BACKENDS]
    print_rows("memory", rows, as_json=arguments.json)


if __name__ == "__main__":
    main()
