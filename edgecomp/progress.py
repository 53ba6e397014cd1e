"""Progress bars with time left, on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


@dataclass(frozen=True)
class ProgressBar:
    """Shows a bar for each iterable it wraps, and messages; nothing when `quiet`."""

    quiet: bool = False

    def __call__(self, items: Iterable[Item], *, total: int | None, label: str, unit: str) -> Iterator[Item]:
        """Yield the items, counting them."""
        yield from tqdm(items, total=total, desc=label, unit=unit, disable=self.quiet, dynamic_ncols=True)

    @contextmanager
    def steps(self, label: str, total: int) -> Iterator[Callable[[str], None]]:
        """A bar over named steps; what it yields is called with the name of each when it begins."""
        with tqdm(total=total, desc=label, unit="step", disable=self.quiet, dynamic_ncols=True) as bar:
            begun = 0

            def begin(name: str) -> None:
                nonlocal begun
                bar.update(1 if begun else 0)
                begun += 1
                bar.set_postfix_str(name)

            yield begin
            bar.update()

    def say(self, message: str | None) -> None:
        """Print a message, if there is one."""
        if message is not None and not self.quiet:
            tqdm.write(f"edgecomp: {message}", file=sys.stderr)
