"""Encoders side by side on this machine: quality, bytes, latency and memory, as a run folder that `edgecomp report` reads.

    python benchmarks/compare_encoders.py MODEL_FOLDER -o runs/minilm [--artifact model.onnx ...]

builds the peers of `peers.py`, adds the artifacts given, and writes `verify-NAME.json` for each and one `bench.json`. The reference
is the model in PyTorch, float32; quality is the mean cosine of mean-pooled sentence embeddings over the verification sentences,
which are run one at a time, since padding a batch changes what a dynamic quantiser sees.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers import Encoder, build_peers, silence_packages
from records import add_json_option, print_rows
from transformers import AutoTokenizer

from edgecomp.bench.options import BenchOptions
from edgecomp.bench.output import format_records
from edgecomp.bench.runner import run_benches
from edgecomp.verify import VerifyOptions, verify

SENTENCES = Path(__file__).parent / "data" / "verification-sentences.txt"


def tokenized(folder: Path, sentences: Path) -> Iterator[dict[str, np.ndarray]]:
    """Inputs of the encoder for each sentence of a text file, a batch of one each."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for sentence in sentences.read_text(encoding="utf-8").splitlines():
        encoded = tokenizer([sentence], return_tensors="np", return_token_type_ids=True)
        yield {name: np.asarray(value, np.int64) for name, value in encoded.items()}


class TorchReference:
    """The uncompressed model as the reference of a verification; every artifact is compared on the same inputs, computed once."""

    def __init__(self, folder: Path) -> None:
        self._model = Encoder(folder)
        self._known: dict[bytes, dict[str, np.ndarray]] = {}

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The hidden states of the last layer."""
        key = inputs["input_ids"].tobytes()
        if key not in self._known:
            tensors = {name: torch.from_numpy(value) for name, value in inputs.items()}
            with torch.inference_mode():
                self._known[key] = {"last_hidden_state": self._model(**tensors).numpy()}
        return self._known[key]


def compare(folder: Path, output: Path, artifacts: Sequence[Path], options: BenchOptions, *, quiet: bool) -> list[dict[str, Any]]:
    """Verify and measure the peers and the artifacts, and print all that was found unless `quiet`; returns a flat row for each."""
    rows = []
    paths = [*build_peers(folder, output / "peers").values(), *artifacts]
    reference = TorchReference(folder)
    for path in paths:
        result = verify(path, reference, tokenized(folder, SENTENCES), VerifyOptions(threads=options.threads, stock=False))
        (output / f"verify-{path.name}.json").write_text(json.dumps(result.to_json(), indent=1) + "\n", encoding="utf-8")
        quality = next(comparison for comparison in result.comparisons if comparison.right == "reference").outputs[0]
        rows.append({"model": path.name, "cosine_sentences": quality.sentence_cosine, "cosine_tokens": quality.cosine})
        if not quiet:
            print(f"## {path.name}\n\n{result.to_markdown()}")
    records = run_benches(paths, options)
    (output / "bench.json").write_text(format_records(records, "json"), encoding="utf-8")
    if not quiet:
        print(format_records(records, "md"))
    for row, record in zip(rows, records, strict=True):
        row |= {
            "file_bytes": sum(file.bytes for file in record.artifact.files),
            "threads": options.threads,
            "p50_ns": record.summary.latency.p50_ns,
            "p90_ns": record.summary.latency.p90_ns,
            "p99_ns": record.summary.latency.p99_ns,
            "anonymous_bytes": record.summary.above_empty_session.anonymous_bytes,
            "file_backed_bytes": record.summary.steady.artifact_file_backed_bytes,
            "peak_bytes": record.summary.above_empty_session.peak_resident_bytes,
            "valid": record.validity.valid,
        }
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of a Hugging Face encoder")
    parser.add_argument("-o", "--output", type=Path, required=True, help="run folder")
    parser.add_argument(
        "--artifact", type=Path, action="append", default=[], help="another exported model to compare; may be repeated"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sequence", type=int, default=32, help="tokens of the sentence that is timed")
    parser.add_argument("--rounds", type=int, default=3)
    add_json_option(parser)
    options = parser.parse_args(arguments)
    silence_packages()
    bench = BenchOptions(threads=options.threads, sequence=options.sequence, rounds=options.rounds)
    rows = compare(options.model, options.output, options.artifact, bench, quiet=options.json)
    print_rows("compare_encoders", rows, as_json=options.json)


if __name__ == "__main__":
    main()
