"""``terradapt recipes``: the packaged recipes."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from terradapt.cli import _complete
from terradapt.cli._help import START, add


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    examples = """
        # all recipes, a line each
        terradapt recipes
        # a copy to change, for terradapt train mine.yaml
        terradapt recipes landcover > mine.yaml
    """
    add(app, "recipes", recipes, START, examples)


def recipes(
    name: Annotated[
        str | None,
        typer.Argument(help="Print this recipe as YAML.", autocompletion=_complete.recipes),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> dict[str, Any]:
    """List the recipes, or print one to start from.

    Save it, change it, and give the file to `terradapt train`.
    """
    from terradapt.config import load_config, recipe_names, recipe_text

    if name is not None:
        typer.echo(recipe_text(name), nl=False)
        return {"recipe": recipe_text(name)}
    configs = {n: load_config(n) for n in recipe_names()}
    rows = [{"name": n, **c.model_dump(mode="json")} for n, c in configs.items()]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return {"recipes": rows}
    width = max(map(len, configs), default=0)
    for n, config in configs.items():
        typer.echo(f"{n:{width}}  {config.description}")
    return {"recipes": rows}
