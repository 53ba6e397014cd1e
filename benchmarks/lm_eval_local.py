"""Quality by lm-evaluation-harness, which loads an exported folder as it is, on tasks made of local texts, beside the original.

    pip install lm_eval onnxruntime-genai transformers torch       # in an environment of their own: --python its interpreter
    edgecomp export smol4.ec -o smol4
    python benchmarks/lm_eval_local.py --folders smol4 --original SmolLM2.gguf --texts a.txt.gz b.txt --python lm-eval/bin/python

| task | what |
| --- | --- |
| `last-word` | sentences whose last word is to be the likeliest continuation, greedy (as LAMBADA) |
| `four-choices` | sentences whose second half is to be likelier than those of three others (as HellaSwag, by characters) |

A row for each model, text and task: `model`, `backend` (lm-eval's), `text`, `task`, `accuracy`, `stderr` (lm-eval's), `samples`.
The original runs in PyTorch (`hf`) from its own weights.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from records import add_json_option, print_rows

from edgecomp.calibration import read_text

_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_LENGTHS = range(60, 240)  # characters: enough to guess from, and short
_YAML = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
output_type: {kind}
test_split: test
doc_to_text: "{{{{context}}}}"
doc_to_target: "{target}"
{more}metric_list:
  - metric: {metric}
    aggregation: mean
    higher_is_better: true
"""


def sentences(text: str) -> list[str]:
    """Sentences of letters that are neither short nor long, each once, without the mark at the end."""
    found = (" ".join(part.split()) for part in _SENTENCE.split(text))
    plain = (part.rstrip(".!?\"' ") for part in found if len(part) in _LENGTHS)
    return list(dict.fromkeys(part for part in plain if re.fullmatch(r"[A-Za-z]{3,}", part.rpartition(" ")[2])))


def documents(text: str, task: str, count: int, seed: int) -> Iterator[dict[str, Any]]:
    """The documents of a task."""
    chance, known = random.Random(seed), sentences(text)
    chosen = chance.sample(known, min(count, len(known)))
    for sentence in chosen:
        if task == "last-word":
            context, _, last = sentence.rpartition(" ")
            yield {"context": context, "target": f" {last}"}
            continue
        context, ending = halves(sentence)
        others = [halves(other)[1] for other in chance.sample(known, 3)]
        choices = [ending, *others]
        chance.shuffle(choices)
        yield {"context": context, "choices": choices, "gold": choices.index(ending)}


def halves(sentence: str) -> tuple[str, str]:
    """Two halves by words; the second begins with its space."""
    words = sentence.split(" ")
    middle = len(words) // 2
    return " ".join(words[:middle]), " " + " ".join(words[middle:])


def write_task(folder: Path, name: str, task: str, rows: Sequence[dict[str, Any]]) -> None:
    """A task's file for lm-eval, and its documents."""
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    if task == "last-word":
        yaml = _YAML.format(
            name=name, file=file, kind="loglikelihood", target="{{target}}", more="target_delimiter: ''\n", metric="acc"
        )
    else:
        more = "doc_to_choice: choices\ntarget_delimiter: ''\n"
        yaml = _YAML.format(name=name, file=file, kind="multiple_choice", target="{{gold}}", more=more, metric="acc_norm")
    (folder / f"{name}.yaml").write_text(yaml, encoding="utf-8")


def evaluate(python: str, backend: str, arguments: str, names: Sequence[str], tasks: Path) -> dict[str, dict[str, Any]]:
    """What lm-eval says of each task."""
    output = tasks / f"results-{len(list(tasks.glob('results-*')))}"
    command = [python, "-P", "-m", "lm_eval", "--model", backend, "--model_args", arguments, "--tasks", ",".join(names)]
    command += ["--include_path", str(tasks), "--output_path", str(output), "--batch_size", "1", "--device", "cpu"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "ORT_DISABLE_TELEMETRY": "1"}
    environment["HF_DATASETS_CACHE"] = str(tasks / "cache")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"lm-eval failed with {backend} {arguments}:\n{done.stderr[-4000:]}")
    found: dict[str, dict[str, Any]] = json.loads(next(output.rglob("results*.json")).read_text(encoding="utf-8"))["results"]
    return found


def main() -> None:
    """Make the tasks, run lm-eval on each model, and print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folders", nargs="+", type=Path, required=True, help="exported by edgecomp export, with all logits")
    parser.add_argument("--original", type=Path, help="a Hugging Face folder or a GGUF file")
    parser.add_argument("--texts", nargs="+", type=Path, required=True, help="that played no part in calibration or choice")
    parser.add_argument("--tasks", nargs="+", default=["last-word", "four-choices"], choices=["last-word", "four-choices"])
    parser.add_argument("--count", type=int, default=500, help="sentences of each text (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--python", default=sys.executable, help="of an environment with lm_eval and onnxruntime-genai")
    add_json_option(parser)
    arguments = parser.parse_args()
    models = [(folder.resolve().name, "onnxruntime-genai", f"pretrained={folder.resolve()}") for folder in arguments.folders]
    if arguments.original is not None:
        path = arguments.original.resolve()
        own = f"pretrained={path.parent},gguf_file={path.name}" if path.suffix == ".gguf" else f"pretrained={path}"
        models.append(("original", "hf", f"{own},dtype=float32"))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        names: dict[str, tuple[str, str, int]] = {}
        for text in arguments.texts:
            content, title = read_text(text), text.name.partition(".")[0]
            for task in arguments.tasks:
                name = f"{title}-{task}"
                found = list(documents(content, task, arguments.count, arguments.seed))
                write_task(Path(folder), name, task, found)
                names[name] = (title, task, len(found))
        for model, backend, options in models:
            results = evaluate(arguments.python, backend, options, list(names), Path(folder))
            for name, (title, task, count) in names.items():
                metric = "acc,none" if task == "last-word" else "acc_norm,none"
                rows.append(
                    {
                        "model": model,
                        "backend": backend,
                        "text": title,
                        "task": task,
                        "accuracy": results[name][metric],
                        "stderr": results[name][metric.replace(",", "_stderr,")],
                        "samples": count,
                    }
                )
    print_rows("lm_eval_local", rows, as_json=arguments.json)


if __name__ == "__main__":
    main()
