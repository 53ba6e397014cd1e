"""Recipes: which passes run, with which settings. Built-in ones are the TOML files in `edgecomp/recipes`."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny

from edgecomp.config import PassConfig, Strict, apply_override, parse, read_mapping
from edgecomp.errors import ConfigError
from edgecomp.settings import SETTINGS

RECIPE_VERSION = 1


def _parse_pass(value: object) -> object:
    if isinstance(value, PassConfig) or not isinstance(value, Mapping):
        return value
    method = value.get("method")
    settings = _settings_of(method) if isinstance(method, str) else None
    if settings is None:
        raise ValueError(f"method must be one of {', '.join(SETTINGS)}; {method!r} is none of them")
    return settings.model_validate(dict(value))


def _settings_of(method: str) -> type[PassConfig] | None:
    if method in SETTINGS:
        return SETTINGS[method]
    from edgecomp.passes import PASSES  # methods that others have added; imports PyTorch

    return PASSES[method].Config if method in PASSES else None


class Recipe(Strict):
    """A whole recipe.

    Args:
        version: of the recipe format.
        name: shown in reports.
        dense_dtype: how tensors that stay dense are stored: `float32`, exactly, or `float16`, half as large, but for those that
            would lose more than 1 % of their values. From float16 other than of tables an ONNX Runtime makes float32 in memory
            when it loads a model, and the ExecuTorch export when it writes one.
        passes: the methods, in the order in which they run.

    """

    version: Literal[1]
    name: str = "custom"
    dense_dtype: Literal["float16", "float32"] = "float32"
    passes: list[Annotated[SerializeAsAny[PassConfig], BeforeValidator(_parse_pass)]] = Field(min_length=1)

    def to_json(self) -> dict[str, Any]:
        """The resolved recipe as JSON values, every setting written out."""
        return self.model_dump(mode="json")


def builtin_recipes() -> list[str]:
    """Names of the built-in recipes."""
    return sorted(
        Path(entry.name).stem for entry in files("edgecomp").joinpath("recipes").iterdir() if entry.name.endswith(".toml")
    )


def load_recipe(spec: str | Path | Mapping[str, Any] | Recipe, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe that `spec` names.

    Args:
        spec: a built-in name, a path to a `.toml` or `.json` file, a mapping, or a recipe.
        overrides: assignments such as `passes.0.bits=3`, applied in order.

    Raises:
        ConfigError: no such recipe, or a setting that is unknown or out of range.

    """
    if isinstance(spec, Recipe):
        settings, what = spec.to_json(), f"the recipe {spec.name}"
    elif isinstance(spec, Mapping):
        settings, what = copy.deepcopy(dict(spec)), "the recipe"
    else:
        path = _recipe_path(str(spec))
        settings, what = read_mapping(path), f"the recipe {spec}"
    version = settings.get("version")
    if isinstance(version, int) and version > RECIPE_VERSION:
        raise ConfigError(f"{what} has version {version}, this edgecomp reads version {RECIPE_VERSION}: install a newer edgecomp")
    for assignment in overrides:
        apply_override(settings, assignment)
    return parse(Recipe, settings, what)


def _recipe_path(spec: str) -> Path:
    path = Path(spec)
    if path.suffix in (".toml", ".json"):
        return path
    names = builtin_recipes()
    if spec in names:
        return Path(str(files("edgecomp").joinpath("recipes", f"{spec}.toml")))
    near = difflib.get_close_matches(spec, names, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise ConfigError(f"a recipe is a .toml or .json file or one of {', '.join(names)}; got {spec!r}{hint}")


def recipe_schema() -> dict[str, Any]:
    """JSON schema of a recipe, with the settings of every method."""
    schema = Recipe.model_json_schema()
    definitions = schema.setdefault("$defs", {})
    variants = []
    for settings in SETTINGS.values():
        variant = settings.model_json_schema(ref_template="#/$defs/{model}")
        definitions |= variant.pop("$defs", {})
        definitions[variant["title"]] = variant
        variants.append({"$ref": f"#/$defs/{variant['title']}"})
    schema["properties"]["passes"]["items"] = {"anyOf": variants}
    definitions.pop("PassConfig", None)
    return schema
