"""The machine and the software that a measurement ran on, as far as Linux tells."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import edgecomp
from edgecomp.bench.record import Conditions, Environment

_CPU = Path("/sys/devices/system/cpu")
_THERMAL = Path("/sys/class/thermal")


def read_environment() -> Environment:
    """What stays the same during a benchmark."""
    model, features = _cpu(_text(Path("/proc/cpuinfo")) or "")
    return Environment(
        cpu_model=model,
        cpu_features=features,
        cpu_count=os.cpu_count() or 1,
        usable_cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_bytes=_memory_bytes(),
        governor=_text(_CPU / "cpu0/cpufreq/scaling_governor"),
        system=_system(),
        kernel=platform.release(),
        architecture=platform.machine(),
        libc=" ".join(platform.libc_ver()).strip(),
        edgecomp_version=edgecomp.__version__,
        git_commit=_git_commit(Path(edgecomp.__file__).parent),
    )


def read_conditions() -> Conditions:
    """What changes while a benchmark runs."""
    temperatures = {}
    for zone in sorted(_THERMAL.glob("thermal_zone*")):
        value = _text(zone / "temp")
        if value is not None:
            temperatures[f"{zone.name} {_text(zone / 'type') or ''}".strip()] = int(value) / 1000
    frequencies = [_text(path) for path in sorted(_CPU.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))]
    return Conditions(
        temperatures_celsius=temperatures,
        frequencies_hz=[int(value) * 1000 for value in frequencies if value is not None],
        load_average_1min=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    )


def _cpu(cpuinfo: str) -> tuple[str | None, list[str]]:
    """Model and features of the first processor; on ARM the implementer and part numbers, where there is no name."""
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    part = f"implementer {fields.get('CPU implementer')} part {fields['CPU part']}" if "CPU part" in fields else None
    model = fields.get("model name") or fields.get("Model") or part
    return model, sorted((fields.get("flags") or fields.get("Features") or "").split())


def _memory_bytes() -> int | None:
    for line in (_text(Path("/proc/meminfo")) or "").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return None


def _system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:  # no such file on this system
        return platform.system()


def _git_commit(folder: Path) -> str | None:
    if not (folder.parent / ".git").exists():
        return None  # installed: the folder may lie in somebody else's repository
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # git is not installed, or does not trust the folder
        return None


def _text(path: Path) -> str | None:
    """The file's contents, or None where the system does not offer it."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return None
