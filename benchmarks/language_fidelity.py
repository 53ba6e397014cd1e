"""How near a compressed language model stays to the original on a text, each figure with an interval over the text's windows."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgecomp.calibration import read_text
from edgecomp.exported.session import AUTO, OnnxModel
from edgecomp.models import LoadedModel
from edgecomp.text import token_windows
from edgecomp.verify.bootstrap import resampled_sums

Logits = Callable[[np.ndarray], Tensor]  # of tokens [T] the logits [T, vocabulary]


def of_module(module: nn.Module, device: str) -> Logits:
    """What a model gives in float32, from a copy on the device."""
    placed = copy.deepcopy(module).to(device=device, dtype=torch.float32).eval()

    @torch.inference_mode()
    def logits(window: np.ndarray) -> Tensor:
        ids = torch.from_numpy(window[None]).to(device)
        given: Tensor = placed(ids, torch.ones_like(ids))[0][0]
        return given.float()

    return logits


def of_file(path: Path, threads: int) -> Logits:
    """What an exported ONNX file gives with the library."""
    session = OnnxModel(path, AUTO, threads)

    def logits(window: np.ndarray) -> Tensor:
        ids = window[None]
        return torch.from_numpy(session.run({"input_ids": ids, "attention_mask": np.ones_like(ids)})["logits"][0])

    return logits


def text_windows(model: LoadedModel, text: Path, window: int, windows: int) -> np.ndarray:
    """The first windows of a text; the text must hold as many."""
    assert model.tokenizer is not None
    found = token_windows(np.asarray(model.tokenizer(read_text(text), verbose=False)["input_ids"], np.int64), window, windows)
    assert len(found) == windows, f"{text} must hold {windows} windows of {window} tokens, and holds {len(found)}"
    return found


def last_words(model: LoadedModel, windows: np.ndarray) -> list[list[slice]]:
    """Where the last words of sentences are in each window: the tokens of a word of letters in front of a full stop or such."""
    tokenizer: Any = model.tokenizer
    texts = {token: tokenizer.decode([token]) for token in {int(token) for token in windows.flat}}
    found = []
    for window in windows:
        words, start = [], 0
        for place, token in enumerate(int(token) for token in window):
            text = texts[token]
            if text.strip() in (".", "!", "?") and start:
                word = "".join(texts[int(part)] for part in window[start:place])
                words += [slice(start, place)] if word[:1] == " " and word[1:].isalpha() else []
            start = place if text[:1].isspace() else start if text[:1].isalpha() else 0
        found.append(words)
    return found


def fidelity(
    reference: Logits, compressed: Logits, windows: np.ndarray, device: str, words: Sequence[Sequence[slice]] = ()
) -> dict[str, float]:
    """Perplexity, that of the reference, and the divergence from it, with 95 % intervals by the bootstrap over windows.

    Also the share of tokens that are the likeliest ones, and of `words` all of whose tokens are, given what is before them.

    Args:
        reference: the original.
        compressed: what is judged.
        windows: int64 `[windows, tokens]`; tokens 2 to the last of each are predicted.
        device: where distributions are compared.
        words: of each window, tokens that are one word (`last_words`).

    """
    sums, right, right_words = [], [0, 0], [0, 0]
    for number, window in enumerate(windows):
        target = torch.from_numpy(window[1:, None]).to(device)
        expected, got = (torch.log_softmax(run(window).to(device), dim=-1)[:-1] for run in (reference, compressed))
        divergence = (expected.exp() * (expected - got)).sum(dim=-1)
        losses = [-scores.gather(-1, target).double().sum() for scores in (expected, got)]
        sums.append([float(value) for value in (divergence.double().sum(), *losses)])
        for which, scores in enumerate((expected, got)):
            hit = [False, *(scores.argmax(dim=-1, keepdim=True) == target)[:, 0].tolist()]  # nothing foretells the first token
            right[which] += sum(hit)
            right_words[which] += sum(all(hit[word]) for word in (words[number] if words else ()))
    rows = np.array(sums) / (windows.shape[1] - 1)
    drawn = resampled_sums(rows) / len(rows)
    kl, nll_reference, nll = rows.mean(axis=0)
    kl_low, kl_high = np.quantile(drawn[:, 0], [0.025, 0.975])
    low, high = np.exp(np.quantile(drawn[:, 2], [0.025, 0.975]))
    tokens, count = windows.size - len(windows), sum(len(of_window) for of_window in words)
    shares = {"next_token": (right, tokens)} | ({"last_word": (right_words, count)} if count else {})
    accuracies = {
        f"{name}_accuracy{suffix}": round(hits[which] / total, 4)
        for name, (hits, total) in shares.items()
        for which, suffix in enumerate(("_float32", ""))
    }
    return {
        "perplexity": round(float(np.exp(nll)), 4),
        "perplexity_low": round(float(low), 4),
        "perplexity_high": round(float(high), 4),
        "perplexity_float32": round(float(np.exp(nll_reference)), 4),
        "divergence": round(float(kl), 5),
        "divergence_low": round(float(kl_low), 5),
        "divergence_high": round(float(kl_high), 5),
        **accuracies,
        **({"last_words": count} if count else {}),
    }
