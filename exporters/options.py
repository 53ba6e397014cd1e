"""What a user may choose of an export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgecomp.errors import ConfigError
from edgecomp.exported.language_folder import ATTENTIONS, Attention
from edgecomp.ops import CACHES


@dataclass(frozen=True)
class ExportOptions:
    """Options of an export; the command line's flags have the same names. A target refuses one that it has no use for.

    Args:
        max_sizes: `executorch`: the largest value of dynamic sizes by name, for which memory is planned; 1 makes a size fixed.
        external_weights: `executorch`: the constants in a file of their own, `<stem>.ptd`, beside the program.
        attention: `onnx`, language models with a cache: `fused` (our operators), `gqa` (ONNX Runtime's GroupQueryAttention) or
            `portable` (standard operators).
        cache: as above: the type of keys and values that are kept: `float32`, `float16`, or `int8` with a scale for each head and
            token; others than `fused` keep float32.
        last_logits: as above: logits of each row's last token alone.
        context: as above: tokens that a text may have; None for as many as the model was made for.
        machine: as above: whose library of our operators goes into the folder, as `uname -m` says it; None for this one, `none`
            for none.
        bundle: as above: the device bundle that holds it, if not in its default place.

    Raises:
        ConfigError: a size below 1, an unknown attention or cache, or two that do not go together.

    """

    max_sizes: Mapping[str, int] = field(default_factory=dict)
    external_weights: bool = False
    attention: Attention = "fused"
    cache: str = "float32"
    last_logits: bool = False
    context: int | None = None
    machine: str | None = None
    bundle: Path | None = None

    @property
    def for_executorch(self) -> bool:
        """Whether one is chosen that only ExecuTorch has."""
        return bool(self.max_sizes) or self.external_weights

    @property
    def for_language(self) -> bool:
        """Whether one is chosen that only language models with a cache have."""
        plain = ExportOptions(self.max_sizes, self.external_weights)
        return self != plain

    def __post_init__(self) -> None:
        for name, size in self.max_sizes.items():
            if size < 1:
                raise ConfigError(f"the largest size of {name} must be at least 1, got {size}")
        if self.attention not in ATTENTIONS:
            raise ConfigError(f"attention must be one of {', '.join(ATTENTIONS)}, got {self.attention!r}")
        if self.cache not in CACHES:
            raise ConfigError(f"cache must be one of {', '.join(CACHES)}, got {self.cache!r}")
        if self.attention != "fused" and self.cache != "float32":
            raise ConfigError(
                f"{self.attention} attention keeps a float32 cache, got {self.cache}: choose --attention fused, or no --cache"
            )
        if self.context is not None and self.context < 2:
            raise ConfigError(f"a context must hold at least 2 tokens, got {self.context}")
