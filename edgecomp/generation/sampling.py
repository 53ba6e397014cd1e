"""Choosing the next token from logits; on devices runtimes/runner/sampling.cpp does the same."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from edgecomp.errors import ConfigError


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen.

    Args:
        temperature: logits are divided by it; 0 takes the likeliest.
        top_k: of so many likeliest tokens alone; 0 for all.
        top_p: of the likeliest tokens whose probabilities reach it alone; 1 for all.
        seed: of the random numbers: the same seed writes the same text.

    Raises:
        ConfigError: a value out of range.

    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= 100:
            raise ConfigError(f"a temperature must be 0 (the likeliest token) to 100, got {self.temperature}")
        if self.top_k < 0:
            raise ConfigError(f"top-k must be 0 (all tokens) or more, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top-p must be above 0 and 1 at most, got {self.top_p}")
        if self.seed < 0:
            raise ConfigError(f"a seed must be 0 or more, got {self.seed}")


class Sampler:
    """Chooses tokens one after the other, each by one random number of at least 0 and below 1."""

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        self._random = np.random.default_rng(sampling.seed)
        self._drawn: deque[float] = deque()

    def __call__(self, logits: np.ndarray) -> int:
        """A token for logits `[vocabulary]`."""
        chosen = self.sampling
        if chosen.temperature == 0:
            return int(logits.argmax())
        order = np.argsort(-logits, kind="stable")[: chosen.top_k or None]
        scaled = logits[order].astype(np.float64) / chosen.temperature
        weights = np.exp(scaled - scaled[0])
        weights /= weights.sum()
        # The first whose probabilities reach top_p, the one that does included.
        kept = int(np.searchsorted(np.cumsum(weights), chosen.top_p)) + 1
        sums = np.cumsum(weights[:kept])
        (number,) = self.numbers(1)
        self.use(1)
        return int(order[np.searchsorted(sums / sums[-1], number, side="right")])

    def numbers(self, count: int) -> list[float]:
        """The next random numbers, which `use` tells were used: a device that may stop early is given more than it needs."""
        while len(self._drawn) < count:
            self._drawn.append(self._random.random())
        return [self._drawn[index] for index in range(count)]

    def use(self, count: int) -> None:
        """Pass over so many numbers."""
        for _ in range(count):
            self._drawn.popleft()
