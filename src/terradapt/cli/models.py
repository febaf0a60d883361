"""``terradapt models``: the models that there are, with their size and work."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from terradapt.cli._complete import model_names
from terradapt.cli._help import START, add


def register(app: typer.Typer) -> None:
    """Add the verb."""
    examples = """
        # all models, each on its paper's encoder
        terradapt models
        # one model on another encoder, counted now
        terradapt models --model kd-arafnet --encoder resnet18
    """
    add(app, "models", models, START, examples)


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    name: Annotated[
        str | None, typer.Option("--model", help="Only this model.", autocompletion=model_names)
    ] = None,
    encoder: Annotated[
        str | None, typer.Option("--encoder", help="This encoder, for example any of timm's.")
    ] = None,
) -> dict[str, Any]:
    """List the models with their parameters and MACs.

    Parameters are in millions. MACs are thop's, of the whole batch that is named in the last
    column, as the papers print them. With --encoder one row is counted on that encoder.
    """
    from terradapt import counts
    from terradapt.models import entry

    if name is not None:
        entry(name)
    if encoder is None:
        rows = [row for row in counts.counted_rows()["catalogue"] if name in (None, row.name)]
    else:
        chosen = name or "kd-arafnet"
        classes = 2 if entry(chosen).binary else 6
        from terradapt import complexity

        rows = [complexity.row(chosen, encoder, classes=classes)]
    if as_json:
        typer.echo(json.dumps([row.to_dict() for row in rows], indent=2))
    else:
        typer.echo(counts.plain(rows), nl=False)
    return {"models": [row.to_dict() for row in rows]}
