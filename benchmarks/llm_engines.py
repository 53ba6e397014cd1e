"""What llm.py times: edgecomp's folders, ExecuTorch's programs, llama.cpp, and the plain reading of a model's bytes."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from edgecomp.native import get_library_path

PROMPT = 512  # tokens that llama.cpp computes at once
ROOM = 2048  # tokens that a cache may hold


class Engine(Protocol):
    """What is timed."""

    def feed(self, tokens: Sequence[int]) -> Any:
        """Logits of what follows these tokens, behind those before."""

    def rewind(self, length: int) -> None:
        """Forget all but the first tokens."""


class LlamaCpp:
    """llama.cpp through its C interface, as llama-bench calls it."""

    def __init__(self, file: Path, threads: int) -> None:
        import llama_cpp as library

        self._library = library
        library.llama_log_set(_SILENT, ctypes.c_void_p(0))
        library.llama_backend_init()
        self._model = library.llama_model_load_from_file(os.fsencode(file), library.llama_model_default_params())
        options = library.llama_context_default_params()
        options.n_ctx, options.n_batch, options.n_ubatch = ROOM, ROOM, PROMPT
        options.n_threads = options.n_threads_batch = threads
        self._context = library.llama_init_from_model(self._model, options)
        if not self._context:
            sys.exit(f"llama.cpp does not open {file}")
        self._memory = library.llama_get_memory(self._context)

    def feed(self, tokens: Sequence[int]) -> Any:
        """As `Engine` says."""
        array = (self._library.llama_token * len(tokens))(*tokens)
        if self._library.llama_decode(self._context, self._library.llama_batch_get_one(array, len(tokens))) != 0:
            sys.exit("llama_decode failed")
        self._library.llama_synchronize(self._context)
        return self._library.llama_get_logits_ith(self._context, -1)

    def rewind(self, length: int) -> None:
        """As `Engine` says."""
        if not self._library.llama_memory_seq_rm(self._memory, 0, length, -1):
            sys.exit("llama_memory_seq_rm failed")


@ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
def _SILENT(*_: Any) -> None:  # noqa: N802
    """Where llama.cpp's log goes."""


class Program:
    """A folder's program in ExecuTorch's Python runtime."""

    def __init__(self, file: Path, threads: int) -> None:
        import torch
        from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
        from executorch.runtime import Runtime

        self._torch = torch
        self._register()
        _unsafe_reset_threadpool(threads)
        self._program = Runtime.get().load_program(file)
        self._method, self._length = self._program.load_method("forward"), 0

    def _register(self) -> None:
        self._torch.ops.load_library(get_library_path("executorch"))

    def _places(self, count: int) -> Any:
        """What the program takes beside `count` tokens."""
        return self._torch.tensor([self._length])

    def feed(self, tokens: Sequence[int]) -> Any:
        """As `Engine` says."""
        given = [self._torch.tensor([tokens]), self._places(len(tokens))]
        self._length += len(tokens)
        return self._method.execute(given)[0]

    def rewind(self, length: int) -> None:
        """As `Engine` says."""
        self._length = length


class Optimum(Program):
    """A program of optimum-executorch in the same runtime."""

    def _register(self) -> None:
        from executorch.extension.llm.custom_ops import custom_ops  # noqa: F401 - registers llama::custom_sdpa
        from executorch.kernels import quantized  # noqa: F401 - and quantized_decomposed::embedding_byte

    def _places(self, count: int) -> Any:
        return self._torch.arange(self._length, self._length + count)


class Roof:
    """Reads a folder's data, as each token of any decoder does."""

    def __init__(self, folder: Path, threads: int) -> None:
        data = np.fromfile(folder / "model.onnx.data", np.uint8)
        self._parts = np.array_split(data[: data.size // 64 * 64].view(np.int32), threads)
        self._pool = ThreadPoolExecutor(threads)

    def feed(self, tokens: Sequence[int]) -> Any:
        """As `Engine` says."""
        del tokens
        return list(self._pool.map(np.max, self._parts))

    def rewind(self, length: int) -> None:
        """As `Engine` says."""


def quantised(model: Path, pure: bool, work: Path) -> Path:
    """llama.cpp's file of the model, by way of float16."""
    import llama_cpp as library

    library.llama_log_set(_SILENT, ctypes.c_void_p(0))

    def made(of: Path, kind: str, name: str) -> Path:
        file = work / f"{model.stem}-{name}.gguf"
        options = library.llama_model_quantize_default_params()
        options.ftype = getattr(library, "LLAMA_FTYPE_MOSTLY_" + kind)
        options.allow_requantize, options.pure = True, pure and kind != "F16"
        if not file.exists() and library.llama_model_quantize(os.fsencode(of), os.fsencode(file), options) != 0:
            sys.exit(f"llama.cpp does not quantise {of} to {kind}")
        return file

    return made(made(model, "F16", "F16"), "Q4_0", "Q4_0-pure" if pure else "Q4_0")
