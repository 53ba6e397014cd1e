"""Progress bars with time left, on stderr."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
_LOGGER = logging.getLogger("edgecomp")  # whose messages of warning go to stderr unless a program says otherwise


@dataclass(frozen=True)
class ProgressBar:
    """Shows a bar for each iterable it wraps, and messages; when `quiet`, no bars, and messages go by the logger `edgecomp`.

    So a command has its notices on stderr in any case, and a program that uses the library decides by `logging` where they go.
    """

    quiet: bool = False

    def __call__(
        self, items: Iterable[Item], *, total: int | None, label: str, unit: str, size: Callable[[Item], int] | None = None
    ) -> Iterator[Item]:
        """Yield the items, counting them, or adding up their sizes in `unit`."""
        scaled = size is not None
        with tqdm(total=total, desc=label, unit=unit, unit_scale=scaled, disable=self.quiet, dynamic_ncols=True) as bar:
            for item in items:
                yield item
                bar.update(1 if size is None else size(item))

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
        """Tell a message, if there is one."""
        if message is None:
            return
        if self.quiet:
            _LOGGER.warning("edgecomp: %s", message)
        else:
            tqdm.write(f"edgecomp: {message}", file=sys.stderr)


def listed(names: Sequence[str], most: int = 5) -> str:
    """Names for a message: the first of many, and how many more."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
