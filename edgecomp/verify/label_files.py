"""Labels and slices from files: one for each example, in the order of the inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgecomp.bounded import read_text, require_unpackable
from edgecomp.errors import CalibrationError

LABELS = "labels"  # an array of an example that is no input


def read_labels(path: Path) -> list[np.ndarray]:
    """Labels from `.npy` or `.npz` (the array `labels`), whose first axis counts examples, or a text of whole numbers, one a line.

    Raises:
        CalibrationError: unreadable, empty, or no whole numbers in a text.

    """
    if path.suffix in (".npy", ".npz"):
        array = _read_array(path)
        if array.ndim == 0 or len(array) == 0 or array.dtype.kind not in "biuf":
            raise CalibrationError(
                f"{path} must hold numbers, one label or more for each example, got {array.dtype} {list(array.shape)}"
            )
        return list(array)
    lines = _lines(path)
    wrong = next((number for number, line in enumerate(lines, 1) if not _is_number(line)), None)
    if wrong is not None:
        raise CalibrationError(
            f"{path} must hold a whole number on each line, the position of a class, got {lines[wrong - 1]!r} in line {wrong}"
        )
    if not lines:
        raise CalibrationError(f"{path} must hold a label for each example, got an empty file")
    return [np.asarray(int(line)) for line in lines]


def read_slices(path: Path) -> list[tuple[str, ...]]:
    """Names of slices from a text: on each line those that the example is in, separated by commas; none on an empty line.

    Raises:
        CalibrationError: unreadable, or no name at all.

    """
    slices = [tuple(name for name in (part.strip() for part in line.split(",")) if name) for line in _lines(path)]
    if not any(slices):
        raise CalibrationError(f"{path} must name a slice on some line, got none")
    return slices


def _read_array(path: Path) -> np.ndarray:
    try:
        if path.suffix == ".npz":
            require_unpackable(path)
            with np.load(path, allow_pickle=False) as archive:
                return np.asarray(archive[LABELS])
        return np.asarray(np.load(path, allow_pickle=False))
    except Exception as error:  # numpy, zipfile and the tokenizer of numpy's headers raise errors of many unrelated classes
        what = f"the array {LABELS}" if path.suffix == ".npz" else "an array"
        raise CalibrationError(f"{path} must hold {what} without pickled objects: {type(error).__name__}: {error}") from error


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in read_text(path).splitlines()]
    except (OSError, ValueError) as error:
        raise CalibrationError(f"{path} must be a readable UTF-8 text file: {error}") from error


def _is_number(text: str) -> bool:
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdecimal() and len(digits) <= 9
