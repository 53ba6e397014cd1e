"""A language model in ONNX Runtime, with the keys and values of the tokens that it was given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from edgecomp.errors import CheckpointError, ConfigError, ModelError, first_line
from edgecomp.exported.library import AUTO, resolve_library
from edgecomp.exported.onnx_file import read_onnx
from edgecomp.exported.session import import_onnxruntime, input_specs, open_session, runtime_errors
from edgecomp.generation.folder import Folder
from edgecomp.ops import CACHES

# Places that a cache in place has at first, and grows by at least.
_ROOM = 256
# Tokens that are given to the model at once at most: logits of all of them may be in memory together.
_CHUNK = 512


class Session:
    """Tokens in, logits of the last one out; what the tokens before left is kept.

    Args:
        folder: of the model.
        library: `auto`, `none` or a path (`edgecomp.exported.library.resolve_library`).
        threads: of the runtime.
        context: tokens of a text at most; None for as many as the model takes.

    Attributes:
        tokens: those that the cache is of.

    Raises:
        ConfigError: a context that the model was not exported for, or a model for another runtime.
        CheckpointError: the model has no cache of the kind that edgecomp exports.
        ModelError: no memory is left for the cache.
        RuntimeUnavailableError: the runtime or the library is missing.

    """

    def __init__(self, folder: Folder, library: str = AUTO, threads: int = 1, context: int | None = None) -> None:
        self.context = folder.require_context(context)
        self.folder = folder
        self.tokens: list[int] = []
        if folder.description.runtime != "onnxruntime":
            raise ConfigError(f"{folder.path} is for {folder.description.runtime}, and a session of ONNX Runtime is asked for")
        model = folder.model
        self._session = open_session(model, resolve_library(library, read_onnx(model)), threads)
        self._shapes = _cache_shapes(self._session, model)
        try:
            self._cache: _Cache = (
                _InPlace(self._session, self._shapes, folder.context) if folder.in_place else _Grown(self._session, self._shapes)
            )
        except (MemoryError, ValueError) as error:  # numpy's, of sizes beyond any memory
            raise ModelError(f"no memory is left for the cache: {first_line(error)}") from error

    @property
    def cache_bytes(self) -> int:
        """Memory that the cache takes."""
        return self._cache.nbytes

    def feed(self, tokens: Sequence[int]) -> np.ndarray:
        """Logits `[vocabulary]` of what follows `tokens`, which come behind those given before.

        Raises:
            ConfigError: no tokens.
            ModelError: more than the context holds, a token that the model does not have, no memory left for the cache, or the
                runtime fails.

        """
        if not len(tokens):
            raise ConfigError("a prompt must hold at least one token, got none")
        total = len(self.tokens) + len(tokens)
        if total > self.context:
            raise ModelError(
                f"a text must have {self.context} tokens at most, and with {len(tokens)} more this one has {total}: shorten it, or "
                "export the model with a longer --context"
            )
        wrong = next((token for token in tokens if not 0 <= token < self.folder.vocabulary), None)
        if wrong is not None:
            raise ModelError(
                f"tokens must lie in 0 to {self.folder.vocabulary - 1}, which the model has, got {wrong}: "
                "the tokenizer is of another model"
            )
        logits = np.empty(0, np.float32)
        try:
            for start in range(0, len(tokens), _CHUNK):
                chunk = tokens[start : start + _CHUNK]
                logits = self._cache.run(chunk, len(self.tokens))
                self.tokens += chunk
        except MemoryError as error:
            raise ModelError(f"no memory is left for the cache of {total} tokens: {first_line(error)}") from error
        except runtime_errors() as error:
            raise ModelError(f"the model fails at token {len(self.tokens)}: {first_line(error)}") from error
        return logits

    def rewind(self, length: int) -> None:
        """Forget all but the first `length` tokens."""
        self.tokens = self.tokens[:length]
        self._cache.rewind(length)

    def state(self) -> dict[str, np.ndarray]:
        """Keys and values of the tokens, as the cache keeps them, `[1, heads, tokens, row]`, by name."""
        return self._cache.read(len(self.tokens))

    def restore(self, tokens: Sequence[int], state: Mapping[str, np.ndarray]) -> None:
        """Take over what `state` gave.

        Raises:
            ModelError: it is of another type or shape than this model's.

        """
        for name, kept in self._shapes.items():
            found, shape = state.get(name), kept.shape(len(tokens))
            if found is None or found.shape != shape or found.dtype.name != kept.dtype:
                got = "none" if found is None else f"{found.dtype.name} {list(found.shape)}"
                raise ModelError(f"the cache {name} must be {kept.dtype} {list(shape)}, got {got}")
        if len(tokens) >= self.context:
            raise ModelError(f"a saved beginning must be shorter than the context of {self.context} tokens, got {len(tokens)}")
        self._cache.write(state, len(tokens))
        self.tokens = list(tokens)


@dataclass(frozen=True)
class _Kept:
    """What one input of the cache is of: a type, heads, and values of a head's row."""

    dtype: str
    heads: int
    row: int

    def shape(self, places: int) -> tuple[int, int, int, int]:
        return 1, self.heads, places, self.row

    def zeros(self, places: int) -> np.ndarray:
        return np.zeros(self.shape(places), self.dtype)


def _cache_shapes(session: Any, model: Path) -> dict[str, _Kept]:
    """What each cache that the model takes is of, by the input's name.

    Raises:
        CheckpointError: it is none that takes tokens and a mask besides, and gives logits and caches.

    """
    inputs, outputs = input_specs(session), [output.name for output in session.get_outputs()]
    shapes: dict[str, _Kept] = {}
    for spec in inputs[2:]:
        match spec.shape:
            case (str(), int(heads), str(), int(row)) if spec.dtype in {dtype for dtype, _ in CACHES.values()}:
                shapes[spec.name] = _Kept(spec.dtype, heads, row)
    names = [spec.name for spec in inputs]
    expected = ["logits", *(name.replace("past_key_values", "present") for name in shapes)]
    if not shapes or names != ["input_ids", "attention_mask", *shapes] or outputs != expected:
        raise CheckpointError(
            f"{model} must take tokens, a mask, and keys and values of past tokens, and give logits and these, as edgecomp export "
            "writes it: export it again"
        )
    return shapes


def _inputs(tokens: Sequence[int], before: int) -> dict[str, np.ndarray]:
    mask = np.ones((1, before + len(tokens)), np.int64)
    return {"input_ids": np.array([tokens], np.int64), "attention_mask": mask}


class _Cache(Protocol):
    """Keys and values of the tokens so far; lengths are given by the session."""

    @property
    def nbytes(self) -> int:
        """Memory that they take."""

    def run(self, tokens: Sequence[int], before: int) -> np.ndarray:
        """Logits of what follows tokens behind `before` others, whose keys and values are added."""

    def rewind(self, length: int) -> None:
        """Forget what is behind the first places."""

    def read(self, length: int) -> dict[str, np.ndarray]:
        """A copy of the first places."""

    def write(self, state: Mapping[str, np.ndarray], length: int) -> None:
        """Take over what was read."""


class _Grown:
    """Each run gives a cache that is longer than the one it takes."""

    def __init__(self, session: Any, shapes: Mapping[str, _Kept]) -> None:
        self._session = session
        self._arrays = {name: kept.zeros(0) for name, kept in shapes.items()}

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self._arrays.values())

    def run(self, tokens: Sequence[int], before: int) -> np.ndarray:
        logits, *present = self._session.run(None, {**_inputs(tokens, before), **self._arrays})
        self._arrays = dict(zip(self._arrays, present, strict=True))
        last: np.ndarray = logits[0, -1]
        return last

    def rewind(self, length: int) -> None:
        self._arrays = {name: np.ascontiguousarray(array[:, :, :length]) for name, array in self._arrays.items()}

    def read(self, length: int) -> dict[str, np.ndarray]:
        return {name: array[:, :, :length] for name, array in self._arrays.items()}

    def write(self, state: Mapping[str, np.ndarray], length: int) -> None:
        self._arrays = {name: np.ascontiguousarray(state[name]) for name in self._arrays}


class _InPlace:
    """One buffer for the cache that a run takes and gives, with room for more tokens."""

    def __init__(self, session: Any, shapes: Mapping[str, _Kept], context: int) -> None:
        self._session, self._shapes, self._context = session, shapes, context
        self._binding = session.io_binding()
        self._arrays: dict[str, np.ndarray] = {}
        self._make_room(_ROOM, {}, 0)

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self._arrays.values())

    def _make_room(self, room: int, contents: Mapping[str, np.ndarray], used: int) -> None:
        """Buffers of `room` places, the first `used` of which are those of `contents`."""
        ort = import_onnxruntime()
        room = min(room, self._context)
        made = {name: kept.zeros(room) for name, kept in self._shapes.items()}
        for name, array in contents.items():
            made[name][:, :, :used] = array[:, :, :used]
        for name, array in made.items():
            value = ort.OrtValue.ortvalue_from_numpy(array)  # shares the array's memory
            self._binding.bind_ortvalue_input(name, value)
            self._binding.bind_ortvalue_output(name.replace("past_key_values", "present"), value)
        self._arrays = made

    def run(self, tokens: Sequence[int], before: int) -> np.ndarray:
        needed, room = before + len(tokens), next(iter(self._arrays.values())).shape[2]
        if needed > room:
            self._make_room(max(needed + _ROOM, 2 * room), self._arrays, before)
        for name, value in _inputs(tokens, before).items():
            self._binding.bind_cpu_input(name, value)
        self._binding.bind_output("logits")
        self._session.run_with_iobinding(self._binding)
        logits = self._binding.get_outputs()[-1]  # bound behind the cache
        return np.asarray(logits.numpy()[0, -1])

    def rewind(self, length: int) -> None:
        """What is behind the tokens is overwritten, and the mask tells how many there are."""

    def read(self, length: int) -> dict[str, np.ndarray]:
        return {name: np.array(array[:, :, :length]) for name, array in self._arrays.items()}

    def write(self, state: Mapping[str, np.ndarray], length: int) -> None:
        self._make_room(length + _ROOM, {name: state[name] for name in self._shapes}, length)
