"""AArch64 processors under QEMU's user mode emulation: what runs and what it computes is real, how long it takes says nothing.

Under it the host's kernel answers for memory, so that is not measured either. What can be counted exactly are instructions, by a
plugin that the package brings (runtimes/qemu_plugin).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from urllib.parse import SplitResult

from edgecomp.devices.base import Completed, Probe
from edgecomp.devices.local import LocalDevice, run_here
from edgecomp.devices.running import Running
from edgecomp.errors import ConfigError, DeviceError

# What /proc/cpuinfo says of each processor: ONNX Runtime reads the part to choose kernels, and does not survive another
# architecture's file. QEMU's "max" is no real part; it goes as a Neoverse V1, which has dot product and i8mm as well.
CPU_PARTS: Mapping[str, str] = {"cortex-a53": "0xd03", "cortex-a72": "0xd08", "cortex-a76": "0xd0b", "max": "0xd40"}
EMULATOR = "qemu-aarch64"
INSTRUCTIONS_FILE = "instructions"  # in the session's folder, after a run
_PLUGIN = Path(__file__).parent.parent / "lib" / "libedgecomp_qemu_count.so"


class QemuDevice:
    """`qemu://CPU`; counts the instructions of each run where `count_instructions` is set."""

    def __init__(self, url: SplitResult) -> None:
        if url.netloc not in CPU_PARTS or url.path.strip("/"):
            raise ConfigError(f"an emulated device must be qemu://CPU with a CPU of {', '.join(CPU_PARTS)}, got {url.geturl()!r}")
        self.url, self.cpu = url.geturl(), url.netloc
        self.count_instructions = False
        self._local = LocalDevice(url._replace(scheme="local", netloc="", path=""))

    def probe(self) -> Probe:
        """The emulator."""
        if shutil.which(EMULATOR) is None:
            raise DeviceError(f"{self.url} needs the emulator {EMULATOR}: apt-get install qemu-user")
        here = self._local.probe()
        return Probe("aarch64", f"{here.system}, {EMULATOR} -cpu {self.cpu}", here.folder, None, "process")

    def push(self, files: Mapping[str, Path]) -> dict[str, str]:
        """The files' own paths."""
        return self._local.push(files)

    def run(self, command: Sequence[str], stdin: str, timeout_s: float) -> Completed:
        """Run an AArch64 program; with addresses that are the same each time, or counts would not repeat."""
        return run_here([*self._emulator(), *command], self._local.folder, stdin, timeout_s)

    def start(self, command: Sequence[str]) -> Running:
        """Start an AArch64 program."""
        return Running([*self._emulator(), *command], self._local.folder)

    def _emulator(self) -> list[str]:
        emulator = [EMULATOR, "-cpu", self.cpu, "-L", str(self._root)]
        if self.count_instructions:
            plugin = f"{_PLUGIN},out={self._local.folder / INSTRUCTIONS_FILE}"
            emulator = ["setarch", "-R", *emulator, "-plugin", plugin]
        return emulator

    @cached_property
    def _root(self) -> Path:
        """A folder in which the emulator looks up the program's absolute paths first."""
        root = self._local.folder / "root"
        (root / "proc").mkdir(parents=True)
        lines = {"processor": "0", "CPU implementer": "0x41", "CPU architecture": "8", "CPU variant": "0x0"}
        lines |= {"CPU part": CPU_PARTS[self.cpu], "CPU revision": "1"}
        (root / "proc" / "cpuinfo").write_text("".join(f"{key}\t: {value}\n" for key, value in lines.items()), encoding="ascii")
        return root

    def pull(self, name: str, target: Path) -> None:
        """Copy a file that a program wrote."""
        self._local.pull(name, target)

    def clean_up(self) -> None:
        """Remove the temporary folder."""
        self._local.clean_up()
        self.__dict__.pop("_root", None)
