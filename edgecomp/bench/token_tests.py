"""Tests of a language model with a cache, named and shaped as llama-bench's: `pp512`, `tg128`, `pp512 @ d1024`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from edgecomp.bench.options import BenchOptions
from edgecomp.bench.record import TokenTest
from edgecomp.errors import ConfigError
from edgecomp.exported.executorch_file import ExecutorchFile
from edgecomp.exported.onnx_file import OnnxFile
from edgecomp.exported.read import read_exported
from edgecomp.generation.folder import Folder, read_folder

# The name of the runner's one input (runtimes/runner/decoder_test.cpp).
TOKENS = "tokens"


@dataclass(frozen=True)
class FolderTest:
    """A test of a folder's model.

    Args:
        folder: that edgecomp exported.
        model: its file.
        test: what is tested.

    """

    folder: Folder
    model: OnnxFile | ExecutorchFile
    test: TokenTest

    @property
    def name(self) -> str:
        """Of the artifact: all folders have files of the same names."""
        return self.folder.path.resolve().name

    def options(self, options: BenchOptions) -> BenchOptions:
        """The options for such tests: a sample is a repetition, of which there are few; a slow board takes minutes for them."""
        few = replace(options, warmup=min(options.warmup, 1), min_iterations=options.repetitions, min_duration_s=0.0)
        return replace(few, max_duration_s=max(options.max_duration_s, options.timeout_s))

    def inputs(self, seed: int) -> dict[str, np.ndarray]:
        """Random tokens, as llama-bench takes them: those that the cache holds first."""
        count = self.test.depth + self.test.tokens
        return {TOKENS: np.random.default_rng(seed).integers(0, self.folder.vocabulary, count, np.int64)}

    @property
    def request(self) -> list[tuple[str, object]]:
        """What the runner is told of it (runtimes/runner/request.h)."""
        step = self.test.tokens if self.test.kind == "pp" else 1
        lines: list[tuple[str, object]] = [("step", step), ("depth", self.test.depth), ("context", self.folder.context)]
        return [*lines, ("cache_in_place", int(self.folder.in_place))]


def tests_of(path: Path, options: BenchOptions) -> Iterator[FolderTest]:
    """The tests of a folder that the options ask for, each at every depth.

    Raises:
        ModelError: it is no language model's folder.
        CheckpointError: a file is missing, damaged, or of another export.
        ConfigError: a test does not fit into the model's context, or there is none.

    """
    folder = read_folder(path, writes=False)
    model = read_exported(folder.model)
    tests = [
        TokenTest(kind=kind, tokens=count, depth=depth)
        for depth in options.depths
        for kind, counts in _counts(options).items()
        for count in counts
        if count > 0
    ]
    if not tests:
        raise ConfigError(f"{path} must be tested by something: give --prompt-tokens or --generate-tokens above 0")
    for test in tests:
        if test.depth + test.tokens > folder.context:
            raise ConfigError(
                f"{test.name} is of {test.depth + test.tokens} tokens, and {path} was exported for {folder.context}: give smaller "
                "--prompt-tokens, --generate-tokens and --depth, or export it with a longer --context"
            )
        yield FolderTest(folder, model, test)


def _counts(options: BenchOptions) -> dict[Literal["pp", "tg"], tuple[int, ...]]:
    return {"pp": options.prompt_tokens, "tg": options.generate_tokens}
