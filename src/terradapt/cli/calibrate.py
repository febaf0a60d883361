"""``terradapt calibrate``: scores of change become probabilities."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from terradapt.cli._help import MAP, add


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    examples = """
        # pairs of `terradapt data synthetic-pairs 201-208 unchanged=0.5 -o pairs`
        terradapt calibrate pairs --model run -o table.json
        # pairs that you have labelled, buildings only
        terradapt calibrate mine --model run --classes building -o table.json
    """
    add(app, "calibrate", calibrate_changes, MAP, examples)


def calibrate_changes(
    pairs: Annotated[Path, typer.Argument(help="Pairs of dates with labels: A/, B/, label/.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The JSON table to write.")],
    model: Annotated[Path, typer.Option(help="The model that compare will use.")],
    classes: Annotated[
        str, typer.Option(help="Look at these classes only: names with commas.")
    ] = "",
    align: Annotated[bool, typer.Option(help="Take the estimated shift out.")] = True,
    device: Annotated[str | None, typer.Option(help="For example cuda:0 or cpu.")] = None,
    engine: Annotated[str, typer.Option(help="What runs the model, as in predict.")] = "own",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a table that is there.")
    ] = False,
) -> dict[str, Any]:
    """Fit the probability of change to known pairs; get a table.

    The table is for `terradapt compare --calibration`. It is fitted on the splits train and val of
    the pairs; its error is measured on test, and stands in it.
    """
    from terradapt.changes.fitting import calibrate_changes as fit
    from terradapt.cli._progress import progress
    from terradapt.cli.compare import listed, opened

    predictor, _, name = opened(model, engine, device)
    table = fit(
        pairs,
        output,
        model=predictor,
        model_name=name,
        bar=progress,
        say=typer.echo,
        overwrite=overwrite,
        classes=listed(classes),
        align=align,
    )
    typer.echo(f"{output}: {table}")
    return {"files": [output], "figures": table.model_dump()}
