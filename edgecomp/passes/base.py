"""What a compression method is: a pass over a draft, with what it needs of the draft and what it leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

from edgecomp.config import PassConfig
from edgecomp.context import PassContext
from edgecomp.draft import Draft


@dataclass(frozen=True)
class Candidate:
    """What a pass could make of a layer's matrix.

    Args:
        settings: the pass's settings for it.
        packed_bytes: of the factors.
        relative_error: of the weights, estimated.

    """

    settings: Mapping[str, Any]
    packed_bytes: int
    relative_error: float


class Pass(Protocol):
    """A compression method: a class constructed with its settings."""

    Config: ClassVar[type[PassConfig]]

    def __init__(self, config: Any) -> None: ...

    def prepare(self, draft: Draft, context: PassContext) -> None:
        """Refuse what cannot work, before the first pass of the recipe runs; `draft` is the model as it is then.

        Raises:
            EdgecompError: settings that fit no layer, or calibration that is missing.

        """

    def requires(self, draft: Draft) -> None:
        """Refuse a draft that this pass cannot work on, as the passes before it have left it.

        Raises:
            ConfigError: saying what must come before.

        """

    def run(self, draft: Draft, context: PassContext) -> None:
        """Change the draft's plans and factors."""

    def ensures(self, draft: Draft) -> None:
        """Check what this pass promises to leave.

        Raises:
            ModelError: it did not.

        """


@runtime_checkable
class Foretelling(Protocol):
    """A pass that can tell beforehand which factors it will leave, so that the ones behind it are refused early if they must be."""

    def foretell(self, draft: Draft) -> None:
        """Change a copy of the draft as `run` will change the draft, in names, formats and attributes: factors have no arrays."""
