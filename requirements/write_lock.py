"""Writes what `make` installs, each file by its hash: requirements/lock.txt, cuda.txt, fuzz.txt.

    python requirements/write_lock.py [REPORT ...]

Asks pip which files it would install for the extras of pyproject.toml on this machine, and takes their hashes. Reports of other
indexes (`pip install --dry-run --ignore-installed --report`) add the hashes that the same versions have there: of torch, whose CPU
wheel and default wheel differ; what only they install is what the default wheel needs of CUDA, in cuda.txt. For CPython 3.11 on
x86-64 Linux: other platforms install other files.
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
Hashes = dict[str, tuple[str, set[str]]]  # a version and its files, by package


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
        found[name] = (entry["metadata"]["version"].partition("+")[0], {digest})
    return found


def write(path: Path, files: Hashes) -> None:
    """Write requirements with hashes."""
    lines = [
        f"{name}=={version} " + " ".join(f"--hash=sha256:{digest}" for digest in sorted(digests))
        for name, (version, digests) in sorted(files.items())
    ]
    path.write_text(HEADER + "\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Resolve, and write both files."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed", "--report", str(report)]
        subprocess.run([*pip, *wanted()], check=True)
        write_all(hashes(report), [hashes(Path(other)) for other in sys.argv[1:]])


def write_all(files: Hashes, others: list[Hashes]) -> None:
    """Write the files, with what other indexes have of the same versions."""
    cuda: Hashes = {}
    for other in others:
        for name, (version, digests) in other.items():
            if name not in files:
                cuda[name] = (version, digests)
            elif files[name][0] == version:
                files[name][1].update(digests)
    write(FOLDER / "cuda.txt", cuda)
    write(FOLDER / "fuzz.txt", {name: files.pop(name) for name in FUZZ})
    write(FOLDER / "lock.txt", files)


if __name__ == "__main__":
    main()
