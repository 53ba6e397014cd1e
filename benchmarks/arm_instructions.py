"""Instructions per weight of one row times a matrix on ARM: our kernels against ONNX Runtime's MatMulNBits, level 4.

An emulator's time says nothing; what it can tell exactly is how many instructions a program executes. Both sides are counted in
the same way, as `edgecomp bench --count instructions` does: the multiplications of one thread under qemu's user mode emulation,
activation quantisation included, start-up left out. Each count is taken twice and must repeat within 20 in a million (on a busy
machine the runtime waits for its threads a little longer), and the results are held against float64. Fewer instructions are not
always less time: loads, latencies and the memory's speed are not seen.

    python benchmarks/arm_instructions.py [--quick] [--cpus cortex-a72,cortex-a76,max] [--bits 4,2] [--json]

Needs g++-aarch64-linux-gnu and qemu-user (a dynamic qemu-aarch64 of version 4.2 to 8.2, which can load plugins), and what
`edgecomp device-bundle` needs.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from records import add_json_option, print_rows

from edgecomp.bench.job import Job
from edgecomp.bench.options import BenchOptions
from edgecomp.devices import open_device
from edgecomp.devices.build_bundle import build_bundle
from edgecomp.devices.qemu import CPU_PARTS, INSTRUCTIONS_FILE
from edgecomp.devices.session import Session
from edgecomp.exported.onnx_file import read_onnx
from edgecomp.exported.session import AUTO, resolve_library
from edgecomp.formats import lut
from edgecomp.ops import NO_EPILOGUE
from edgecomp.tensor import Factor

ROOT = Path(__file__).parent.parent
N = K = 2048
X = ((np.arange(K) % 17) * 0.1 - 0.8).astype(np.float32)
PEER_BITS = (2, 4, 8)
CHECKED_ROWS = 16
LARGEST_DRIFT = 2e-5  # between two counts of the same run
LARGEST_ERROR = 0.02  # of the result's norm: what int8 activations cost, and a wrong layout exceeds by far


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


def run(*command: str | Path) -> str:
    """The standard output of a command that must succeed.

    Raises:
        SystemExit: it failed.

    """
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise SystemExit(
            f"{' '.join(map(str, command))} must succeed, got status {result.returncode}\n{result.stdout}{result.stderr}"
        )
    return result.stdout


class Emulator:
    """One emulated processor, and the programs built for it."""

    def __init__(self, cpu: str, folder: Path, bundle: Path) -> None:
        self.cpu, self._folder, self._bundle = cpu, folder, bundle

    def count_kernel(self, *arguments: str, iterations: int) -> tuple[float, str]:
        """Instructions per weight of our kernel called by itself, and the variant that ran.

        Raises:
            SystemExit: the count did not repeat.

        """
        command = [str(self._folder / "build" / "benchmarks" / "run_kernel"), *arguments, str(iterations)]
        counts, variant = [], ""
        for _ in range(2):
            with open_device(f"qemu://{self.cpu}", count_instructions=True) as device:
                device.probe()
                done = device.run(command, "", 600)
                if done.exit_code != 0:
                    raise SystemExit(f"{command[0]} must succeed, got status {done.exit_code}\n{done.stderr}")
                device.pull(INSTRUCTIONS_FILE, self._folder / "count")
            counts.append(int((self._folder / "count").read_text(encoding="ascii")))
            variant = done.stdout.strip()
        return repeated(counts) / iterations / (N * K), variant

    def count_model(self, model: Model) -> float:
        """Instructions per weight of a model inside onnxruntime.

        Raises:
            SystemExit: the count did not repeat, or the result is wrong.

        """
        np.savez(self._folder / "x.npz", x=X[None])
        options = BenchOptions(rounds=2, inputs=self._folder / "x.npz", count_instructions=True)
        with (
            tempfile.TemporaryDirectory() as scratch,
            open_device(f"qemu://{self.cpu}", count_instructions=True) as device,
        ):
            file = read_onnx(model.path)
            job = Job(Session(device, self._bundle), file, resolve_library(AUTO, file), options, Path(scratch))
            rounds = [job.run_round() for _ in range(options.rounds)]
            model.check(job.pull_outputs(rounds[-1])["y"][0, :CHECKED_ROWS])
        return repeated([round_.instructions or 0 for round_ in rounds]) / len(rounds[0].measurement.samples_ns) / (N * K)


def repeated(counts: list[int]) -> int:
    """The least of counts that agree but for waiting.

    Raises:
        SystemExit: they differ by more.

    """
    if max(counts) - min(counts) > LARGEST_DRIFT * min(counts):
        raise SystemExit(f"a count must repeat to {LARGEST_DRIFT:g}, got {counts}")
    return min(counts)


def build(folder: Path) -> Path:
    """Build the kernel's program, and a device bundle; returns the bundle's folder."""
    toolchain = f"-DCMAKE_TOOLCHAIN_FILE={ROOT}/runtimes/cmake/aarch64-linux-gnu.cmake"
    options = ["-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", "-DEDGECOMP_BUILD_ARM_BENCHMARKS=ON"]
    run("cmake", "-S", ROOT / "runtimes", "-B", folder / "build", toolchain, *options)
    run("cmake", "--build", folder / "build", "--target", "run_kernel")
    build_bundle("aarch64", ROOT, folder / "bundle", overwrite=True)
    return folder / "bundle"


@dataclass(frozen=True)
class Model:
    """A saved model of one node that reads x [1, K] and writes y [1, N]."""

    path: Path
    expected: np.ndarray  # the first CHECKED_ROWS of y, in float64

    def check(self, y: np.ndarray) -> None:
        """Hold the first values of an output against float64.

        Raises:
            SystemExit: they are too far off.

        """
        error = float(np.linalg.norm(y - self.expected) / np.linalg.norm(self.expected))
        if not error < LARGEST_ERROR:
            raise SystemExit(f"{self.path.name} must be within {LARGEST_ERROR} of float64 before it is counted, got {error}")


def save_model(path: Path, node: onnx.NodeProto, arrays: dict[str, np.ndarray], weights: np.ndarray) -> Model:
    """A model with `arrays` as initialisers, for the node that multiplies by `weights`."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size]) for name, size in (("x", K), ("y", N)))
    graph = helper.make_graph([node], "g", [x], [y], [numpy_helper.from_array(array, name) for name, array in arrays.items()])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.edgecomp", 1), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return Model(path, weights[:CHECKED_ROWS].astype(np.float64) @ X)


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
    absent = {"row_index": np.zeros(0, np.int32), "bias": np.zeros(0, np.float32), "addend": np.zeros(0, np.float32)}
    attributes = {"N": N, "K": K, "bits": bits, "block_size": block_size, "compute": "int8", **NO_EPILOGUE}
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


def compare(emulator: Emulator, folder: Path, bits: int, block_size: int, iterations: int) -> Row:
    """Count both sides on one CPU."""
    shape = (str(N), str(K), str(bits), str(block_size))
    kernel, variant = emulator.count_kernel(*shape, "127", iterations=iterations)
    inside = emulator.count_model(make_lut(folder, bits, block_size))
    peer = emulator.count_model(make_peer(folder, bits, block_size)) if bits in PEER_BITS else None
    return Row(
        cpu=emulator.cpu,
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


def machine() -> dict[str, str]:
    """What the numbers depend on."""
    return {
        "emulator": run("qemu-aarch64", "--version").splitlines()[0],
        "compiler": run("aarch64-linux-gnu-g++", "--version").splitlines()[0],
        "onnxruntime": metadata.version("onnxruntime"),
        "system": platform.platform(),
    }


def main() -> None:
    """Count what the arguments ask for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--cpus", default="cortex-a72,cortex-a76,max", help=f"of {', '.join(CPU_PARTS)}")
    parser.add_argument("--bits", default="4,3,2,1,5,6,8", help="separated by commas")
    parser.add_argument("--block-sizes", default="32,128", help="separated by commas")
    parser.add_argument("--quick", action="store_true", help="2 and 4 multiplications in place of 4 and 8")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "arm-instructions", help="for what is built and downloaded")
    add_json_option(parser)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    folder = arguments.folder.resolve()
    bundle = build(folder)
    rows = []
    for cpu in arguments.cpus.split(","):
        emulator = Emulator(cpu, folder, bundle)
        for bits in map(int, arguments.bits.split(",")):
            for block_size in map(int, arguments.block_sizes.split(",")):
                print(f"{cpu} bits={bits} block_size={block_size}", file=sys.stderr)
                rows.append(compare(emulator, folder, bits, block_size, iterations=2 if arguments.quick else 4))
    print_rows("arm_instructions", rows, as_json=arguments.json, on=machine())


if __name__ == "__main__":
    main()
