"""``terradapt recipes``: the packaged recipes."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("recipes")(recipes)


def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this recipe as YAML.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """The result of `terradapt recipes` is the list of recipes, or one recipe's YAML.

    Save it, change it, and give the file to `terradapt train`.
    """
    from terradapt.config import load_config, recipe_names, recipe_text

    if name is not None:
        typer.echo(recipe_text(name), nl=False)
        return
    configs = {n: load_config(n) for n in recipe_names()}
    if as_json:
        rows = [{"name": n, **c.model_dump(mode="json")} for n, c in configs.items()]
        typer.echo(json.dumps(rows, indent=2))
        return
    width = max(map(len, configs), default=0)
    for n, config in configs.items():
        typer.echo(f"{n:{width}}  {config.description}")
