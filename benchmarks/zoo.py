"""Many architectures through the whole way: compressed, exported to both runtimes, and compared with PyTorch on the packed weights.

    python benchmarks/zoo.py [--models bert,llama] [--folder FOLDER] [--timeout SECONDS] [--json]

Models are small, of random weights (`zoo_models.py`), each in a process of its own. They are compressed to 4 bits that compute in
`float`, so that what is exported must equal PyTorch to rounding, whatever the quality of the weights. A row has

- `compress`, `onnx`, `executorch`: ok, refused (by one of edgecomp's errors, before the passes ran, as for a target that has no
  form for an operator), or failed (refused later, too); `message` is the first refusal or failure;
- `float_percent`: the share of the model's weights that stays float, in percent of their number;
- `ratio_checkpoint`, `ratio_onnx`, `ratio_pte`: bytes of the float32 parameters over those of what is written;
- `cosine_library`, `cosine_stock`: the smallest cosine of an output with PyTorch's on the packed weights, over outputs and samples;
- `stock_exporter_onnx`, `stock_exporter_executorch`: whether PyTorch's own exporters take the original: torch.onnx.export, and
  ExecuTorch's to_edge_transform_and_lower with XNNPACK; `ok` or `failed`.

With --folder, rows that are there already are not measured again.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from records import add_json_option, print_rows

TARGETS = {"onnx": "onnx", "executorch": "pte"}
PROCESSES = multiprocessing.get_context("forkserver")
# Imported once, not for each model.
PROCESSES.set_forkserver_preload(
    ["zoo_models", "edgecomp.compression", "edgecomp.exporters.to_onnx", "edgecomp.exporters.to_executorch"]
)


def measure(name: str) -> dict[str, Any]:
    """The row of one model."""
    import torch
    from zoo_models import MODELS

    import edgecomp
    from edgecomp.errors import EdgecompError
    from edgecomp.passes.lut_kmeans import LutKmeans

    family, make = MODELS[name]
    row: dict[str, Any] = {"model": name, "family": family, "real_weights": False, "compress": "ok", "message": None}
    began = time.monotonic()
    module, samples = make()
    original = 4 * sum(parameter.numel() for parameter in module.parameters())
    ran: list[bool] = []
    run = LutKmeans.run

    def noted(self: LutKmeans, *arguments: Any) -> None:
        ran.append(True)
        run(self, *arguments)

    LutKmeans.run = noted  # type: ignore[method-assign]
    for targets in ([*TARGETS], *([target] for target in TARGETS)):  # for both, or else for the one that has all operators
        try:
            model = edgecomp.compress(module, "lut-4bit", samples, overrides=["passes.0.compute=float"], targets=targets)
            row["compress"] = "ok"
            break
        except EdgecompError as error:
            row |= {"compress": "failed" if ran else "refused", "message": row["message"] or str(error)}
        except Exception as error:  # noqa: BLE001  (what the table is to show)
            row |= {"compress": "failed", "message": f"{type(error).__name__}: {error}"}
            break
        if "target" not in str(row["message"]):
            break
    if row["compress"] == "ok":
        row |= dict.fromkeys(TARGETS, "refused")
        packed = sum(model.layer_parameters.values())
        row["float_percent"] = 100 * (1 - packed / model.parameters)
        with tempfile.TemporaryDirectory() as folder:
            model.save(Path(folder) / "model.ec")
            row["ratio_checkpoint"] = original / _bytes(Path(folder) / "model.ec")
            for target in targets:
                row |= _export(model, target, samples, original, Path(folder), row["message"])
    given = {name: torch.from_numpy(value) for name, value in samples[0].items()}
    # By position where there is one, whatever forward calls it.
    arguments, keywords = ((*given.values(),), {}) if len(given) == 1 else ((), given)
    row["stock_exporter_onnx"] = _stock(lambda: _stock_onnx(module, arguments, keywords))
    row["stock_exporter_executorch"] = _stock(lambda: _stock_executorch(module, arguments, keywords))
    row["seconds"] = time.monotonic() - began
    return row


def _export(
    model: Any, target: str, samples: Sequence[Mapping[str, np.ndarray]], original: int, folder: Path, message: str | None
) -> dict[str, Any]:
    from edgecomp.exporters import ExportOptions, export

    path = folder / f"model.{TARGETS[target]}"
    names = {dim for spec in model.inputs for dim in spec.dims if isinstance(dim, str)}
    try:
        options = ExportOptions({name: model.examples[name] for name in names}) if target == "executorch" else ExportOptions()
        files = export(model, target, path, options=options)
        found = {f"ratio_{TARGETS[target]}": original / files.total_bytes, target: "ok"}
        runners = _runners(path)
        for runner, run in runners.items():
            found[f"cosine_{runner}"] = min(_cosine(run(sample), model.run(sample)) for sample in samples)
        return found
    except Exception as error:  # noqa: BLE001  (what the table is to show)
        return {target: "failed", "message": message or f"{target}: {type(error).__name__}: {error}"}


def _runners(path: Path) -> dict[str, Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]]:
    from edgecomp.exported.executorch_session import ExecutorchModel
    from edgecomp.exported.session import OnnxModel

    if path.suffix == ".pte":
        program = ExecutorchModel(path, "auto", 1).__enter__()  # this process ends with it
        return {"executorch": program.run}
    return {"library": OnnxModel(path, "auto", 1).run, "stock": OnnxModel(path, "none", 1).run}


def _cosine(got: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> float:
    """The smallest cosine of an output; 0 where names or shapes differ."""
    if got.keys() != expected.keys() or any(got[name].shape != expected[name].shape for name in expected):
        return 0.0
    pairs = [(got[name].astype(np.float64).ravel(), value.astype(np.float64).ravel()) for name, value in expected.items()]
    return min(1.0 if np.array_equal(a, b) else float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b))) for a, b in pairs)


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _stock(export: Callable[[], object]) -> str:
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            export()
    except Exception:  # noqa: BLE001  (what the table is to show)
        return "failed"
    return "ok"


def _stock_onnx(module: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
    import torch

    with tempfile.TemporaryDirectory() as folder:
        torch.onnx.export(module, arguments, f"{folder}/model.onnx", kwargs=keywords, dynamo=True, verbose=False)


def _stock_executorch(module: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    program = torch.export.export(module, arguments, keywords, strict=False)
    to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()


def measure_apart(name: str, timeout: float) -> dict[str, Any]:
    """The row of one model, from a process of its own, which may die."""
    ours, theirs = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=_send, args=(name, theirs))
    process.start()
    theirs.close()
    row = {"model": name, "compress": "failed"}
    try:
        if ours.poll(timeout):
            found: dict[str, Any] = ours.recv()
            return found
        return row | {"message": f"not done after {timeout:g} s"}
    except EOFError:
        process.join()
        return row | {"message": f"its process ended with {process.exitcode}"}
    finally:
        process.kill()
        process.join()


def _send(name: str, connection: Any) -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no part of the record
    connection.send(measure(name))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", metavar="NAME,NAME", help="some models (default: all)")
    parser.add_argument("--folder", type=Path, help="keeps a row in a file each, and takes those that are there")
    parser.add_argument("--timeout", type=float, default=300, metavar="SECONDS", help="of one model (default: %(default)s)")
    add_json_option(parser)
    arguments = parser.parse_args()
    from zoo_models import MODELS

    rows = []
    for name in arguments.models.split(",") if arguments.models else MODELS:
        kept = None if arguments.folder is None else arguments.folder / f"{name}.json"
        if kept is not None and kept.is_file():
            rows.append(json.loads(kept.read_text(encoding="utf-8")))
            continue
        rows.append(measure_apart(name, arguments.timeout))
        if kept is not None:
            kept.parent.mkdir(exist_ok=True)
            kept.write_text(json.dumps(rows[-1]), encoding="utf-8")
        print(f"{name}: {rows[-1].get('compress')} {rows[-1].get('message') or ''}", file=sys.stderr)
    print_rows("zoo", rows, as_json=arguments.json)


if __name__ == "__main__":
    main()
