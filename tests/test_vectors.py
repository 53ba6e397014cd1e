"""The golden vectors in the repository are what the numpy oracle writes today."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

VECTORS = Path(__file__).parent / "vectors"


def files_under(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


FORMATS = ("dense", "lut")  # and lut_narrow


def stored() -> dict[str, bytes]:
    return {name: content for name, content in files_under(VECTORS).items() if name.startswith(FORMATS)}


def test_vectors_are_regenerated_byte_for_byte(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(VECTORS / "make_vectors.py"), str(tmp_path)], check=True)
    made = files_under(tmp_path)
    assert sorted(stored()) == sorted(made)
    assert [name for name, content in stored().items() if content != made[name]] == []


def test_vectors_stay_small() -> None:
    sizes = [len(content) for content in stored().values()]
    assert max(sizes) < 200_000 and sum(sizes) < 1_000_000
