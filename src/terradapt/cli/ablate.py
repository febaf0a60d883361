"""``terradapt ablate``: an ablation table of the papers on any dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from terradapt.cli._complete import keys, recipes
from terradapt.cli._help import COMPARE, add


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    examples = """
        # the full model and every variant, one seed
        terradapt ablate arafnet-6 --data data -o ablation
        # means and spreads of three seeds
        terradapt ablate sam2ms-5 epochs=20 --data data --seeds 0,1,2
    """
    add(app, "ablate", ablate, COMPARE, examples)


def ablate(
    table: Annotated[
        str, typer.Argument(help="arafnet-6, sam2ms-4 (trunks, adapters), -5 (lossnet) or -6.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...", help="Changes of the recipe: epochs=3.", autocompletion=keys
        ),
    ] = None,
    data: Annotated[Path, typer.Option("--data", help="Dataset folder.")] = Path("data"),
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder of runs and table.")
    ] = Path("ablation"),
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas.")] = "42",
    recipe: Annotated[
        str | None,
        typer.Option(help="Recipe or YAML file; the paper's by default.", autocompletion=recipes),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Only variants whose names hold this; repeatable.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Split to evaluate; by default the first of test, val.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Keep finished runs, go on with the rest.")] = False,
) -> dict[str, Any]:
    """Train a paper's ablations on your data; get the table.

    Every variant is trained with every seed, each as a normal run; ablation.md, .csv and .json
    hold the printed values, ours as mean and spread, and the changes against the full model.
    {encoder}, {size} and {lossnet} in overrides stand for each variant's own, for example
    encoder.weights=DIR/{encoder}.pt.
    """
    from terradapt import ablation
    from terradapt.cli._events import say_stopped
    from terradapt.cli._progress import progress
    from terradapt.cli._require import require

    require("terradapt ablate", "train", "torch", "timm", "accelerate")
    require("the reports of terradapt ablate", "report", "jinja2", "matplotlib")
    try:
        ablation.ablate(
            table,
            data,
            output,
            overrides=overrides or [],
            recipe=recipe,
            seeds=_seeds(seeds),
            only=only or [],
            split=split,
            resume=resume,
            bar=progress,
            say=lambda line: typer.echo(line, err=True),
        )
    except KeyboardInterrupt:
        say_stopped(f"go on with --resume, the state is in {output}")
        raise
    typer.echo(f"table: {output / 'ablation.md'}")
    return {"files": [output / f"ablation.{s}" for s in ("md", "csv", "json")]}


def _seeds(text: str) -> list[int]:
    from terradapt.errors import ConfigError

    try:
        return [int(s) for s in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"--seeds {text}: no list of numbers", "write --seeds 0,1,2") from error
