"""The file of requirements: a limit a line of the verdict, each for the device that it names."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from edgecomp.config import Strict, parse, read_mapping


@dataclass(frozen=True)
class Figure:
    """A figure that can be limited.

    Args:
        what: it is, with its unit.
        bound: which of `min` and `max` a limit of it has.
        how: it is measured.

    """

    what: str
    bound: Literal["min", "max"]
    how: str


_VERIFY = "edgecomp verify --labels FILE or --metric NAME"
_BENCH = "edgecomp bench --device URL"
FIGURES: dict[str, Figure] = {
    "quality": Figure("the metric's value", "min", _VERIFY),
    "quality_loss": Figure("the original's value less the artifact's", "max", _VERIFY),
    "worst_slice": Figure("the lowest value of a slice", "min", f"{_VERIFY} with --slices"),
    "worst_slice_loss": Figure("the largest loss of a slice", "max", f"{_VERIFY} with --slices"),
    "perturbed_loss": Figure("the largest loss on perturbed inputs beyond the original's own", "max", f"{_VERIFY} with --perturb"),
    "flips": Figure("answers that went from right to wrong or back, as a part of all", "max", _VERIFY),
    "cosine": Figure("mean cosine to the original's, of the output where it is least", "min", "edgecomp verify --inputs FILE"),
    "perplexity_ratio": Figure("perplexity by the original's", "max", "edgecomp verify --perplexity FILE"),
    "p50_ms": Figure("milliseconds that half of the inferences take at most", "max", _BENCH),
    "p90_ms": Figure("milliseconds that 90 % of the inferences take at most", "max", _BENCH),
    "p99_ms": Figure("milliseconds that 99 % of the inferences take at most", "max", _BENCH),
    "load_ms": Figure("milliseconds of the first load of a process", "max", _BENCH),
    "peak_memory_bytes": Figure("the most resident bytes above an empty session", "max", _BENCH),
    "bytes": Figure("bytes of all files as shipped", "max", f"{_BENCH}, or edgecomp verify"),
    "growth_bytes_per_minute": Figure("growth of anonymous memory in a long run", "max", f"{_BENCH} --for 30m"),
    "joules": Figure("joules of an inference above idle", "max", f"{_BENCH} --energy, on a device with a meter"),
}


def shown(value: float) -> str:
    """A figure with six digits, whole numbers with commas."""
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 1000 else f"{value:.6g}"


class Limit(Strict):
    """One requirement.

    Args:
        figure: what is limited.
        min: the least that it may be, of figures where more is better,
        max: or the most, of those where less is better.
        device: shell pattern over the devices that it holds for, such as `ssh://pi@*`, or `local`; by default every one that was
            measured. Quality is measured where `verify` runs, which is `local`.
        metric: whose quality is meant, where several were measured.
        certain: whether the worse end of the 95 % interval must hold too, of figures that have one.

    """

    figure: str
    min: float | None = Field(default=None, allow_inf_nan=False)
    max: float | None = Field(default=None, allow_inf_nan=False)
    device: str = "*"
    metric: str | None = None
    certain: bool = False

    @model_validator(mode="after")
    def _check(self) -> Limit:
        if self.figure not in FIGURES:
            raise ValueError(f"figure must be one of {', '.join(FIGURES)}")
        bound = FIGURES[self.figure].bound
        if getattr(self, bound) is None or getattr(self, "max" if bound == "min" else "min") is not None:
            raise ValueError(f"{self.figure} must have {bound}, and that alone")
        return self

    @property
    def limit(self) -> float:
        """The number."""
        value = self.min if self.max is None else self.max
        assert value is not None  # one of them is there
        return value

    def holds(self, value: float) -> bool:
        """Whether a value is within the limit; NaN is not. One that is the limit but for rounding (0.35 - 0.3 of 0.05) is."""
        within = value >= self.limit if self.max is None else value <= self.limit
        return within or math.isclose(value, self.limit, rel_tol=1e-9, abs_tol=1e-12)

    def __str__(self) -> str:
        """Such as `p90_ms <= 40 on local`."""
        sign = ">=" if self.max is None else "<="
        of = "" if self.metric is None else f" of {self.metric}"
        on = "" if self.device == "*" else f" on {self.device}"
        return f"{self.figure}{of} {sign} {shown(self.limit)}{on}{', certainly' if self.certain else ''}"


class Requirements(Strict):
    """All requirements of a product.

    Args:
        version: of this format.
        name: shown in the verdict.
        artifact: shell pattern over the names of the files that are judged; by default those that call operators of ours, or all
            where none does.
        limits: what must hold.

    """

    version: Literal[1]
    name: str = "requirements"
    artifact: str | None = None
    limits: list[Limit] = Field(min_length=1)


def read_requirements(path: Path) -> Requirements:
    """Requirements from a `.toml` or `.json` file.

    Raises:
        ConfigError: unreadable, an unknown key, or a limit that makes no sense, a line for each.

    """
    return parse(Requirements, read_mapping(path, "the requirements"), f"the requirements {path}")


def requirements_schema() -> dict[str, Any]:
    """JSON schema of such a file."""
    schema = Requirements.model_json_schema()
    schema["$defs"]["Limit"]["properties"]["figure"]["enum"] = list(FIGURES)
    return schema
