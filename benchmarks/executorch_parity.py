"""A program against the same packed weights in PyTorch: run by ExecuTorch in Python, and by the C++ runner on devices.

    python benchmarks/executorch_parity.py MODEL.pte MODEL.ec [--device qemu://cortex-a72 ...] [--sequence 8] [--json]

One inference on made inputs (random token ids). `relative` is the norm of the difference by that of the reference, `largest` the
largest difference by the reference's largest magnitude. Emulated processors need a bundle (`edgecomp device-bundle`) and patience.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from records import add_json_option, print_rows

from edgecomp.bench.job import Job
from edgecomp.bench.options import BenchOptions
from edgecomp.checkpoint import load
from edgecomp.devices import open_device
from edgecomp.devices.session import Session
from edgecomp.exported.executorch_session import ExecutorchModel
from edgecomp.exported.inputs import InputSizes, make_inputs
from edgecomp.exported.library import resolve_library

Arrays = Mapping[str, np.ndarray]


def run_everywhere(
    program: ExecutorchModel, inputs: Arrays, devices: list[str], bundle: Path | None
) -> Iterator[tuple[str, Arrays]]:
    """Who ran it, and the outputs."""
    yield "Python", program.run(inputs)
    library = resolve_library("auto", program.file)
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder, "inputs.npz"), **inputs)
        options = BenchOptions(inputs=Path(folder, "inputs.npz"), warmup=0, min_iterations=1, min_duration_s=0, timeout_s=3600)
        for url in devices:
            with open_device(url) as device:
                job = Job(Session(device, bundle), program.file, library, options, Path(folder))
                done = job.run_round()
                yield f"runner, {url} ({done.measurement.kernels['lut_matmul']})", job.pull_outputs(done)


def main() -> None:
    """Run what the arguments ask for and compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("program", type=Path, help="MODEL.pte")
    parser.add_argument("checkpoint", type=Path, help="MODEL.ec, which it was exported from")
    parser.add_argument("--device", action="append", default=[], help="besides this machine, such as qemu://cortex-a72")
    parser.add_argument("--bundle", type=Path, help="of the devices (default: edgecomp's cache)")
    parser.add_argument("--sequence", type=int, default=8, help="tokens (default: %(default)s)")
    add_json_option(parser)
    arguments = parser.parse_args()
    model = load(arguments.checkpoint)
    rows = []
    with ExecutorchModel(arguments.program) as program:
        inputs = make_inputs(program.inputs, InputSizes(1, arguments.sequence))
        expected = model.run(inputs)
        for who, outputs in run_everywhere(program, inputs, ["local", *arguments.device], arguments.bundle):
            for name, reference in expected.items():
                difference = outputs[name] - reference
                row = {
                    "who": who,
                    "compute": "/".join(sorted({plan.compute for plan in model.plans.values()})),
                    "output": f"{name} {list(reference.shape)}",
                }
                row["relative"] = float(np.linalg.norm(difference) / np.linalg.norm(reference))
                row["largest"] = float(np.abs(difference).max() / np.abs(reference).max())
                rows.append(row)
    print_rows("executorch_parity", rows, as_json=arguments.json)


if __name__ == "__main__":
    main()
