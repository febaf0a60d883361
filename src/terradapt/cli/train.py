"""``terradapt train``: a recipe and a dataset become a run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from terradapt.cli._complete import keys, recipes
from terradapt.cli._help import TRAIN, add


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    examples = """
        # land cover, as the recipe says
        terradapt train landcover --data data -o run
        # roads, with two values changed
        terradapt train roads epochs=20 optim.lr=1e-3 --data data -o run
    """
    add(app, "train", train, TRAIN, examples)


def train(
    recipe: Annotated[
        str, typer.Argument(help="Name of a recipe, or a YAML file.", autocompletion=recipes)
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...", help="Changes of the recipe: epochs=3.", autocompletion=keys
        ),
    ] = None,
    data: Annotated[Path, typer.Option("--data", help="Dataset folder.")] = Path("data"),
    output: Annotated[Path, typer.Option("-o", "--output", help="The run's folder.")] = Path("run"),
    resume: Annotated[bool, typer.Option(help="Go on with the run in the folder.")] = False,
    plain: Annotated[bool, typer.Option("--no-report", help="Skip the report at the end.")] = False,
) -> dict[str, Any]:
    """Train a model; get a run: checkpoint, log and report.

    Any value of the recipe can be changed: optim.lr=1e-3. Keys of train and model have a short
    form: epochs=3 is train.epochs=3, encoder.weights=FILE is model.encoder.weights=FILE. All keys
    stand in docs/config.md.
    """
    from terradapt import training
    from terradapt.cli._events import say_stopped
    from terradapt.cli._progress import progress, say
    from terradapt.cli._require import require
    from terradapt.config import load_config

    require("terradapt train", "train", "torch", "timm", "accelerate")
    from terradapt.meta import read_meta

    config = load_config(recipe).with_overrides(overrides or [])
    try:
        best = training.train(
            config,
            data,
            output,
            resume=resume,
            bar=progress,
            say=say,
        )
    except KeyboardInterrupt:
        say_stopped(_how_to_go_on(output))
        raise
    if os.environ.get("RANK", "0") != "0":  # one voice under accelerate launch
        return {}
    best_file = output / "checkpoint.safetensors"
    typer.echo(f"best checkpoint: {best_file}")
    of = "validation" if best["split"] == "val" else "training images (no validation split)"
    typer.echo(f"{of}: mIoU {best['miou']:.4f}, mF1 {best['mf1']:.4f}, OA {best['oa']:.4f}")
    confidence = read_meta(best_file).confidence
    typer.echo(f"confidence: {confidence}")
    files = [best_file]
    if not plain:
        files.append(_report(output, data))
    return {"files": files, "run": output, "metrics": best, "confidence": confidence}


def _how_to_go_on(run: Path) -> str:
    """Say where the state of a stopped run is, where there is one."""
    if (run / "last.safetensors").is_file():
        return f"go on with --resume, the state is in {run}"
    if (run / "config.yaml").is_file():
        return f"no step was saved yet; {run} holds the config alone, --resume begins anew"
    return "nothing was written yet"


def _report(run: Path, data: Path) -> Path:
    from terradapt.cli._events import say_stopped
    from terradapt.cli._progress import progress
    from terradapt.cli._require import require
    from terradapt.evaluation import report_run

    require("the report of terradapt train", "report", "jinja2", "matplotlib")
    page = run / "report.html"
    try:
        report = report_run(run, data, bar=progress)
    except KeyboardInterrupt:
        again = f"terradapt eval {run} --data {data} -o {run / 'report.json'}"
        say_stopped(f"the run is whole, its report is not; make it with: {again}")
        raise
    typer.echo(f"report: {page} (split {report.split})")
    return page
