"""Progress bars with time left, on stderr."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tqdm import tqdm


@dataclass(frozen=True)
class ProgressBar:
    """Shows a bar for each iterable it wraps; nothing when `quiet`."""

    quiet: bool = False

    def __call__(self, items: Iterable[str], *, total: int, label: str) -> Iterator[str]:
        """Yield the items, counting them."""
        with tqdm(total=total, desc=label, unit="layer", disable=self.quiet) as bar:
            for item in items:
                bar.set_postfix_str(item)
                yield item
                bar.update()
