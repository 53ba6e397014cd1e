"""Recipes: the first line is an override, the second says whether TOML or JSON follows."""

from __future__ import annotations

import harness

with harness.instrumented("edgecomp", "tomllib", "json"):
    from edgecomp.recipe import load_recipe

FOLDER = harness.scratch_folder()


def load(data: bytes) -> None:
    """Load the recipe, with and without the override."""
    override, _, rest = data.partition(b"\n")
    kind, _, recipe = rest.partition(b"\n")
    path = FOLDER / ("r.json" if kind == b"json" else "r.toml")
    path.write_bytes(recipe)
    load_recipe(path, [override.decode("utf-8", "replace")] if override else []).to_json()


harness.fuzz(load)
