"""The golden vectors in the repository are what the numpy oracle writes today."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

VECTORS = Path(__file__).parent / "vectors"


def files_under(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_lut_vectors_are_regenerated_byte_for_byte(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(VECTORS / "make_vectors.py"), str(tmp_path)], check=True)
    stored, made = files_under(VECTORS / "lut"), files_under(tmp_path)
    assert sorted(stored) == sorted(made)
    assert [name for name in stored if stored[name] != made[name]] == []


def test_vectors_stay_small() -> None:
    sizes = [len(content) for content in files_under(VECTORS / "lut").values()]
    assert max(sizes) < 200_000 and sum(sizes) < 1_000_000
