"""``terradapt trials``: methods x seeds under one protocol, one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from terradapt.cli._complete import keys, recipes
from terradapt.cli._help import COMPARE, add


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    examples = """
        # a paper's table on your data: every variant, three seeds
        terradapt trials arafnet-6 --data data -o trials --seeds 0,1,2
        # your own methods, one process; go on where it was stopped
        terradapt trials mine.yaml epochs=20 -o trials --workers 1 --resume
    """
    add(app, "trials", trials, COMPARE, examples)


def trials(
    source: Annotated[
        str,
        typer.Argument(
            metavar="TRIALS",
            help="A YAML file, or a paper's table: arafnet-2, -4, -5, -6, sam2ms-1, -4 to -7.",
        ),
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
    ] = Path("trials"),
    seeds: Annotated[
        str | None, typer.Option(help="Seeds, separated by commas; else the file's.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="Recipe or YAML file; else the file's.", autocompletion=recipes),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Only methods whose names hold this, and the reference; repeatable."),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Split to evaluate; by default the first of test, val.")
    ] = None,
    also: Annotated[
        list[Path] | None,
        typer.Option("--also", help="Evaluate each run on this dataset too; repeatable."),
    ] = None,
    limit: Annotated[
        float | None,
        typer.Option(min=0, help="Leave out methods of more GMACs an image; inf for none."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes at a time; by default one a GPU or core.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep finished runs, go on with the rest.")
    ] = False,
) -> dict[str, Any]:
    """Train methods x seeds under one protocol; get a table.

    Every method is trained with every seed, each as a normal run. trials.md, .csv, .tex and .json
    hold means and spreads over seeds and the differences from the reference with their intervals
    over images; trials.svg the curves. They are renewed after each run. {encoder}, {size} and
    {lossnet} in overrides stand for each method's own: encoder.weights=DIR/{encoder}.pt.
    """
    from terradapt.cli._events import say_stopped
    from terradapt.cli._progress import progress, say
    from terradapt.cli._require import require
    from terradapt.trials import run_trials

    require("terradapt trials", "train", "torch", "timm", "accelerate")
    require("the reports of terradapt trials", "report", "jinja2", "matplotlib")
    try:
        run_trials(
            source,
            data,
            output,
            overrides=overrides or [],
            recipe=recipe,
            seeds=_seeds(seeds),
            only=only or [],
            split=split,
            also=also or [],
            limit=limit,
            workers=workers,
            resume=resume,
            bar=progress,
            say=say,
        )
    except KeyboardInterrupt:
        say_stopped(f"go on with --resume, the state is in {output}")
        raise
    typer.echo(f"table: {output / 'trials.md'}")
    return {"files": [output / f"trials.{s}" for s in ("md", "csv", "tex", "svg", "json")]}


def _seeds(text: str | None) -> list[int]:
    from terradapt.errors import ConfigError

    try:
        return [int(s) for s in text.split(",")] if text is not None else []
    except ValueError as error:
        raise ConfigError(f"--seeds {text}: no list of numbers", "write --seeds 0,1,2") from error
