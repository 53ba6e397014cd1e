"""Outputs that are kept: what each artifact computed on each device, and on which inputs.

    FOLDER/ARTIFACT/inputs.npz      an array for each input, as `bench --inputs` takes them
    FOLDER/ARTIFACT/DEVICE.npz      an array for each output of the first round's last inference

A device's file is named after its URL.
"""

from __future__ import annotations

import re
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edgecomp.errors import ConfigError, OutputError
from edgecomp.files import replace_file, require_writable_target

_INPUTS = "inputs"


class SavedOutputs:
    """A folder for the outputs of artifacts on devices; files of an earlier run in it are replaced.

    Args:
        folder: it or its parent must exist.
        artifacts: names of those that are measured.
        devices: their URLs.

    Raises:
        ConfigError: two artifacts or devices would have the same file.
        OutputError: the folder cannot be made.

    """

    def __init__(self, folder: Path, artifacts: Sequence[str], devices: Sequence[str]) -> None:
        for kind, names in (("artifacts", artifacts), ("devices", [_file_name(url) for url in devices])):
            name, count = Counter(names).most_common(1)[0]
            if count > 1:
                raise ConfigError(f"outputs are kept by the {kind}' names, and {count} are named {name}: measure them one by one")
        require_writable_target(folder, overwrite=True)
        try:
            for name in artifacts:
                (folder / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder} must be a folder that can be written: {error}") from error
        self._folder = folder

    def save(self, artifact: str, device: str, inputs: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> None:
        """Write the outputs of a device, and the inputs.

        Raises:
            OutputError: the disk refuses.

        """
        for name, arrays in ((_INPUTS, inputs), (_file_name(device), outputs)):
            with replace_file(self._folder / artifact / f"{name}.npz", overwrite=True) as temporary:
                _write_npz(temporary, arrays)


def _file_name(url: str) -> str:
    """`ssh://pi@raspberrypi:2222` as `ssh-pi@raspberrypi-2222`."""
    return re.sub(r"[^\w.@-]+", "-", url).strip("-")


def _write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """As `numpy.savez`, which cannot take every name that a model may give: its arrays are keyword arguments."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
