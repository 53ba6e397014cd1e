"""Memory of an exported model that runs with the library, and by its functions on a stock ONNX Runtime.

    python benchmarks/memory.py MODEL.onnx [--sequence 128] [--threads 1] [--json]

Each row is a fresh process (see `edgecomp.bench`). Anonymous bytes, which can leave memory only by swapping, and the peak are above
an empty session of the same process; file-backed bytes are resident pages of the model's own files, which the system can drop.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from provenance import commit, machine, print_json

from edgecomp.artifact.library import AUTO, NONE
from edgecomp.bench.options import BenchOptions
from edgecomp.bench.runner import run_bench

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
        "threads": arguments.threads,
        "file_bytes": record.artifact.bytes,
        "anonymous_bytes": above.anonymous_bytes,
        "peak_bytes": above.peak_resident_bytes,
        "peak_over_file": round(above.peak_resident_bytes / record.artifact.bytes, 3),
        "file_backed_bytes": record.summary.steady.artifact_file_backed_bytes,
    }


def to_markdown(rows: list[dict[str, Any]]) -> str:
    """The rows as a table, bytes in MB."""
    lines = [
        "| backend | test | file MB | anonymous MB | file-backed MB | peak MB | peak / file |",
        "| --- | --- |" + " ---: |" * 5,
    ]
    for row in rows:
        megabytes = [f"{row[name] / 1e6:.2f}" for name in ("file_bytes", "anonymous_bytes", "file_backed_bytes", "peak_bytes")]
        lines.append("| " + " | ".join([row["backend"], row["test"], *megabytes, f"{row['peak_over_file']:.2f}"]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure what the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="MODEL.onnx", help="exported by edgecomp")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--sequence", type=int, default=128)
    parser.add_argument("--json", action="store_true", help="one JSON object in place of a table")
    arguments = parser.parse_args()
    rows = [measure(arguments.model, backend, arguments) for backend in BACKENDS]
    if arguments.json:
        print_json("memory", rows)
    else:
        print(", ".join(f"{key}: {value}" for key, value in machine().items()) + f", commit: {commit()}\n")
        print(to_markdown(rows))


if __name__ == "__main__":
    main()
