"""Every error a user can cause, each with the exit code that the command line ends with.

A message says what must hold, what was got, where, and how to mend it. Programming mistakes stay ordinary Python exceptions.
"""

from __future__ import annotations

import unicodedata


def first_line(error: BaseException) -> str:
    """The first line of an error's message with something on it, or its class: what others raise may be pages long, or empty."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether there was no memory left: an error of Python, numpy, or PyTorch, whose own is a RuntimeError on a processor."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator" in str(error)


def visible(text: str) -> str:
    r"""A stranger's text as a terminal may show it: control characters but line ends and tabs by their numbers, as in `\x1b`."""
    return "".join(character if _harmless(character) else _number_of(character) for character in text)


def _harmless(character: str) -> bool:
    return character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _number_of(character: str) -> str:
    return character.encode("ascii", "backslashreplace").decode() if ord(character) > 127 else f"\\x{ord(character):02x}"


class EdgecompError(Exception):
    """Base of all errors that a user can cause; the command line prints the message and ends with `exit_code`.

    `told_by_device` is set where a device chose class and message.
    """

    exit_code = 1
    told_by_device = False


class ConfigError(EdgecompError):
    """A recipe or an option is wrong: unknown key, value out of range, block size that does not fit, more memory than there is."""

    exit_code = 3


class ModelError(EdgecompError):
    """A model cannot be found, read, or compressed (missing file, unknown architecture, NaN weights)."""

    exit_code = 4


class CalibrationError(EdgecompError):
    """Calibration or verification inputs are missing, unreadable, or too few."""

    exit_code = 5


class FormatError(EdgecompError):
    """A packed factor breaks its format's rules."""

    exit_code = 6


class CheckpointError(EdgecompError):
    """A checkpoint or an artifact is incomplete, altered, or of another version."""

    exit_code = 7


class ExportError(EdgecompError):
    """A model cannot be lowered to the target."""

    exit_code = 8


class RuntimeUnavailableError(EdgecompError):
    """A runtime, library or optional package that the command needs is missing or does not load."""

    exit_code = 9


class OutputError(EdgecompError):
    """The output exists already, or cannot be written."""

    exit_code = 10


class VerificationError(EdgecompError):
    """The artifact runs but differs from its reference by more than the tolerance."""

    exit_code = 11


class RequirementError(EdgecompError):
    """The model runs, but a requirement that was stated for it does not hold."""

    exit_code = 13


class DeviceError(EdgecompError):
    """A device cannot be reached, refuses what it is given, or ends the measuring program.

    `partial_output` is what a program had written when the device went.
    """

    exit_code = 12
    partial_output = ""
