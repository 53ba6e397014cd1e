"""What a benchmark's numbers depend on, and the one JSON object that every benchmark prints."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime

from edgecomp import native


def machine() -> dict[str, str | int | None]:
    """What the numbers depend on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    cpu = names[0] if names else platform.processor()
    variant = native.selected_variant()
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "variant": variant,
        "onnxruntime": onnxruntime.__version__,
        "system": platform.platform(),
    }


def commit() -> str:
    """The checkout's commit, or "unknown" outside one."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip() or "unknown"


def print_json(benchmark: str, rows: Sequence[dict[str, Any]]) -> None:
    """The benchmark's object on stdout; a flat row per table line."""
    print(json.dumps({"benchmark": benchmark, "commit": commit(), "machine": machine(), "rows": list(rows)}))
