"""Instructions per weight of one row times a matrix on ARM: our kernels against ONNX Runtime's MatMulNBits, level 4.

An emulator's time says nothing; what it can tell exactly is how many instructions a program executes. Both sides are counted in
the same way: a program runs n and then 2 n multiplications on one thread under qemu's user mode emulation, and the difference is n
multiplications, activation quantisation included. Each count is taken twice and must repeat within 20 in a million (a busy machine
adds a few hundred instructions of waiting), and the results are held against float64. Fewer instructions are not always less time:
loads, latencies and the memory's speed are not seen.

    python benchmarks/arm_instructions.py [--quick] [--cpus cortex-a72,cortex-a76,max] [--bits 4,2] [--json]

Needs g++-aarch64-linux-gnu, gcc and qemu-user (a dynamic qemu-aarch64 of version 4.2 to 8.2, which can load plugins); downloads the
AArch64 wheel of onnxruntime from the package index.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgecomp.formats import lut
from edgecomp.tensor import Factor

ROOT = Path(__file__).parent.parent
TARGET_ROOT = Path("/usr/aarch64-linux-gnu")  # the cross compiler's C library
ORT_VERSION = "1.32.*"
N = K = 2048
PEER_BITS = (2, 4, 8)
CHECKED_ROWS = 16
LARGEST_DRIFT = 2e-5  # between two counts of the same run
LARGEST_ERROR = 0.02  # of the result's norm: what int8 activations cost, and a wrong layout exceeds by far

# What /proc/cpuinfo says of each CPU: ONNX Runtime reads the part to choose kernels, and does not survive the build machine's file.
# QEMU's "max" is no real part; it goes as a Neoverse V1, which has dot product and i8mm as well.
CPU_PARTS = {"cortex-a53": "0xd03", "cortex-a72": "0xd08", "cortex-a76": "0xd0b", "max": "0xd40"}


@dataclass(frozen=True)
class Row:
    """Instructions per weight; the peer's are None where it has no such width.

    `kernel` calls our C interface, `lut` runs our operator inside onnxruntime, as `peer` runs MatMulNBits.
    """

    cpu: str
    variant: str
    bits: int
    block_size: int
    n: int
    k: int
    kernel: float
    lut: float
    peer: float | None
    lut_over_peer: float | None


def run(*command: str | Path, **environment: str) -> str:
    """The standard output of a command that must succeed.

    Raises:
        SystemExit: it failed.

    """
    result = subprocess.run(
        [str(part) for part in command], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        raise SystemExit(
            f"{' '.join(map(str, command))} must succeed, got status {result.returncode}\n{result.stdout}{result.stderr}"
        )
    return result.stdout


class Emulator:
    """Programs built for ARM, and what it takes to count their instructions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plugin = folder / "libinsn_count.so"
        self.programs = folder / "build" / "benchmarks"
        self.custom_ops = folder / "build" / "adapters" / "onnxruntime" / "libedgecomp_onnxruntime.so"
        source = ROOT / "benchmarks" / "arm" / "insn_count.c"
        run("gcc", "-O2", "-shared", "-fPIC", "-fvisibility=hidden", source, "-o", self.plugin)
        toolchain = f"-DCMAKE_TOOLCHAIN_FILE={ROOT}/runtimes/cmake/aarch64-linux-gnu.cmake"
        options = ["-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", "-DEDGECOMP_BUILD_ARM_BENCHMARKS=ON"]
        run("cmake", "-S", ROOT / "runtimes", "-B", folder / "build", toolchain, *options)
        run("cmake", "--build", folder / "build")
        self.runtime = self._fetch_onnxruntime()

    def _fetch_onnxruntime(self) -> Path:
        wheels = self.folder / "wheels"
        only = ["--platform", "manylinux_2_28_aarch64", "--only-binary=:all:", "--no-deps"]
        run(sys.executable, "-m", "pip", "download", "--quiet", *only, "--dest", wheels, f"onnxruntime=={ORT_VERSION}")
        (wheel,) = wheels.glob("onnxruntime-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (name,) = [name for name in archive.namelist() if "/libonnxruntime.so" in name]
            return Path(archive.extract(name, self.folder))

    def _root_of(self, cpu: str) -> Path:
        """A folder in which qemu looks up the program's absolute paths first."""
        root = self.folder / "roots" / cpu
        (root / "proc").mkdir(parents=True, exist_ok=True)
        lines = {"processor": "0", "CPU implementer": "0x41", "CPU architecture": "8", "CPU variant": "0x0"}
        lines |= {"CPU part": CPU_PARTS[cpu], "CPU revision": "1"}
        (root / "proc" / "cpuinfo").write_text("".join(f"{key}\t: {value}\n" for key, value in lines.items()))
        if not (root / "lib").exists():
            (root / "lib").symlink_to(TARGET_ROOT / "lib")
        return root

    def _count(self, cpu: str, program: str, *arguments: str | Path) -> tuple[int, str]:
        """Instructions of a whole run, and what it printed."""
        out = self.folder / "count"
        emulator = ["setarch", "-R", "qemu-aarch64", "-cpu", cpu, "-L", self._root_of(cpu), "-plugin", f"{self.plugin},out={out}"]
        printed = run(*emulator, self.programs / program, *arguments, ORT_DISABLE_TELEMETRY="1")
        return int(out.read_text()), printed.strip()

    def per_weight(
        self, cpu: str, program: str, *arguments: str | Path, iterations: int, after: tuple[Path, ...] = ()
    ) -> tuple[float, str]:
        """Instructions per weight of one multiplication, and what the program printed.

        The number of iterations comes behind `arguments` and before `after`.

        Raises:
            SystemExit: a count did not repeat.

        """
        counts = []
        printed = ""
        for times in (iterations, 2 * iterations):
            first, printed = self._count(cpu, program, *arguments, str(times), *after)
            second, _ = self._count(cpu, program, *arguments, str(times), *after)
            if abs(first - second) > LARGEST_DRIFT * first:
                raise SystemExit(f"a count must repeat to {LARGEST_DRIFT}, got {first} and {second} for {program} on {cpu}")
            counts.append(min(first, second))
        return (counts[1] - counts[0]) / iterations / (N * K), printed


@dataclass(frozen=True)
class Model:
    """A saved model of one node that reads x [1, K] and writes y [1, N]."""

    path: Path
    expected: np.ndarray  # the first CHECKED_ROWS of y, in float64

    def check(self, printed: str) -> None:
        """Hold what run_session printed against float64.

        Raises:
            SystemExit: it is too far off.

        """
        difference = np.array(printed.split(), np.float64) - self.expected
        error = float(np.linalg.norm(difference) / np.linalg.norm(self.expected))
        if not error < LARGEST_ERROR:
            raise SystemExit(f"{self.path.name} must be within {LARGEST_ERROR} of float64 before it is counted, got {error}")


def save_model(path: Path, node: onnx.NodeProto, arrays: dict[str, np.ndarray], weights: np.ndarray) -> Model:
    """A model with `arrays` as initialisers, for the node that multiplies by `weights`."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size]) for name, size in (("x", K), ("y", N)))
    graph = helper.make_graph([node], "g", [x], [y], [numpy_helper.from_array(array, name) for name, array in arrays.items()])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.edgecomp", 1), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    values = (np.arange(K) % 17) * 0.1 - 0.8  # the x of run_session
    return Model(path, weights[:CHECKED_ROWS].astype(np.float64) @ values)


def make_lut(folder: Path, bits: int, block_size: int) -> Model:
    """LutMatMul with random codes, one codebook that uses all of int8, and random scales."""
    rng = np.random.default_rng(0)
    sizes = lut.lut_sizes(N, K, bits, block_size)
    codes = rng.integers(0, 256, (sizes.tiles, sizes.spans, sizes.planes, 16, 4), dtype=np.uint8)
    codes[codes == 128] = 127  # no code of 8 bits; any byte is a code below
    book = lut.identity_codebook() if sizes.planes == 8 else np.linspace(-127, 127, 2**bits).round().astype(np.int8)[None]
    arrays = {
        "codes": codes,
        "codebooks": book,
        "tile_book": np.zeros(sizes.tiles, np.uint16),
        "scales": rng.integers(32, 128, (sizes.tiles, sizes.blocks, 16)).astype(np.int8),
        "row_scale": rng.uniform(0.5, 1, (sizes.tiles, 16)).astype(np.float32),
    }
    weights = lut.unpack(Factor("lut", (N, K), {"bits": bits, "block_size": block_size}, arrays))
    absent = {"row_index": np.zeros(0, np.int32), "bias": np.zeros(0, np.float32)}
    attributes = {"N": N, "K": K, "bits": bits, "block_size": block_size, "compute": "int8"}
    node = helper.make_node("LutMatMul", ["x", *arrays, *absent], ["y"], domain="ai.edgecomp", **attributes)
    return save_model(folder / f"lut-{bits}-{block_size}.onnx", node, arrays | absent, weights)


def make_peer(folder: Path, bits: int, block_size: int) -> Model:
    """MatMulNBits at accuracy level 4 with random codes and scales, and the default zero point."""
    rng = np.random.default_rng(0)
    blocks = K // block_size
    packed = rng.integers(0, 256, (N, blocks, block_size * bits // 8), dtype=np.uint8)
    scales = rng.uniform(0.001, 0.004, (N, blocks)).astype(np.float32)
    codes = np.stack([packed >> bits * i & 2**bits - 1 for i in range(8 // bits)], axis=-1).reshape(N, blocks, block_size)
    weights = ((codes.astype(np.float32) - 2 ** (bits - 1)) * scales[:, :, None]).reshape(N, K)
    attributes = {"N": N, "K": K, "bits": bits, "block_size": block_size, "accuracy_level": 4}
    node = helper.make_node("MatMulNBits", ["x", "b", "s"], ["y"], domain="com.microsoft", **attributes)
    return save_model(folder / f"peer-{bits}-{block_size}.onnx", node, {"b": packed, "s": scales}, weights)


def count_model(emulator: Emulator, cpu: str, model: Model, iterations: int, *custom_ops: Path) -> float:
    """Instructions per weight of a model inside onnxruntime."""
    arguments = (emulator.runtime, model.path, str(K))
    count, printed = emulator.per_weight(cpu, "run_session", *arguments, iterations=iterations, after=custom_ops)
    model.check(printed)
    return count


def compare(emulator: Emulator, cpu: str, bits: int, block_size: int, iterations: int) -> Row:
    """Count both sides on one CPU."""
    shape = (str(N), str(K), str(bits), str(block_size))
    kernel, variant = emulator.per_weight(cpu, "run_kernel", *shape, "127", iterations=iterations)
    inside = count_model(emulator, cpu, make_lut(emulator.folder, bits, block_size), iterations, emulator.custom_ops)
    peer = count_model(emulator, cpu, make_peer(emulator.folder, bits, block_size), iterations) if bits in PEER_BITS else None
    return Row(
        cpu=cpu,
        variant=variant,
        bits=bits,
        block_size=block_size,
        n=N,
        k=K,
        kernel=kernel,
        lut=inside,
        peer=peer,
        lut_over_peer=None if peer is None else inside / peer,
    )


def machine(emulator: Emulator) -> dict[str, str]:
    """What the numbers depend on."""
    return {
        "emulator": run("qemu-aarch64", "--version").splitlines()[0],
        "compiler": run("aarch64-linux-gnu-g++", "--version").splitlines()[0],
        "onnxruntime": emulator.runtime.name.removeprefix("libonnxruntime.so."),
        "system": platform.platform(),
    }


def commit() -> str:
    """The checkout's commit, or "unknown" outside one."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip() or "unknown"


def markdown(rows: list[Row]) -> str:
    """The rows as a table."""

    def cell(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    lines = [
        "| CPU | variant | bits | block | our kernel | our operator | MatMulNBits | operator / MatMulNBits |",
        "| --- | --- |" + " ---: |" * 6,
    ]
    for r in rows:
        numbers = [str(r.bits), str(r.block_size), cell(r.kernel), cell(r.lut), cell(r.peer), cell(r.lut_over_peer)]
        lines.append("| " + " | ".join([r.cpu, r.variant, *numbers]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Count what the arguments ask for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--cpus", default="cortex-a72,cortex-a76,max", help=f"of {', '.join(CPU_PARTS)}")
    parser.add_argument("--bits", default="4,3,2,1,5,6,8", help="separated by commas")
    parser.add_argument("--block-sizes", default="32,128", help="separated by commas")
    parser.add_argument("--quick", action="store_true", help="2 and 4 multiplications in place of 4 and 8")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "arm-instructions", help="for what is built and downloaded")
    parser.add_argument("--json", action="store_true", help="one JSON object in place of a table")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    emulator = Emulator(arguments.folder.resolve())
    rows = []
    for cpu in arguments.cpus.split(","):
        for bits in map(int, arguments.bits.split(",")):
            for block_size in map(int, arguments.block_sizes.split(",")):
                print(f"{cpu} bits={bits} block_size={block_size}", file=sys.stderr)
                rows.append(compare(emulator, cpu, bits, block_size, iterations=2 if arguments.quick else 4))
    if arguments.json:
        rows_of = [asdict(row) for row in rows]
        print(json.dumps({"benchmark": "arm_instructions", "commit": commit(), "machine": machine(emulator), "rows": rows_of}))
    else:
        print(", ".join(f"{key}: {value}" for key, value in machine(emulator).items()) + f", commit: {commit()}\n")
        print(markdown(rows))


if __name__ == "__main__":
    main()
