"""Writing a program, and its constants where they are to lie beside it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from executorch.exir import ExecutorchProgramManager

from edgecomp.errors import OutputError


def data_path(output: Path) -> Path:
    """The file of the external constants of the program `output`."""
    return output.with_suffix(".ptd")


def save(program: ExecutorchProgramManager, output: Path, *, external: bool) -> tuple[Path, ...]:
    """Write a program; both files are written in a folder aside and take their places only when complete, the constants first.

    Returns:
        The files.

    Raises:
        OutputError: the files cannot be written.

    """
    data = data_path(output)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{output.stem}.", dir=output.parent) as folder:
            aside = Path(folder, output.name)
            with aside.open("wb") as file:
                program.write_to_file(file)
            if external:
                program.write_tensor_data_to_file(folder)
            # An old program must never be left beside new constants.
            output.unlink(missing_ok=True)
            if external:
                Path(folder, data.name).replace(data)
            aside.replace(output)
    except OSError as error:
        raise OutputError(f"cannot write {output}: {error.strerror or error}") from error
    return (output, data) if external else (output,)
