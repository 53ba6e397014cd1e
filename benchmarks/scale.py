"""Memory of the command line's stages for models of growing size: it must not grow with the number of blocks.

    PYTHONPATH=benchmarks python benchmarks/scale.py [--sizes 0.13 0.36 1.1] [--weightings activations hessian] [--json]

Llama models of random weights, of the shapes of SmolLM2-135M, SmolLM2-360M and TinyLlama-1.1B, in bfloat16 shards with a small
tokenizer, are compressed with `lut-4bit`, exported, and verified against the original. Each stage is the command line's, in a fresh
process whose memory is read every 20 ms. A row has the peak of its anonymous memory, which can leave memory only by swapping
(`peak_mb`), that of its resident pages of files, which the system can drop (`mapped_mb`), and

    bound_mb = 700 + 2 * (bytes of the hidden states of all windows) + 3 * (bytes of the largest unit),

a unit being a block or the embedding in float32, or the float64 Hessian of the widest layer. MB are 1e6 bytes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from records import add_json_option, commit, print_rows
from safetensors.torch import save_file

BASE_MB = 700
INTERVAL_SECONDS = 0.02
WORDS = 1000  # of the tokenizer
VERIFIED = ("--samples", "2", "--sequence-length", "128", "--no-stock")


@dataclass(frozen=True)
class Shape:
    """What decides the size of a Llama model."""

    hidden: int
    intermediate: int
    blocks: int
    heads: int
    key_heads: int
    vocabulary: int
    tied: bool

    @property
    def block_parameters(self) -> dict[str, tuple[int, ...]]:
        """Shapes of a block's parameters by name."""
        keys = self.hidden // self.heads * self.key_heads
        matrices = {
            "self_attn.q_proj": (self.hidden, self.hidden),
            "self_attn.k_proj": (keys, self.hidden),
            "self_attn.v_proj": (keys, self.hidden),
            "self_attn.o_proj": (self.hidden, self.hidden),
            "mlp.gate_proj": (self.intermediate, self.hidden),
            "mlp.up_proj": (self.intermediate, self.hidden),
            "mlp.down_proj": (self.hidden, self.intermediate),
        }
        return {**matrices, "input_layernorm": (self.hidden,), "post_attention_layernorm": (self.hidden,)}

    @property
    def outer_parameters(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all other parameters by name."""
        outer = {"model.embed_tokens": (self.vocabulary, self.hidden), "model.norm": (self.hidden,)}
        return outer if self.tied else {**outer, "lm_head": (self.vocabulary, self.hidden)}

    def bound_mb(self, tokens: int) -> float:
        """What a stage may take."""
        block = sum(map(size_of, self.block_parameters.values()))
        largest = max(4 * block, 4 * self.vocabulary * self.hidden, 8 * self.intermediate**2)
        return BASE_MB + (2 * 4 * tokens * self.hidden + 3 * largest) / 1e6


SHAPES = {
    "0.13": Shape(576, 1536, 30, 9, 3, 49152, tied=True),
    "0.36": Shape(960, 2560, 32, 15, 5, 49152, tied=True),
    "1.1": Shape(2048, 5632, 22, 32, 4, 32000, tied=False),
}


def size_of(shape: tuple[int, ...]) -> int:
    """Elements of a tensor."""
    return torch.Size(shape).numel()


def save_model(shape: Shape, folder: Path) -> None:
    """Write a model, a shard for each block."""
    from transformers import LlamaConfig

    torch.manual_seed(0)
    shards = [(f"model.layers.{block}.", shape.block_parameters) for block in range(shape.blocks)]
    index: dict[str, str] = {}
    for number, (prefix, parameters) in enumerate([*shards, ("", shape.outer_parameters)]):
        name = f"model-{number + 1:05}-of-{len(shards) + 1:05}.safetensors"
        made = {f"{prefix}{key}.weight": size for key, size in parameters.items()}
        tensors = {key: torch.randn(size) / 50 if len(size) == 2 else torch.ones(size) for key, size in made.items()}
        save_file({key: tensor.bfloat16() for key, tensor in tensors.items()}, folder / name, metadata={"format": "pt"})
        index |= dict.fromkeys(made, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    LlamaConfig(
        architectures=["LlamaForCausalLM"],
        dtype="bfloat16",
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.blocks,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        vocab_size=shape.vocabulary,
        tie_word_embeddings=shape.tied,
    ).save_pretrained(folder)


def save_text(folder: Path, path: Path, tokens: int) -> None:
    """Write a tokenizer of words into a model's folder, and a text of random ones."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({f"w{number}": number for number in range(WORDS)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0", pad_token="w0").save_pretrained(folder)
    lines = torch.randint(WORDS, (tokens // 64, 64)).tolist()
    path.write_text("\n".join(" ".join(f"w{number}" for number in line) for line in lines))


class Stage(NamedTuple):
    """What a process took."""

    peak_mb: float
    mapped_mb: float
    seconds: float


def run(arguments: list[str]) -> Stage:
    """Run the command line with these arguments in a fresh process.

    Raises:
        SystemExit: it failed.

    """
    started = time.monotonic()
    with subprocess.Popen([sys.executable, "-P", "-m", "edgecomp", *arguments], stdout=subprocess.DEVNULL) as process:
        peaks = [0, 0]
        while process.poll() is None:
            peaks = [max(pair) for pair in zip(peaks, resident(process.pid), strict=True)]
            time.sleep(INTERVAL_SECONDS)
    if process.returncode:
        raise SystemExit(f"edgecomp {arguments[0]} must end well, and ended with {process.returncode}")
    return Stage(peaks[0] / 1e6, peaks[1] / 1e6, time.monotonic() - started)


def resident(process: int) -> tuple[int, int]:
    """Bytes of anonymous memory and of pages of files of a process and those that it started; 0 of one that has ended."""
    anonymous = mapped = 0
    for number in (process, *children(process)):
        try:
            lines = Path(f"/proc/{number}/status").read_text().splitlines()
        except OSError:
            continue
        sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith("Rss")}
        anonymous += sizes.get("RssAnon", 0) + sizes.get("RssShmem", 0)
        mapped += sizes.get("RssFile", 0)
    return anonymous, mapped


def children(process: int) -> Iterator[int]:
    """Processes below one."""
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            numbers = path.read_text().split()
        except OSError:
            continue
        for number in map(int, numbers):
            yield number
            yield from children(number)


def kept_or_measured(size: str, weighting: str, arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """The rows of one model and recipe: those that an interrupted run of this commit left in the folder, or new ones."""
    kept = folder / f"{size}-{weighting}-{arguments.target}.json"
    about = {"commit": commit(), "windows": arguments.windows, "tokens": arguments.tokens, "set": arguments.overrides}
    if kept.exists() and (found := json.loads(kept.read_text()))["about"] == about:
        return found["rows"]
    rows = list(measure(size, weighting, arguments, folder))
    kept.write_text(json.dumps({"about": about, "rows": rows}))
    return rows


def measure(size: str, weighting: str, arguments: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """A row for each stage of one model and recipe."""
    shape, source, text = SHAPES[size], folder / size, folder / f"{size}.txt"
    if not source.exists():
        source.mkdir()
        save_model(shape, source)
    save_text(source, text, arguments.windows * arguments.tokens)
    checkpoint, artifact = str(folder / "model.ec"), str(folder / f"model.{'onnx' if arguments.target == 'onnx' else 'pte'}")
    settings = [f"--set={setting}" for setting in (f"passes.0.weighting={weighting}", *arguments.overrides)]
    calibration = ["--calibration", str(text), "--samples", str(arguments.windows), "--sequence-length", str(arguments.tokens)]
    stages = {
        "compress": [str(source), "--recipe", "lut-4bit", *settings, *calibration, "--output", checkpoint],
        "export": [checkpoint, "--target", arguments.target, "--output", artifact],
        "verify": [artifact, "--against", str(source), "--inputs", str(text), *VERIFIED],
    }
    stored = sum(path.stat().st_size for path in source.glob("*.safetensors"))
    for stage, words in stages.items():
        taken = run([stage, *words, "--quiet", *(["--force"] if stage != "verify" else [])])
        yield {
            "parameters": stored // 2,
            "stage": stage,
            "recipe": f"lut-4bit, {weighting}",
            "target": arguments.target,
            "windows": arguments.windows,
            "tokens": arguments.tokens,
            **taken._asdict(),
            "model_mb": stored / 1e6,
            "bound_mb": shape.bound_mb(arguments.windows * arguments.tokens),
        }


def main() -> None:
    """Measure what the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=list(SHAPES), choices=list(SHAPES), help="billions of parameters")
    parser.add_argument("--weightings", nargs="+", default=["activations", "hessian"], help="of the recipe's errors")
    parser.add_argument("--target", default="onnx", choices=["onnx", "executorch"])
    parser.add_argument("--windows", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=512, help="of a window")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="as of edgecomp compress")
    parser.add_argument("--folder", type=Path, help="of models and rows, which a stopped run goes on from")
    add_json_option(parser)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        pairs = [(size, kind) for size in arguments.sizes for kind in arguments.weightings]
        rows = [row for size, kind in pairs for row in kept_or_measured(size, kind, arguments, folder)]
    print_rows("scale", rows, as_json=arguments.json)


if __name__ == "__main__":
    main()
