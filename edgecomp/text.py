"""Texts as token ids, with numpy only."""

from __future__ import annotations

import numpy as np


def token_windows(tokens: np.ndarray, length: int, count: int) -> np.ndarray:
    """The first `count` windows of `length` tokens, next to each other from the start: int64 `[windows, length]`.

    Fewer than `count` where `tokens [T]` end before; the rest that fills no window is left out.
    """
    windows = min(count, len(tokens) // length)
    return tokens[: windows * length].reshape(windows, length).astype(np.int64)
