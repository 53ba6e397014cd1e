"""A text written by a model on a device: tokens go there, its measuring program chooses the next ones, and they come one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from edgecomp.devices.answers import part_of, validated
from edgecomp.devices.bundle import require_machine
from edgecomp.devices.session import Session
from edgecomp.errors import DeviceError
from edgecomp.exported.library import AUTO, resolve_library
from edgecomp.exported.read import read_exported
from edgecomp.generation.folder import Folder
from edgecomp.generation.sampling import Sampler
from edgecomp.generation.text import Tokens
from edgecomp.generation.writing import Held, Rates, common, require_room


class _Answer(BaseModel):
    model_config = ConfigDict(strict=True)


class _Prompt(_Answer):
    ns: int = Field(ge=0)


class _Token(_Answer):
    token: int = Field(ge=0)
    ns: int = Field(ge=0)


class _Memory(_Answer):
    peak_resident_bytes: int
    anonymous_bytes: int


class _Turn(_Answer):
    memory: _Memory
    cache_bytes: int


class DeviceWriter:
    """A model on a device, ready to write; it is ended with the block. See `edgecomp.generation.writing.TextWriter`.

    What is brought to the device is the model and its data, as they were checked, and for `auto` the library of the device's own
    bundle: never the one that lies in the folder.

    Args:
        session: with the device.
        folder: of the model.
        tokens: its tokenizer.
        sampler: what it says of the choice of tokens, and its random numbers, are used on the device.
        library: `auto`, `none` or a path.
        threads: of the runtime.
        context: tokens of a text at most; None for as many as the model takes.
        timeout_s: that loading, a prompt or a text may take.

    Raises:
        ConfigError: a context that the model was not exported for.
        RuntimeUnavailableError: the library is not there, or for another machine.
        DeviceError: the device fails, or refuses the files.
        EdgecompError: of the class that the measuring program names.

    """

    def __init__(
        self,
        session: Session,
        folder: Folder,
        tokens: Tokens,
        sampler: Sampler,
        *,
        library: str = AUTO,
        threads: int = 1,
        context: int | None = None,
        timeout_s: float = 600.0,
    ) -> None:
        self._context = folder.require_context(context)
        self._url, self._emulation = session.device.url, session.probe.emulation
        self._folder, self._tokens, self._sampler = folder, tokens, sampler
        self._given: list[int] = []  # tokens that the cache there is of
        self._held = Held(None, None, 0)
        model = read_exported(folder.model)
        found = resolve_library(library, model)
        names = [path.relative_to(folder.path).as_posix() for path in model.files]
        # What is sent is what was checked, wherever a link leads by now.
        sources = model.checked if session.copies else model.files
        files = session.push(dict(zip(names, sources, strict=True)))
        lines: list[tuple[str, object]] = [("action", "generate"), ("artifact", files[folder.model.name])]
        lines += [*(("file", path) for path in files.values()), ("threads", threads), ("context", self._context)]
        lines += [("cache_in_place", int(folder.in_place)), *(("stop", token) for token in sorted(folder.stop))]
        chosen = sampler.sampling
        lines += [("temperature", chosen.temperature), ("top_k", chosen.top_k), ("top_p", chosen.top_p)]
        if found is not None:
            own = session.own_library(model.path) if library == AUTO else _brought(session, found)
            lines.append(("library", own))
        self._conversation = session.converse(model.path, lines, timeout_s)
        try:
            self._part("ready")
        except BaseException:
            self._conversation.end()
            raise

    def __enter__(self) -> DeviceWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self._conversation.finish()
        finally:
            self._conversation.end()

    def write(self, beginning: Sequence[int], most: int, show: Callable[[str], None], rates: Rates) -> str:
        """As `TextWriter` says; an emulated device has no rates."""
        require_room(beginning, self._context)
        keep, stream, text = common(self._given, beginning), self._tokens.stream(), []
        rates.cached_tokens, rates.prompt_tokens = keep, len(beginning) - keep
        # Fewer than were asked for where the context ends: the device is to draw no number that it does not use.
        most = min(most, self._context - len(beginning))
        numbers = self._sampler.numbers(most) if self._sampler.sampling.temperature > 0 else []
        asked = " ".join(map(str, [keep, most, *beginning[keep:]]))
        self._conversation.say(f"{asked}\n{' '.join(number.hex() for number in numbers)}\n")
        prompt = validated(_Prompt, self._part("prompt"), self._url)
        timed = self._emulation == "no"
        rates.prompt_seconds = prompt.ns / 1e9 if timed else 0.0
        written: list[int] = []
        while "token" in (answer := self._conversation.hear()):
            token = validated(_Token, answer, self._url)
            if token.token >= self._folder.vocabulary or len(written) == most:
                raise DeviceError(f"{self._url}: the device must write {most} tokens of the model at most, got {token.token}")
            written.append(token.token)
            rates.tokens += 1
            rates.seconds = token.ns / 1e9 if timed else 0.0
            piece = "" if token.token in self._folder.stop else stream(token.token)
            if piece:
                text.append(piece)
                show(piece)
        turn = validated(_Turn, part_of(answer, "turn", url=self._url), self._url)
        self._given = [*beginning, *written[:-1]]  # the last one was not given to the model
        self._sampler.use(len(written) if numbers else 0)
        remembered = self._emulation != "process"
        peak, anonymous = turn.memory.peak_resident_bytes, turn.memory.anonymous_bytes
        self._held = Held(peak if remembered else None, anonymous if remembered else None, turn.cache_bytes)
        return "".join(text)

    def held(self) -> Held:
        """Memory of the measuring program after the last text."""
        return self._held

    def _part(self, name: str) -> Any:
        return part_of(self._conversation.hear(), name, url=self._url)


def _brought(session: Session, library: Path) -> str:
    """The user's library on the device."""
    require_machine(library, session.probe.architecture)
    return session.push({library.name: library})[library.name]
