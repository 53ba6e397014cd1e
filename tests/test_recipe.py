from __future__ import annotations

import copy
import json
import math
import tomllib
from pathlib import Path
from typing import Any

import pytest

import edgecomp
from edgecomp.errors import ConfigError
from edgecomp.passes import PASSES
from edgecomp.recipe import builtin_recipes, load_recipe, recipe_schema
from edgecomp.settings import SETTINGS as METHODS

SETTINGS: dict[str, Any] = {"version": 1, "name": "mine", "passes": [{"method": "lut-kmeans", "bits": 3, "skip": ["head"]}]}


@pytest.mark.parametrize("name", builtin_recipes())
def test_builtin_recipes_load_under_their_own_name(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert load_recipe(json.loads(json.dumps(recipe.to_json()))) == recipe


def test_there_are_recipes_of_several_widths() -> None:
    assert {
        "lut-2bit",
        "lut-3bit",
        "lut-4bit",
        "lut-8bit",
        "encoder-4bit",
        "encoder-3bit",
        "jlcm-2bit",
        "jlcm-3bit",
        "jlcm-4bit",
    } <= set(builtin_recipes())


def test_toml_json_and_mappings_give_the_same_recipe(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps(SETTINGS))
    (tmp_path / "r.toml").write_text('version = 1\nname = "mine"\n[[passes]]\nmethod = "lut-kmeans"\nbits = 3\nskip = ["head"]\n')
    recipe = load_recipe(SETTINGS)
    assert load_recipe(tmp_path / "r.json") == load_recipe(str(tmp_path / "r.toml")) == load_recipe(recipe) == recipe


def test_every_setting_is_written_out() -> None:
    resolved = load_recipe(SETTINGS).to_json()
    assert resolved["dense_dtype"] == "float32"
    assert resolved["passes"][0] == {
        "method": "lut-kmeans",
        "bits": 3,
        "narrow_bits": 8,
        "compute": "int8",
        "block_size": 32,
        "weighting": "activations",
        "refits": 8,
        "books": 1,
        "largest_entry": 127,
        "skip": ["head"],
        "layers": [],
    }


def test_overrides_apply_in_order_and_leave_what_was_given() -> None:
    given = copy.deepcopy(SETTINGS)
    recipe = load_recipe(given, ["passes.0.bits=5", "passes.0.bits=6", "passes.0.compute=float", "passes.0.skip=[]"])
    resolved = recipe.to_json()
    assert (resolved["passes"][0]["bits"], resolved["passes"][0]["compute"], resolved["passes"][0]["skip"]) == (6, "float", [])
    assert given == SETTINGS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"passes": [{"method": "lut-kmeans", "bits": 9}]}, r"passes\.0\.bits.*less than or equal to 8, got 9"),
        ({"passes": [{"method": "lut-kmeans", "bits": 0}]}, r"passes\.0\.bits.*got 0"),
        ({"passes": [{"method": "lut-kmeans", "bits": 3.5}]}, r"passes\.0\.bits"),
        ({"passes": [{"method": "lut-kmeans", "bits": "3"}]}, r"passes\.0\.bits.*got '3'"),
        ({"passes": [{"method": "lut-kmeans", "block_size": 16}]}, r"block_size"),
        ({"passes": [{"method": "lut-kmeans", "bitz": 3}]}, r"passes\.0\.bitz: unknown key"),
        ({"passes": [{"method": "lut-kmeans", "layers": [{"match": []}]}]}, r"passes\.0\.layers\.0\.match"),
        ({"passes": [{"method": "lut-kmeans", "layers": [{"ops": ["matmul"]}]}]}, r"passes\.0\.layers\.0\.ops\.0"),
        ({"passes": [{"method": "zip"}]}, r"method must be one of lut-kmeans, jlcm; 'zip'"),
        ({"passes": [{"method": ["zip"]}]}, r"method must be one of lut-kmeans"),
        ({"passes": [{}]}, r"method must be one of lut-kmeans"),
        ({"passes": ["lut-kmeans"]}, r"passes\.0"),
        ({"passes": []}, r"passes"),
        ({"passes": [{"method": "lut-kmeans", "compute": "int4"}]}, r"passes\.0\.compute.*got 'int4'"),
        ({"colour": "red"}, r"colour: unknown key"),
        ({"version": 2}, r"version 2, this edgecomp reads version 1: install a newer"),
        ({"version": "1"}, r"version"),
    ],
    ids=str,
)
def test_recipes_that_are_wrong_are_refused_by_the_place(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe({**SETTINGS, **change})


def test_a_version_is_needed() -> None:
    with pytest.raises(ConfigError, match="version: Field required"):
        load_recipe({"passes": SETTINGS["passes"]})


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"lut-4bit.*did you mean lut-4bit\?"):
        load_recipe("lut4bit")


def within(schema: dict[str, Any], value: float) -> bool:
    """Whether a number keeps a schema's bounds."""
    if not schema.get("minimum", -math.inf) <= value <= schema.get("maximum", math.inf):
        return False
    return schema.get("exclusiveMinimum", -math.inf) < value < schema.get("exclusiveMaximum", math.inf)


def fits(schema: dict[str, Any], value: Any, root: dict[str, Any]) -> bool:
    """Whether a value follows a schema, for the keywords that recipes need."""
    if "$ref" in schema:
        return fits(root["$defs"][schema["$ref"].rsplit("/", 1)[1]], value, root)
    if "anyOf" in schema:
        return any(fits(option, value, root) for option in schema["anyOf"])
    if "const" in schema or "enum" in schema:
        return value in schema.get("enum", [schema.get("const")])
    match schema.get("type"):
        case "object":
            known = schema["properties"]
            complete = set(schema.get("required", [])) <= set(value) <= set(known)
            return complete and all(fits(known[key], entry, root) for key, entry in value.items())
        case "array":
            return isinstance(value, list) and all(fits(schema["items"], entry, root) for entry in value)
        case "integer":
            return isinstance(value, int) and within(schema, value)
        case "number":
            return isinstance(value, int | float) and within(schema, value)
        case "string":
            return isinstance(value, str)
        case "null":
            return value is None
        case other:
            raise AssertionError(f"the schema uses {other!r}, which this test does not know")


@pytest.mark.parametrize("name", builtin_recipes())
def test_builtin_recipes_follow_the_schema(name: str) -> None:
    schema = recipe_schema()
    path = Path(edgecomp.__file__).parent / "recipes" / f"{name}.toml"
    assert fits(schema, tomllib.loads(path.read_text()), schema)
    assert fits(schema, load_recipe(name).to_json(), schema)


def test_the_schema_refuses_what_recipes_refuse() -> None:
    schema = recipe_schema()
    assert fits(schema, SETTINGS, schema)
    for change in ({"version": 2}, {"colour": "red"}, {"passes": [{"method": "zip"}]}, {"passes": [{"bits": 9}]}):
        assert not fits(schema, {**SETTINGS, **change}, schema)


def test_the_schema_says_what_each_setting_is() -> None:
    definitions = recipe_schema()["$defs"]
    for name in ("LutKmeansConfig", "JlcmConfig"):
        described = {key for key, value in definitions[name]["properties"].items() if value.get("description")}
        assert described == set(definitions[name]["properties"]) - {"method"}
    assert definitions["LutKmeansConfig"]["properties"]["books"]["description"].endswith("is stored, 32 bits a row.")


def test_every_method_has_its_settings() -> None:
    assert {name: method.Config for name, method in PASSES.items()} == METHODS
