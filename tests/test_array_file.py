"""Arrays survive their file, in a form that safetensors reads, and come back as pages of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from edgecomp.array_file import map_arrays, write_arrays

DTYPES = ["float16", "float32", "float64", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
ARRAYS = {dtype: np.arange(6).reshape(2, 3).astype(dtype) for dtype in DTYPES} | {
    "empty": np.zeros((0, 3), np.float32),
    "scalar": np.float32(2.5).reshape(()),
    "transposed": np.arange(12, dtype=np.float32).reshape(3, 4).T,
    "big-endian": np.arange(3, dtype=">f4"),
}


def test_arrays_survive(tmp_path: Path) -> None:
    path = tmp_path / "arrays.safetensors"
    write_arrays(path, ARRAYS, {"text": "beside"})
    arrays, metadata = map_arrays(path)
    assert metadata == {"text": "beside"}
    for found in (arrays, load_file(path)):
        assert found.keys() == ARRAYS.keys()
        for name, array in ARRAYS.items():
            assert found[name].dtype == array.dtype.newbyteorder("=")
            assert found[name].shape == array.shape
            assert np.array_equal(found[name], array)


def test_the_first_array_lies_at_64_bytes(tmp_path: Path) -> None:
    path = tmp_path / "arrays.safetensors"
    write_arrays(path, {"a": np.ones(3, np.float32), "b": np.ones(3, np.uint8)})
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    assert (8 + size) % 64 == 0
    assert header["a"]["data_offsets"] == [0, 12]
    assert data[8 + size :] == np.ones(3, np.float32).tobytes() + b"\1\1\1"


@pytest.mark.skipif(sys.platform != "linux", reason="reads mapped files from /proc")
def test_arrays_are_pages_of_the_file_that_outlive_its_name(tmp_path: Path) -> None:
    path = tmp_path / "arrays.safetensors"
    write_arrays(path, {"a": np.arange(1 << 16)})
    array = map_arrays(path).arrays["a"]
    mapped = [line.split()[0] for line in Path("/proc/self/maps").read_text().splitlines() if str(path) in line]
    bounds = [[int(address, 16) for address in line.split("-")] for line in mapped]
    assert any(start <= array.ctypes.data < end for start, end in bounds)
    path.unlink()
    assert np.array_equal(array, np.arange(1 << 16))


def test_what_the_format_has_no_dtype_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"must be of float16.*got complex64 for a"):
        write_arrays(tmp_path / "arrays.safetensors", {"a": np.ones(2, np.complex64)})


def test_damaged_files_are_an_os_error(tmp_path: Path) -> None:
    path = tmp_path / "arrays.safetensors"
    write_arrays(path, ARRAYS)
    data = path.read_bytes()
    for size in (0, 7, 100, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(OSError):
            map_arrays(path)
