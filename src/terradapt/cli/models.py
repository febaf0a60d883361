"""``terradapt models``: the models that there are, with their size and work."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("models")(models)


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    name: Annotated[str | None, typer.Option("--model", help="Only this model.")] = None,
    encoder: Annotated[
        str | None, typer.Option("--encoder", help="This encoder, for example any of timm's.")
    ] = None,
) -> None:
    """The result of `terradapt models` is a list of all models: parameters and MACs.

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
