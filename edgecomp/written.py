"""Calibration text that a language model writes itself: windows of tokens, sampled from its own distribution.

A window starts with a token drawn evenly from the vocabulary, special tokens left out, and every next one is drawn from the model's
distribution at temperature 1. So no token of a start is needed, and since the tokens are used as they were drawn, no tokenizer has
to give them back. What is written decides nothing but what is learned from: it is held in the same form as windows of a text.

A window in which more than half of the 4-grams repeat earlier ones says little and is drawn again; a model that writes mostly such
windows is refused.

Source: Z. Liu et al., "LLM-QAT: Data-Free Quantization Aware Training for Large Language Models", 2023, arXiv:2305.17888. We
deviate in drawing all tokens but the first from the whole distribution, where it takes the likeliest for the first few.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
from collections.abc import Iterator, Sized
from itertools import count as count_up
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgecomp.context import Progress
from edgecomp.errors import CalibrationError, ConfigError, is_out_of_memory
from edgecomp.models.base import LoadedModel
from edgecomp.models.bound import body_of
from edgecomp.resume import Kept, Work

SELF = "self"  # the calibration of this name
_AT_ONCE = {"cpu": 32, "cuda": 512}  # windows
_GRAM = 4
_MOST_REPEATED = 0.5  # share of a window's 4-grams
_TRIES = 3  # times the windows that are asked for
_SEEDS_APART = 1_000_003  # parts of a seed, which count up


def is_self(calibration: Any) -> bool:
    """Whether a language model is to write its own."""
    return isinstance(calibration, str) and calibration == SELF


def own_samples(calibration: Any, share: float | None, samples: int) -> int:
    """How many samples the model writes itself.

    Raises:
        ConfigError: a share that leaves one of both without samples, or that has nothing to share with.

    """
    alone = is_self(calibration)
    if share is None:
        return samples if alone else 0
    if alone or calibration is None or not 0 < share < 1:
        raise ConfigError(
            "self_share (--self-share) is the part of the samples that the model writes beside those of a calibration file, above "
            f'0 and below 1, got {share} with calibration {calibration!r}; calibration "{SELF}" alone has the model write all'
        )
    own = round(samples * share)
    if not 0 < own < samples:
        raise ConfigError(
            f"self_share (--self-share) {share} of {samples} samples must leave both kinds one, got {own} self-written"
        )
    return own


def written_windows(
    model: LoadedModel, *, count: int, length: int, seed: int, device: torch.device, progress: Progress, work: Work
) -> np.ndarray:
    """Windows that the model writes: int64 `[count, length]`, the same for the same model, seed, device and versions.

    Args:
        model: a language model.
        count: how many windows.
        length: tokens of each, at least 2.
        seed: of the draws.
        device: where the model runs; on an accelerator in bfloat16.
        progress: reports the work.
        work: keeps what is written, some windows at a time.

    Raises:
        CalibrationError: the model is no language model, repeats itself, gives logits that are not finite, or does not fit memory.

    """
    if model.kind != "causal-lm":
        raise CalibrationError(
            f'calibration "self" is for language models, whose outputs are next tokens, and this one is of kind {model.kind}: '
            "give --calibration FILE"
        )
    at_once = min(count, _AT_ONCE.get(device.type, _AT_ONCE["cpu"]))
    good: list[np.ndarray] = []
    parts = _parts(model, at_once, length, seed, device, work)
    most = -(-_TRIES * count // at_once)
    for part in progress(islice(parts, most), total=count, label="self-written text", unit="window", size=len):
        good += [window for window in part if repeated_share(window) <= _MOST_REPEATED]
        if len(good) >= count:
            return np.stack(good[:count])
    raise CalibrationError(
        f"what the model writes must not repeat itself, but in {most * at_once - len(good)} of {most * at_once} windows more than "
        f"{_MOST_REPEATED:.0%} of the {_GRAM}-grams repeat earlier ones: give --calibration FILE"
    )


def _parts(model: LoadedModel, at_once: int, length: int, seed: int, device: torch.device, work: Work) -> Iterator[np.ndarray]:
    """Windows `[at_once, length]` without end, those that are kept first."""
    writer: _Writer | None = None
    for number in count_up():
        name = f"windows {number}, {at_once} of {length}, seed {seed}, {device.type}"
        kept = work.find(name)
        if kept is None:
            writer = writer or _Writer(model, device)
            kept = work.keep(name, Kept({"tokens": writer.write(at_once, length, seed, number)}, {}))
        yield np.asarray(kept.arrays["tokens"], np.int64)


def repeated_share(window: np.ndarray) -> float:
    """The share of a window's 4-grams that occurred in it before; 0 for fewer than four tokens."""
    grams = np.lib.stride_tricks.sliding_window_view(window, _GRAM) if len(window) >= _GRAM else np.empty((0, _GRAM))
    return 1 - len(np.unique(grams, axis=0)) / len(grams) if len(grams) else 0.0


def self_key(source: dict[str, str]) -> str:
    """What windows are kept under: the digest of all that decides them beside their names."""
    decisive = {"source": source, "torch": torch.__version__, "processor": torch.backends.cpu.get_cpu_capability()}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


class _Writer:
    """A copy of the model that draws tokens."""

    def __init__(self, model: LoadedModel, device: torch.device) -> None:
        self._device = device
        body = body_of(model.module)
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self._body: nn.Module = copy.deepcopy(body).to(device=device, dtype=dtype).eval()
        special = {*(getattr(model.tokenizer, "all_special_ids", None) or [])}
        known = _known_tokens(model)
        self._starts = torch.tensor([token for token in range(known) if token not in special], device=device)
        if not len(self._starts):
            raise CalibrationError(f"the model must know a token that is not special to start with, and all of its {known} are")
        # The argument is called so since transformers 5.2x; before, it was past_key_values.
        self._cache = "cache" if "cache" in inspect.signature(body.forward).parameters else "past_key_values"

    @torch.no_grad()
    def write(self, count: int, length: int, seed: int, number: int) -> np.ndarray:
        """Windows `[count, length]`; part `number` of the seed's."""
        generator = torch.Generator(self._device).manual_seed((seed * _SEEDS_APART + number) % 2**32)  # a processor's takes 32 bits
        drawn = torch.randint(len(self._starts), (count,), generator=generator, device=self._device)
        tokens, past = self._starts[drawn][:, None], None
        try:
            while tokens.shape[1] < length:
                output = self._body(
                    input_ids=tokens if past is None else tokens[:, -1:],
                    attention_mask=torch.ones_like(tokens),
                    use_cache=True,
                    **{self._cache: past},
                )
                past = getattr(output, self._cache, None)  # without one, all tokens are run again
                tokens = torch.cat([tokens, self._draw(output.logits[:, -1], generator)], dim=1)
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                raise CalibrationError(f"the model must fit into memory while it writes {count} windows: {error}") from error
            raise
        return tokens.cpu().numpy()

    def _draw(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        probabilities = logits.float().softmax(dim=-1)
        if not torch.isfinite(probabilities).all():
            raise CalibrationError("the model's logits must be finite to draw tokens from, and hold NaN or infinity")
        return torch.multinomial(probabilities, 1, generator=generator)


def _known_tokens(model: LoadedModel) -> int:
    """How many tokens the tokenizer has, or the table of embeddings where that has fewer: tables may have more rows than tokens."""
    body: Any = body_of(model.module)
    rows = len(body.get_input_embeddings().weight)
    return min(rows, len(model.tokenizer)) if isinstance(model.tokenizer, Sized) else rows
