"""Runs benchmarks: a fresh process per round and artifact, all artifacts of a round before the next round."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from tqdm import tqdm

from edgecomp import errors
from edgecomp.artifact.files import hash_files
from edgecomp.artifact.onnx_file import OnnxFile, read_onnx
from edgecomp.artifact.session import AUTO, resolve_library
from edgecomp.bench.environment import read_conditions, read_environment
from edgecomp.bench.options import BenchOptions
from edgecomp.bench.record import Artifact, ArtifactFile, Measurement, Record, Round
from edgecomp.bench.stats import check_validity, summarize
from edgecomp.errors import EdgecompError, RuntimeUnavailableError


def run_bench(artifact: Path, options: BenchOptions, *, command: Sequence[str] | None = None) -> Record:
    """Measure one artifact; see `run_benches`."""
    return run_benches([artifact], options, command=command)[0]


def run_benches(
    artifacts: Sequence[Path], options: BenchOptions, *, command: Sequence[str] | None = None, quiet: bool = False
) -> list[Record]:
    """Measure artifacts in alternating rounds, each in a fresh process.

    Args:
        artifacts: `.onnx` files; external data lies beside them.
        options: what to measure.
        command: the command line to record; by default this process's.
        quiet: no progress bar, not even on a terminal.

    Returns:
        A record per artifact, in order.

    Raises:
        ModelError: no such file, or the model does not run on the inputs.
        CheckpointError: an artifact is incomplete or not readable.
        ConfigError: a dynamic size is not known, or the input file does not fit.
        RuntimeUnavailableError: onnxruntime or the library does not load, or the measured process died.

    """
    models = [read_onnx(path) for path in artifacts]
    libraries = [resolve_library(options.library, model) for model in models]
    rounds: list[list[Round]] = [[] for _ in models]
    with tqdm(total=options.rounds * len(models), desc="bench", unit="process", file=sys.stderr, disable=quiet or None) as progress:
        for _ in range(options.rounds):
            for model, library, done in zip(models, libraries, rounds, strict=True):
                progress.set_postfix_str(model.path.name)
                done.append(_run_round(model, library, options))
                progress.update()
    environment = read_environment()
    created = _now()
    records = []
    for model, library, done in zip(models, libraries, rounds, strict=True):
        measurements = [round_.measurement for round_ in done]
        summary = summarize(measurements)
        records.append(
            Record(
                created_utc=created,
                command=list(sys.argv if command is None else command),
                device="local",
                options=_options_json(options),
                artifact=_artifact(model, library),
                environment=environment,
                rounds=done,
                summary=summary,
                validity=check_validity(measurements, summary, options),
            )
        )
    return records


def _run_round(model: OnnxFile, library: Path | None, options: BenchOptions) -> Round:
    request = {
        "artifact": str(model.path.resolve()),
        "files": [str(path.resolve()) for path in model.files],
        "library": None if library is None else str(library),
        # Another library than ours has no kernels that we could ask for.
        "ask_kernels": library is not None and options.library == AUTO,
        "threads": options.threads,
        "batch": options.batch,
        "sequence": options.sequence,
        "sizes": dict(options.sizes),
        "inputs": None if options.inputs is None else str(options.inputs.resolve()),
        "token_ids": options.token_ids,
        "seed": options.seed,
        "warmup": options.warmup,
        "min_iterations": options.min_iterations,
        "min_duration_ns": round(options.min_duration_s * 1e9),
        "max_duration_ns": round(options.max_duration_s * 1e9),
    }
    started, before = _now(), read_conditions()
    measurement = _run_worker(model.path, request)
    return Round(started_utc=started, before=before, after=read_conditions(), measurement=measurement)


def _run_worker(path: Path, request: dict[str, Any]) -> Measurement:
    # -P: the installed package, not whatever lies in the folder that the user happens to be in.
    process = subprocess.run(
        [sys.executable, "-P", "-m", "edgecomp.bench._worker"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "ORT_DISABLE_TELEMETRY": "1"},
    )
    tail = process.stderr[-2000:]
    if process.returncode < 0:
        name = signal.Signals(-process.returncode).name
        raise RuntimeUnavailableError(f"the process that measured {path} was ended by {name}. {tail}".strip())
    try:
        answer = json.loads(process.stdout)
        if "error" in answer:
            raise _error(answer)
        return Measurement.model_validate(answer)
    except (json.JSONDecodeError, ValidationError) as error:
        message = f"the process that measured {path} ended with code {process.returncode} and no measurement. {tail}"
        raise RuntimeUnavailableError(message.strip()) from error


def _error(answer: dict[str, str]) -> EdgecompError:
    kind = getattr(errors, answer["error"])
    error: EdgecompError = kind(answer["message"])
    return error


def _artifact(model: OnnxFile, library: Path | None) -> Artifact:
    files = [ArtifactFile(**asdict(info)) for info in hash_files(model)]
    return Artifact(
        name=model.path.name,
        bytes=sum(file.bytes for file in files),
        files=files,
        uses_edgecomp=model.uses_edgecomp,
        library=None if library is None else library.name,
    )


def _options_json(options: BenchOptions) -> dict[str, Any]:
    values = asdict(options)
    return {**values, "inputs": None if options.inputs is None else str(options.inputs), "sizes": dict(options.sizes)}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
