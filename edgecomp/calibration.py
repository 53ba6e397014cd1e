"""Calibration inputs: samples from files and factories, and a model run on them.

Inputs come from a text file (`.txt`, `.txt.gz`), an `.npz` with one array per model input, or `package.module:factory` that yields
dictionaries of arrays. A sample is one such dictionary: a batch of inputs.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from edgecomp.bounded import read_text as read_bounded_text
from edgecomp.bounded import require_unpackable
from edgecomp.errors import CalibrationError, EdgecompError, first_line, is_out_of_memory
from edgecomp.tensor import TensorSpec
from edgecomp.text import token_windows

Sample = Mapping[str, np.ndarray]
LABELS = "labels"  # in a sample, what a loss compares outputs with: no input of the model
MASK = "attention_mask"  # an input [batch, sequence], 0 for positions that do not count


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that is used here."""

    def __call__(self, text: str, **options: Any) -> Mapping[str, Any]:
        """Token ids and masks of a text."""


def read_text(path: Path) -> str:
    """A UTF-8 text file, `.gz` or plain.

    Raises:
        CalibrationError: missing, unreadable, not UTF-8, or larger than `edgecomp.bounded` allows.

    """
    try:
        return read_bounded_text(path)
    except (OSError, ValueError) as error:
        raise CalibrationError(f"{path} must be a readable UTF-8 text file (or the same in .gz): {error}") from error


def text_windows(text: str, tokenizer: Tokenizer, length: int, count: int, where: str) -> np.ndarray:
    """The first `count` windows of `length` tokens of a text: int64 `[windows, length]`, fewer where the text ends before.

    Raises:
        CalibrationError: the text is too short for one window.

    """
    ids = np.asarray(tokenizer(text, verbose=False)["input_ids"], np.int64)
    windows = token_windows(ids, length, count)
    if not len(windows):
        raise CalibrationError(
            f"{where} must hold at least one window of {length} tokens, got {len(ids)} tokens: "
            "give more text or a shorter --sequence-length"
        )
    return windows


def sentence_samples(text: str, tokenizer: Tokenizer, length: int, count: int, where: str) -> list[Sample]:
    """The first `count` lines that are not empty, each a sample of batch 1 (so that no padding counts), cut to `length` tokens.

    Raises:
        CalibrationError: there is no such line.

    """
    lines = [line.strip() for line in text.splitlines() if line.strip()][:count]
    if not lines:
        raise CalibrationError(f"{where} must hold at least one line of text, got none")
    encoded = (tokenizer(line, truncation=True, max_length=length) for line in lines)
    names = ("input_ids", MASK)  # tokenizers may give token types too, which are zero for one sentence
    return [{name: np.asarray(sample[name], np.int64)[None] for name in names} for sample in encoded]


def npz_samples(path: Path, inputs: Sequence[TensorSpec], count: int) -> list[Sample]:
    """Samples of batch 1 from an `.npz`: one array per model input, all with the same first size.

    Raises:
        CalibrationError: unreadable, an input is missing, or the arrays disagree on their number.

    """
    try:
        require_unpackable(path)
        archive = np.load(path, allow_pickle=False)
        members = {name: archive[name] for name in archive.files}
    except Exception as error:  # numpy, zipfile and the tokenizer of numpy's headers raise errors of many unrelated classes
        raise CalibrationError(
            f"{path} must be a readable .npz file without pickled objects: {type(error).__name__}: {error}"
        ) from error
    arrays = {name: member for name, member in members.items() if isinstance(member, np.ndarray)}  # others come as bytes
    names = [spec.name for spec in inputs] or [name for name in arrays if name != LABELS]
    missing = [name for name in names if name not in arrays]
    if missing:
        raise CalibrationError(f"{path} must hold an array for every input of the model; missing {missing}, got {sorted(arrays)}")
    names += [LABELS] if LABELS in arrays and LABELS not in names else []
    unknown = sorted({*members} - {*names})
    if unknown:
        raise CalibrationError(
            f"{path} must hold an array for each input of the model, {sorted(names)}, and no other; got {unknown}"
        )
    sizes = {name: len(arrays[name]) if arrays[name].ndim else 0 for name in names}
    if len(set(sizes.values())) != 1 or 0 in sizes.values():
        raise CalibrationError(f"the arrays of {path} must hold the same number of samples, at least one; got {sizes}")
    total = min(count, next(iter(sizes.values())))
    return [{name: arrays[name][i : i + 1] for name in names} for i in range(total)]


@contextmanager
def users_code(name: str, error: type[EdgecompError]) -> Iterator[None]:
    """What code of the user's raises meanwhile is told as theirs, with the place; our own errors, and an end of memory, stay."""
    try:
        yield
    except (EdgecompError, MemoryError):
        raise
    except Exception as raised:
        frame = traceback.extract_tb(raised.__traceback__)[-1]
        raise error(
            f"{name} must not fail, and raised {type(raised).__name__}: {first_line(raised)} (at {frame.filename}:{frame.lineno}, "
            f'"{frame.line}")'
        ) from raised


def factory_samples(spec: str, count: int) -> list[Sample]:
    """The first `count` samples that `package.module:factory` yields.

    Raises:
        CalibrationError: it cannot be imported, or yields nothing, or no dictionaries.

    """
    return given_samples(import_attribute(spec, CalibrationError), count, spec)


def given_samples(given: Any, count: int, where: str = "calibration") -> list[Sample]:
    """The first `count` samples of an iterable, such as a list, a generator or a DataLoader of dictionaries, or of a function's.

    Raises:
        CalibrationError: it yields nothing, or anything else than dictionaries of arrays, tensors, or lists of numbers.

    """
    with users_code(where, CalibrationError):
        produced = given() if callable(given) else given
    if isinstance(produced, Mapping | np.ndarray | Tensor) or not isinstance(produced, Iterable):
        what = "one dictionary alone" if isinstance(produced, Mapping) else f"{type(produced).__name__}"
        raise CalibrationError(
            f"{where} must yield samples, each a dictionary of input name to array, got {what}: give a list of them"
        )
    samples: list[Sample] = []
    with users_code(where, CalibrationError):
        for sample in produced:
            samples.append(as_sample(sample, f"sample {len(samples)} of {where}"))
            if len(samples) == count:
                break
    if not samples:
        raise CalibrationError(f"{where} must hold at least one sample, got none")
    return samples


def as_sample(sample: Any, where: str) -> Sample:
    """A user's sample as arrays; what numpy has no type for, bfloat16, as float32, which holds its values exactly.

    Raises:
        CalibrationError: no dictionary, or a value that is no array of numbers.

    """
    if not isinstance(sample, Mapping):
        hint = " (texts go in a file, a line each)" if isinstance(sample, str) else ""
        raise CalibrationError(
            f"{where} must be a dictionary of input name to array, got {type(sample).__name__}: yield {{name: value}}, with the "
            f"names of forward's parameters{hint}"
        )
    return {str(name): _as_array(value, f"{name} of {where}") for name, value in sample.items()}


def _as_array(value: Any, where: str) -> np.ndarray:
    try:
        if not isinstance(value, np.ndarray | np.generic):  # lists and numbers have the dtypes that PyTorch gives them
            value = (value if isinstance(value, Tensor) else torch.as_tensor(value)).detach().cpu()
            value = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
        array = np.asarray(value)
        torch.from_numpy(array[..., :0] if array.ndim else array.reshape(1))
    except (TypeError, ValueError, RuntimeError) as error:
        kind = f"{value.dtype} array" if isinstance(value, np.ndarray) else type(value).__name__
        raise CalibrationError(
            f"{where} must be an array, a tensor, or lists of numbers, got {kind}: {first_line(error)}"
        ) from error
    return array


def import_attribute(spec: str, error_type: type[Exception]) -> Any:
    """The attribute that `package.module:name` names; the module may also lie in the current folder.

    That folder is searched from here on and no sooner, behind everything that is installed: it may be a stranger's, with files
    named like the optional packages that libraries look for.

    Raises:
        error_type: no such module or attribute.

    """
    module_name, _, attribute = spec.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        if not module_name or module_name.startswith("."):
            raise ImportError("the module must be named in full")
        return getattr(import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise error_type(f"{spec!r} must name an importable package.module:attribute: {error}{_path_hint(module_name)}") from error


def _path_hint(module_name: str) -> str:
    """What to do where a module is named by its file."""
    if not module_name.endswith(".py") and "/" not in module_name:
        return ""
    folder, _, name = module_name.removesuffix(".py").rpartition("/")
    where = f", and run in {folder} or put that folder into PYTHONPATH" if folder else ""
    return f". A module is named without its folder and without .py: give {name}:FUNCTION{where}"


def to_tensors(sample: Sample, inputs: Sequence[TensorSpec]) -> list[Tensor]:
    """A sample's arrays as tensors, in the order and dtypes of the inputs.

    Raises:
        CalibrationError: an input is missing or unknown, or holds no numbers.

    """
    names = [spec.name for spec in inputs]
    missing = [name for name in names if name not in sample]
    unknown = sorted({*sample} - {*names, LABELS})
    if missing or unknown:
        wrong = f"missing {missing}" if missing else f"unknown {unknown}"
        raise CalibrationError(f"a sample must hold the inputs of the model, {names}; {wrong}, got {sorted(sample)}")
    return [torch.from_numpy(_as_dtype(spec, sample[spec.name])) for spec in inputs]


def _as_dtype(spec: TensorSpec, value: np.ndarray) -> np.ndarray:
    try:
        return np.asarray(value, spec.dtype, order="C")
    except (TypeError, ValueError) as error:
        raise CalibrationError(
            f"the input {spec.name} must hold {spec.dtype} values, got {np.asarray(value).dtype}: {error}"
        ) from error


def copies(inputs: Sequence[Tensor]) -> list[Tensor]:
    """Inputs for one run of a module, which may change them in place."""
    return [tensor.clone() for tensor in inputs]


def run_module(module: Callable[..., Any], batch: Sequence[Tensor]) -> Any:
    """What the module returns for a batch of inputs, without gradients; the inputs stay as they are, whatever it does to its own.

    Raises:
        CalibrationError: the module does not take such inputs, or there is not enough memory for them.

    """
    try:
        with torch.no_grad():
            return module(*copies(batch))
    except (RuntimeError, TypeError, ValueError, LookupError, MemoryError) as error:
        given = ", ".join(f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}" for tensor in batch)
        if is_out_of_memory(error):
            raise CalibrationError(
                f"the model must fit into memory while it runs, but takes more on {given}: give smaller or shorter inputs "
                f"(--sequence-length for text): {first_line(error)}"
            ) from error
        hint = "; models take float32 as a rule: convert the samples by .astype('float32')" if "float64" in given else ""
        raise CalibrationError(
            f"the model must accept its inputs, but fails on {given}: {type(error).__name__}: {error}{hint}"
        ) from error
