"""Building blocks of recipes: strict models, files in TOML or JSON, dotted overrides. The recipe itself is in `edgecomp.recipe`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgecomp.bounded import LARGEST_SETTINGS_BYTES, parse_json, parse_toml, read_bytes
from edgecomp.errors import ConfigError
from edgecomp.tensor import StageOp


def _describe(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Add to a JSON schema what the docstring's `Args` say of each setting."""
    arguments = (inspect.getdoc(model) or "").partition("Args:\n")[2]
    for name, text in re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", arguments, re.MULTILINE):
        if name in schema.get("properties", {}):
            schema["properties"][name]["description"] = " ".join(text.split())


class Strict(BaseModel):
    """A configuration object: unknown keys are refused, values are checked and not silently converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, json_schema_extra=_describe)


Model = TypeVar("Model", bound=Strict)


class PassConfig(Strict):
    """Settings of one pass; each method derives its own, and `method` names it."""

    method: str


class LayerMatch(Strict):
    """Which layers a group of settings is for.

    Args:
        match: shell patterns (`*`, `?`, `[...]`) over the layers' full names.
        ops: only layers of these kinds: `linear`, `gather` (embeddings), `conv`. A tied embedding is a `gather` and a `linear`.

    """

    match: list[str] = Field(default=["*"], min_length=1)
    ops: list[StageOp] | None = Field(default=None, min_length=1)

    def matches(self, layer: str, op: StageOp) -> bool:
        """Whether the layer's kind is meant and any pattern fits its name."""
        return (self.ops is None or op in self.ops) and fits_any(layer, self.match)


def fits_any(layer: str, patterns: Sequence[str]) -> bool:
    """Whether any pattern fits the layer's name."""
    return any(fnmatchcase(layer, pattern) for pattern in patterns)


def require_patterns_used(patterns: Sequence[str], layers: Sequence[str], where: str) -> None:
    """Refuse patterns that fit no layer: they are spelling mistakes.

    Raises:
        ConfigError: naming the pattern and some layers that exist.

    """
    for pattern in patterns:
        if not any(fnmatchcase(layer, pattern) for layer in layers):
            examples = ", ".join(list(layers)[:5])
            raise ConfigError(
                f"{where}: every pattern must fit a layer, but {pattern!r} fits none; the model's layers are {examples}, ..."
            )


def read_mapping(path: Path, what: str = "the recipe") -> dict[str, Any]:
    """A `.toml` or `.json` file as a dictionary; `what` it is, for messages.

    Raises:
        ConfigError: the file cannot be read, or is not a table.

    """
    try:
        text = read_bytes(path, LARGEST_SETTINGS_BYTES).decode("utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{what} {path} must be a readable text file: {error}") from error
    try:
        value = parse_toml(text) if path.suffix == ".toml" else parse_json(text)
    except ValueError as error:
        raise ConfigError(f"{what} {path} must be valid {'TOML' if path.suffix == '.toml' else 'JSON'}: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{what} {path} must hold a table of settings, got {type(value).__name__}")
    return value


def apply_override(settings: dict[str, Any], assignment: str) -> None:
    """Apply `passes.0.bits=3`: a dotted path (list positions are numbers), `=`, and a value in TOML or a bare word.

    Raises:
        ConfigError: no `=`, or the path leads through a value that is no table or list.

    """
    path, equals, text = assignment.partition("=")
    if not equals or not path.strip():
        raise ConfigError(f"an override must read KEY=VALUE, such as passes.0.bits=3; got {assignment!r}")
    *parents, last = path.strip().split(".")
    target: Any = settings
    for key in parents:
        target = _child(target, key, assignment)
    value = _override_value(text.strip())
    if isinstance(target, list):
        target[_position(target, last, assignment)] = value
    elif isinstance(target, dict):
        target[last] = value
    else:
        raise ConfigError(f"the override {assignment!r} leads into {target!r}, which holds no settings")


def _child(target: Any, key: str, assignment: str) -> Any:
    if isinstance(target, list):
        return target[_position(target, key, assignment)]
    if isinstance(target, dict):
        return target.setdefault(key, {})
    raise ConfigError(f"the override {assignment!r} leads into {target!r}, which holds no settings")


def _position(target: list[Any], key: str, assignment: str) -> int:
    positions = {str(position): position for position in range(len(target))}
    if key not in positions:
        raise ConfigError(f"the override {assignment!r} must name a position from 0 to {len(target) - 1}, got {key!r}")
    return positions[key]


def _override_value(text: str) -> Any:
    try:
        return parse_toml(f"value = {text}")["value"]
    except ValueError:  # no TOML, or a number of thousands of digits: a word
        return text


def describe(error: ValidationError, what: str) -> str:
    """One line per problem: where, what must hold, what was got."""
    lines = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"]) or "the whole"
        if problem["type"] == "extra_forbidden":
            lines.append(f"{where}: unknown key")
        else:
            lines.append(f"{where}: {problem['msg']}, got {problem['input']!r}")
    return f"{what} is not valid:\n  " + "\n  ".join(lines)


def parse(model: type[Model], value: Mapping[str, Any], what: str) -> Model:
    """`value` as a checked `model`.

    Raises:
        ConfigError: one line per problem.

    """
    try:
        return model.model_validate(dict(value))
    except ValidationError as error:
        raise ConfigError(describe(error, what)) from error
