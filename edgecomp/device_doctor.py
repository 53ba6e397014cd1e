"""What a device is, what it can run, and what stands in the way of figures that can be trusted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgecomp.bench.record import Conditions, Machine
from edgecomp.devices import open_device
from edgecomp.devices.answers import part_of, validated
from edgecomp.devices.base import Emulation
from edgecomp.devices.bundle import RUNNERS, Bundle
from edgecomp.devices.session import Session
from edgecomp.doctor import kernel_features


@dataclass(frozen=True)
class DeviceDiagnosis:
    """What was found; `runs` are suffixes of artifacts, `advice` names what the device lacks, and what that costs."""

    url: str
    architecture: str
    system: str
    board: str | None
    cpu_model: str | None
    cpu_count: int
    memory_bytes: int | None
    cpu_features: tuple[str, ...]
    governor: str | None
    temperatures_celsius: dict[str, float]
    folder: str
    free_bytes: int | None
    emulation: Emulation
    runs: tuple[str, ...]
    brought: tuple[str, ...]
    advice: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The diagnosis as JSON values."""
        return {"kind": "device-doctor", "schema_version": 1, **asdict(self)}

    def to_text(self) -> str:
        """The diagnosis as lines."""
        return "\n".join([*self._lines(), ""])

    def _lines(self) -> Iterator[str]:
        memory = "unknown" if self.memory_bytes is None else f"{self.memory_bytes / 2**30:.1f} GiB"
        yield f"{self.url}: {self.board or 'unknown board'}, {self.system}, {self.architecture}"
        features = " ".join(self.cpu_features) or "no features that kernels use"
        yield f"processor: {self.cpu_count} x {self.cpu_model or 'unknown'} ({features})"
        yield f"memory: {memory}"
        yield f"folder: {self.folder}" + ("" if self.free_bytes is None else f", {self.free_bytes / 2**30:.1f} GiB free")
        yield f"governor: {self.governor or 'not told'}"
        zones = ", ".join(f"{name} {value:.1f} °C" for name, value in self.temperatures_celsius.items())
        yield f"temperatures: {zones or 'not told'}"
        yield f"runs: {', '.join(f'*{suffix}' for suffix in self.runs)}"
        yield f"brought: {', '.join(self.brought)}"
        yield from (f"note: {line}" for line in self.advice)


def diagnose_device(url: str, bundle: Path | None) -> DeviceDiagnosis:
    """Reach a device, bring the bundle to it, and run the measuring program there.

    Raises:
        ConfigError: the URL is wrong.
        DeviceError: the device is not reached, or does not run the program.
        RuntimeUnavailableError: there is no bundle for it.

    """
    with open_device(url) as device:
        session = Session(device, bundle)
        answer, probe = session.machine(), session.probe
    machine = validated(Machine, part_of(answer, "machine", url=url), url).model_dump()
    state = validated(Conditions, part_of(answer, "before", url=url), url).model_dump()
    return DeviceDiagnosis(
        url=device.url,
        architecture=probe.architecture,
        system=machine["system"],
        board=machine["board"],
        cpu_model=machine["cpu_model"],
        cpu_count=machine["cpu_count"],
        memory_bytes=machine["memory_bytes"],
        cpu_features=kernel_features(machine),
        governor=machine["governor"],
        temperatures_celsius=state["temperatures_celsius"],
        folder=probe.folder,
        free_bytes=probe.free_bytes,
        emulation=probe.emulation,
        runs=session.bundle.runs,
        brought=tuple(sorted(session.bundle.files)),
        advice=tuple(_advice(machine, state, probe.emulation, session.bundle)),
    )


def _advice(machine: dict[str, Any], state: dict[str, Any], emulation: Emulation, bundle: Bundle) -> Iterator[str]:
    for suffix in RUNNERS.keys() - set(bundle.runs):
        yield f"no *{suffix}: the bundle was made without its runtime ({RUNNERS[suffix]})"
    if emulation != "no":
        yield "emulated: no time is measured here"
        return
    if machine["governor"] not in (None, "performance"):
        yield f"the governor {machine['governor']} changes frequencies while measuring; `performance` does not"
    if not state["temperatures_celsius"]:
        yield "no temperatures: a hot start is not noticed"
    if not state["frequencies_hz"]:
        yield "no frequencies: a processor that slows down is not noticed"
