"""List the built-in recipes, print one resolved, or print the schema that recipes follow."""

from __future__ import annotations

import argparse

from edgecomp.cli.common import print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `edgecomp recipe`."""
    parser.add_argument("recipe", nargs="?", metavar="RECIPE", help="built-in name, .toml or .json file; none lists the names")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="change a setting")
    parser.add_argument("--schema", action="store_true", help="print the JSON schema")


def run(arguments: argparse.Namespace) -> None:
    """Print names, a recipe, or the schema."""
    from edgecomp.recipe import builtin_recipes, load_recipe, recipe_schema

    if arguments.schema:
        print_json(recipe_schema())
    elif arguments.recipe is None:
        print("\n".join(builtin_recipes()))
    else:
        print_json(load_recipe(arguments.recipe, arguments.overrides).to_json())
