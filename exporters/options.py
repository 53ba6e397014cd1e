"""What a user may choose of an export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgecomp.errors import ConfigError


@dataclass(frozen=True)
class ExportOptions:
    """Options of an export; the command line's flags have the same names. A target refuses one that it has no use for.

    Args:
        max_sizes: `executorch`: the largest value of dynamic sizes by name, for which memory is planned; 1 makes a size fixed.
        external_weights: `executorch`: the constants in a file of their own, `<stem>.ptd`, beside the program.

    Raises:
        ConfigError: a size below 1.

    """

    max_sizes: Mapping[str, int] = field(default_factory=dict)
    external_weights: bool = False

    def __post_init__(self) -> None:
        for name, size in self.max_sizes.items():
            if size < 1:
                raise ConfigError(f"the largest size of {name} must be at least 1, got {size}")
