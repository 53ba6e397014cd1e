"""Progress bars with time left, on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


@dataclass(frozen=True)
class ProgressBar:
    """Shows a bar for each iterable it wraps, and messages; nothing when `quiet`."""

    quiet: bool = False

    def __call__(self, items: Iterable[Item], *, total: int, label: str, unit: str) -> Iterator[Item]:
        """Yield the items, counting them."""
        yield from tqdm(items, total=total, desc=label, unit=unit, disable=self.quiet, dynamic_ncols=True)

    def say(self, message: str | None) -> None:
        """Print a message, if there is one."""
        if message is not None and not self.quiet:
            tqdm.write(f"edgecomp: {message}", file=sys.stderr)
