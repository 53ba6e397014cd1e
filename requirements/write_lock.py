"""Writes what `make` installs, each file by its hash: requirements/lock.txt, torch-*.txt, fuzz.txt.

    python requirements/write_lock.py REPORT

Asks pip, set up to find torch's CPU wheel, which files it would install for the extras of pyproject.toml, and takes their hashes.
A report of an index that has the default wheel alone (`pip install --dry-run --ignore-installed --report`) gives that wheel's, and
those of CUDA, which it brings. For CPython 3.11 on x86-64 Linux: other platforms install other files.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

FOLDER = Path(__file__).parent
EXTRAS = ("transformers", "onnx", "executorch", "report", "demo", "test", "fuzz", "check")
FUZZ = ("atheris",)  # for `make fuzz` alone
HEADER = "# By requirements/write_lock.py, for CPython 3.11 on x86-64 Linux.\n"
Hashes = dict[str, tuple[str, str]]  # a version and its file, by package


def wanted() -> list[str]:
    """The requirements of pyproject.toml, without references to its own extras."""
    project = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    found = [*project["dependencies"], *(r for extra in (*EXTRAS, "torch") for r in extras[extra])]
    return [requirement for requirement in found if not requirement.startswith("edgecomp[")]


def hashes(report: Path) -> Hashes:
    """Of a report of pip."""
    found = {}
    for entry in json.loads(report.read_text("utf-8"))["install"]:
        name = re.sub(r"[-_.]+", "-", entry["metadata"]["name"]).lower()
        digest = entry["download_info"]["archive_info"]["hashes"]["sha256"]
        found[name] = (entry["metadata"]["version"], digest)
    return found


def write(path: Path, files: Hashes) -> None:
    """Write requirements with hashes."""
    lines = [f"{name}=={version} --hash=sha256:{digest}" for name, (version, digest) in sorted(files.items())]
    path.write_text(HEADER + "\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Resolve, and write both files."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed", "--report", str(report)]
        subprocess.run([*pip, *wanted()], check=True)
        write_all(hashes(report), hashes(Path(sys.argv[1])))


def write_all(files: Hashes, default: Hashes) -> None:
    """Write the files; each package but torch must have the same hash in both."""
    torch = files.pop("torch")
    differing = sorted(name for name, entry in files.items() if entry != default.get(name))
    if differing:
        raise SystemExit(f"the indexes must have the same files, and differ in {', '.join(differing)}")
    write(FOLDER / "torch-cpu.txt", {"torch": torch})
    write(FOLDER / "torch-cuda.txt", {name: entry for name, entry in default.items() if name not in files})
    write(FOLDER / "fuzz.txt", {name: files.pop(name) for name in FUZZ})
    write(FOLDER / "lock.txt", files)


if __name__ == "__main__":
    main()
