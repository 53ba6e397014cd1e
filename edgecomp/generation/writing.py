"""A text written by a model: a beginning, then token by token."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from edgecomp.errors import ModelError
from edgecomp.generation.sampling import Sampler
from edgecomp.generation.session import Session
from edgecomp.generation.text import Tokens


@dataclass
class Rates:
    """What was done, and how long it took.

    Args:
        prompt_tokens: given to the model; those that its cache held already are not among them.
        cached_tokens: that it held.
        prompt_seconds: until the first token.
        tokens: written.
        seconds: for those behind the first.

    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    prompt_seconds: float = 0.0
    tokens: int = 0
    seconds: float = 0.0

    @property
    def prompt_rate(self) -> float | None:
        """Tokens a second of the prompt."""
        return self.prompt_tokens / self.prompt_seconds if self.prompt_seconds > 0 else None

    @property
    def rate(self) -> float | None:
        """Tokens a second of the text."""
        return (self.tokens - 1) / self.seconds if self.tokens > 1 and self.seconds > 0 else None


@dataclass(frozen=True)
class Held:
    """Memory of the process that runs the model, in bytes; None where it is not known.

    Args:
        peak: the most that it held, pages of mapped files included.
        anonymous: that only it holds.
        cache: for keys and values.

    """

    peak: int | None
    anonymous: int | None
    cache: int


class TextWriter(Protocol):
    """Writes behind beginnings, of which a cache may hold a part: here or on a device."""

    def write(self, beginning: Sequence[int], most: int, show: Callable[[str], None], rates: Rates) -> str:
        """The text behind a beginning, without it: up to a token that ends it, `most` tokens, or the context's end.

        Args:
            beginning: tokens.
            most: tokens to write.
            show: is given each whole character as it comes.
            rates: is filled in as it goes, so that it tells of an interrupted text too.

        Raises:
            ModelError: the beginning does not fit into the context.
            DeviceError: a device fails.

        """

    def held(self) -> Held:
        """Memory, after a text."""


class Writer:
    """Writes by a session of this process.

    Args:
        session: the model.
        tokens: its tokenizer.
        sampler: chooses.

    """

    def __init__(self, session: Session, tokens: Tokens, sampler: Sampler) -> None:
        self._session, self._tokens, self._sampler = session, tokens, sampler

    def write(self, beginning: Sequence[int], most: int, show: Callable[[str], None], rates: Rates) -> str:
        """As `TextWriter` says."""
        session, stream = self._session, self._tokens.stream()
        require_room(beginning, session.context)
        held = common(session.tokens, beginning)
        session.rewind(held)
        rates.cached_tokens, rates.prompt_tokens = held, len(beginning) - held
        start = time.monotonic()
        logits = session.feed(list(beginning[held:]))
        rates.prompt_seconds = time.monotonic() - start
        start, text = time.monotonic(), []
        most = min(most, session.context - len(beginning))
        while rates.tokens < most:
            token = self._sampler(logits)
            rates.tokens += 1
            rates.seconds = time.monotonic() - start
            if token in session.folder.stop:
                break
            piece = stream(token)
            if piece:
                text.append(piece)
                show(piece)
            if rates.tokens < most:
                logits = session.feed([token])
        return "".join(text)

    def held(self) -> Held:
        """Memory of this process."""
        import resource

        return Held(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, None, self._session.cache_bytes)


def require_room(beginning: Sequence[int], context: int) -> None:
    """Refuse a beginning behind which nothing can be written.

    Raises:
        ModelError: it is as long as the context.

    """
    if len(beginning) >= context:
        raise ModelError(
            f"a prompt must be shorter than the context of {context} tokens, got {len(beginning)}: shorten it, or "
            "export the model with a longer --context"
        )


def common(held: Sequence[int], wanted: Sequence[int]) -> int:
    """How many tokens both begin with, less one where that would leave nothing to compute logits from."""
    count = 0
    for ours, theirs in zip(held, wanted, strict=False):
        if ours != theirs:
            break
        count += 1
    return min(count, max(len(wanted) - 1, 0))
