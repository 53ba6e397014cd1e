"""What each part of JLCM is worth: the whole method, and the same with one part of it taken out.

    python benchmarks/ablation.py cnn --data-dir DATA --model resnet20.pt [--bits 2 3] [--split valid] [--json]
    python benchmarks/ablation.py encoder --model FOLDER [--calibration FILE.txt]
    python benchmarks/ablation.py language-model --data-dir DATA [--model FILE.gguf] --device cuda --samples 1000 --steps 700

Every row is one recipe: `method` below, with the settings that the row's name stands for (`CONTROLS`). Measured is the exported
file with the library: of the network of cnn.py the accuracy, calibrated and chosen as there; of an encoder the mean cosine of
sentence embeddings to the original's, calibrated on data/calibration-sentences.txt and the lines of `--calibration`, reported on
data/verification-sentences.txt (`--split valid`: on the last 22 of the calibration sentences, which are left out of calibration
then); of a language model what language_model.py measures on sotu-test (`--split valid`: sotu-valid), with an interval. Rows that
start alike share the start, and count its seconds each.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import cnn
import language_model
import numpy as np
import torch
from language_fidelity import fidelity, of_file, of_module, text_windows
from records import add_json_option, print_rows

from edgecomp.calibration import Sample
from edgecomp.checkpoint import CompressedModel
from edgecomp.compression import compress
from edgecomp.draft import Draft
from edgecomp.exporters import export
from edgecomp.inspect.model import inspect_model
from edgecomp.models import LoadedModel, load_model
from edgecomp.passes import PASSES, PassContext
from edgecomp.passes.lut_kmeans import LutKmeans
from edgecomp.progress import ProgressBar
from edgecomp.resume import Work, open_work
from edgecomp.verify import VerifyOptions, verify
from edgecomp.written import self_key, written_windows

SENTENCES = Path(__file__).parent / "data"
HELD_SENTENCES = 22  # of the calibration sentences, for the choice of settings

CONTROLS: dict[str, list[str]] = {
    "the whole method": [],
    "rows regrouped, four codebooks a matrix": ["passes.0.books=4"],
    "start: k-means weighted by activations": ["passes.0.weighting=activations"],
    "start: k-means weighted by the Hessian": ["passes.0.weighting=hessian"],
    "map gradient: straight-through": ["passes.1.map_gradient=straight-through"],
    "map gradient: proximal": ["passes.1.map_gradient=proximal"],
    "map gradient: naive": ["passes.1.candidates=64"],
    "maps fixed": ["passes.1.map_gradient=none"],
    "maps fixed, rates of 30 times": [
        "passes.1.map_gradient=none",
        "passes.1.book_rate=0.9",
        "passes.1.scale_rate=0.9",
        "passes.1.dense_rate=3e-3",
    ],
    "maps fixed, rates of 10 times": [
        "passes.1.map_gradient=none",
        "passes.1.book_rate=0.3",
        "passes.1.scale_rate=0.3",
        "passes.1.dense_rate=1e-3",
    ],
    "codebooks and scales fixed": ["passes.1.book_rate=0.0", "passes.1.scale_rate=0.0"],
    "no block-wise stage": ["passes.1.block_steps=0"],
    "no end-to-end stage": ["passes.1.steps=0"],
    "no learning": ["passes.1.block_steps=0", "passes.1.steps=0"],
    "plain k-means": ["passes.0.weighting=none", "passes.1.block_steps=0", "passes.1.steps=0"],
}


class SharedStart(LutKmeans):
    """`lut-kmeans`, run once for each of its settings: rows differ in what comes after it more often than in it."""

    made: ClassVar[dict[str, tuple[Draft, float]]] = {}

    def run(self, draft: Draft, context: PassContext) -> None:
        """Pack the draft's matrices, or take what was packed of them before."""
        settings = self.config.model_dump_json()
        if settings not in self.made:
            started = time.monotonic()
            super().run(draft, context)
            kept = replace(draft, plans=dict(draft.plans), factors=dict(draft.factors), records=dict(draft.records))
            self.made[settings] = kept, time.monotonic() - started
            return
        start, seconds = self.made[settings]
        draft.plans |= start.plans
        draft.factors |= start.factors
        draft.records |= start.records
        for factor in start.factors:
            del draft.matrices[factor]
        saved.append(seconds)


saved: list[float] = []  # seconds of the starts that rows took over

Measure = Callable[[CompressedModel], dict[str, float]]


def method(bits: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """The whole method's recipe."""
    learned = {"block_steps": arguments.block_steps, "steps": arguments.steps, "batch": arguments.batch}
    learned |= {"top_tokens": 64} if arguments.kind == "language-model" else {}
    # As the recipe jlcm-2bit has it.
    gather = {"layers": [{"ops": ["gather"], "bits": 3}]} if arguments.kind == "language-model" and bits == 2 else {}
    return {
        "version": 1,
        "name": f"ablation-{bits}bit",
        "passes": [
            {"method": "lut-kmeans", "bits": bits, "weighting": arguments.weighting, **gather},
            {"method": "jlcm", "position_rate": arguments.position_rate, **learned},
        ],
    }


def convolutional(arguments: argparse.Namespace) -> tuple[LoadedModel, list[Sample], Measure]:
    """The network of cnn.py."""
    images, labels = cnn.read_split(arguments.data_dir / "fashion-mnist", "train")
    held = images[cnn.TRAINING_IMAGES :], labels[cnn.TRAINING_IMAGES :]
    if arguments.split == "test":
        held = cnn.read_split(arguments.data_dir / "fashion-mnist", "t10k")
    model = cnn.trained(Path(arguments.model), images[: cnn.TRAINING_IMAGES], labels[: cnn.TRAINING_IMAGES], 8)
    with torch.inference_mode():
        original = cnn.accuracy(torch.cat([model(batch) for batch in held[0].split(500)]), held[1])

    def measure(compressed: CompressedModel) -> dict[str, float]:
        got = cnn.accuracy(cnn.exported_logits(compressed, held[0]), held[1])
        return {"accuracy": round(got, 2), "lost": round(original - got, 2)}

    return LoadedModel(model, (), ()), list(cnn.calibration(images)), measure


def encoder(arguments: argparse.Namespace) -> tuple[LoadedModel, list[Sample], Measure]:
    """A Hugging Face sentence encoder."""
    model = load_model(arguments.model)
    read = partial(model.samples, count=arguments.samples or 10_000, sequence_length=512)
    calibration = read(str(SENTENCES / "calibration-sentences.txt"))
    held = read(str(SENTENCES / "verification-sentences.txt"))
    if arguments.split == "valid":
        calibration, held = calibration[:-HELD_SENTENCES], calibration[-HELD_SENTENCES:]
    if arguments.calibration:
        calibration += read(arguments.calibration)

    def measure(compressed: CompressedModel) -> dict[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            files = export(compressed, "onnx", Path(folder) / "model.onnx").files
            result = verify(files[0], model.run, held, VerifyOptions(stock=False))
        quality = next(comparison for comparison in result.comparisons if comparison.right == "reference").outputs[0]
        assert quality.sentence_cosine is not None
        return {"cosine_sentences": round(quality.sentence_cosine, 5), "cosine_tokens": round(quality.cosine, 5)}

    return model, calibration, measure


def causal(arguments: argparse.Namespace) -> tuple[LoadedModel, list[Sample], Measure]:
    """The model of language_model.py."""
    model = load_model(arguments.model or str(language_model.packaged_model()))
    text = arguments.data_dir / "text"
    own = round((arguments.samples or 64) * arguments.self_share)
    calibration = model.samples(str(text / "sotu-train.txt.gz"), count=(arguments.samples or 64) - own, sequence_length=512)
    if own:
        device = torch.device(arguments.device)
        work = open_work(arguments.written, self_key({"model": model.files[0].name})).work if arguments.written else Work()
        written = written_windows(model, count=own, length=512, seed=0, device=device, progress=ProgressBar(True), work=work)
        calibration += [{"input_ids": window[None], "attention_mask": np.ones_like(window)[None]} for window in written]
    windows = text_windows(model, text / f"sotu-{arguments.split}.txt.gz", 512, arguments.windows)
    reference = of_module(model.module, arguments.device)

    def measure(compressed: CompressedModel) -> dict[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            files = export(compressed, "onnx", Path(folder) / "model.onnx").files
            compared = fidelity(reference, of_file(files[0], arguments.threads or 2), windows, arguments.device)
            return {**compared, "file_bytes": sum(path.stat().st_size for path in files)}

    return model, calibration, measure


MODELS = {"cnn": convolutional, "encoder": encoder, "language-model": causal}


def ablate(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each width and control."""
    model, calibration, measure = MODELS[arguments.kind](arguments)
    rows = []
    cases = [
        (bits, control, seed) for bits in arguments.bits for seed in arguments.seeds for control in arguments.controls or CONTROLS
    ]
    for bits, control, seed in cases:
        started = time.monotonic()
        saved.clear()
        overrides = [f"passes.1.seed={seed}", *CONTROLS[control], *arguments.overrides]
        compressed = compress(
            model, method(bits, arguments), calibration, overrides=overrides, device=arguments.device, samples=len(calibration)
        )
        seconds = round(time.monotonic() - started + sum(saved), 1)
        row = {"bits": bits, "control": control, "split": arguments.split, "seed": seed}
        row["calibration_samples"] = len(calibration)
        row["bits_per_weight"] = round(inspect_model(compressed, control).size.bits_per_weight, 3)
        rows.append({**row, **measure(compressed), "compress_seconds": seconds})
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=list(MODELS))
    parser.add_argument("--data-dir", type=Path, help="folder with fashion-mnist and text")
    parser.add_argument("--model", help="weights of cnn.py, a Hugging Face folder, or a GGUF file")
    parser.add_argument("--bits", type=int, nargs="+", default=[3, 2])
    parser.add_argument("--controls", nargs="+", choices=list(CONTROLS), help="some rows only")
    parser.add_argument("--block-steps", type=int, default=100)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the order of the samples, a row each")
    parser.add_argument("--self-share", type=float, default=0.0, help="of a language model's calibration, what it writes itself")
    parser.add_argument("--written", type=Path, metavar="FOLDER", help="keeps what it writes, for other runs")
    parser.add_argument("--weighting", default="hessian", help="of the start's errors")
    parser.add_argument("--position-rate", type=float, default=1e-2)
    parser.add_argument("--calibration", help="sentences for an encoder, one a line")
    parser.add_argument("--samples", type=int, help="calibration windows of a language model, or sentences, at most")
    parser.add_argument("--windows", type=int, default=16, help="of 512 tokens that a language model is measured on")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--split", choices=["valid", "test"], default="test", help="choose settings on valid, report test")
    parser.add_argument("--device", default="cpu", help="where methods that learn do so")
    parser.add_argument("--threads", type=int, help="of PyTorch")
    add_json_option(parser)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    PASSES["lut-kmeans"] = SharedStart
    print_rows("ablation", ablate(arguments), as_json=arguments.json)


if __name__ == "__main__":
    main()
