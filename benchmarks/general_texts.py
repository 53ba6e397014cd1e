"""Calibration text of several kinds that anyone can install, for `language_model.py --more-texts`.

    apt-get download fortunes debian-reference-en; for package in *.deb; do dpkg -x $package deb; done
    python benchmarks/general_texts.py deb/usr/share -o texts

writes `fortunes.txt` (sayings and dialogue), `reference.txt` (a handbook) and `stdlib.txt` (the code of the standard library of the
Python that runs it), the first 700,000 characters of each.
"""

from __future__ import annotations

import argparse
import gzip
import sysconfig
from pathlib import Path

CHARACTERS = 700_000


def fortunes(folder: Path) -> str:
    """All files of sayings, one saying below the other."""
    files = sorted(path for path in folder.iterdir() if path.suffix not in (".dat", ".u8"))
    return "\n\n".join(path.read_text(encoding="utf-8", errors="replace").replace("\n%\n", "\n\n") for path in files)


def reference(folder: Path) -> str:
    """The handbook as plain text."""
    with gzip.open(folder / "debian-reference.en.txt.gz", "rt", encoding="utf-8") as file:
        return file.read()


def stdlib(folder: Path) -> str:
    """The modules of Python that are one file."""
    return "\n\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.py")))


def main() -> None:
    """Parse the command line and write the texts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("share", type=Path, help="usr/share of the unpacked packages")
    parser.add_argument("-o", dest="folder", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "fortunes": fortunes(arguments.share / "games" / "fortunes"),
        "reference": reference(arguments.share / "debian-reference"),
        "stdlib": stdlib(Path(sysconfig.get_path("stdlib"))),
    }
    for name, text in texts.items():
        (arguments.folder / f"{name}.txt").write_text(text[:CHARACTERS], encoding="utf-8")


if __name__ == "__main__":
    main()
