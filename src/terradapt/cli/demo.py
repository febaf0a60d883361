"""``terradapt demo``: the whole way on synthetic scenes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from terradapt.demo import Demo


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("demo")(demo)


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")] = Path("demo"),
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Overrides of the recipe.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a stopped demo.")] = False,
) -> None:
    """The result of `terradapt demo` is the whole way in one folder, from synthetic scenes.

    A model trained on some cities maps one that it never saw: scene.tif, labels.tif, the run,
    landcover.tif, roads.gpkg and report.html. Minutes on two CPU cores.
    """
    from terradapt.cli._progress import progress
    from terradapt.cli._require import require

    require("terradapt demo", "train", "torch", "timm", "accelerate")
    require("terradapt demo", "report", "jinja2", "matplotlib")
    from terradapt.demo import run_demo

    _tell(run_demo(output, progress, overrides=overrides or [], resume=resume))


def _tell(demo: Demo) -> None:
    metrics = demo.report.metrics
    typer.echo("\nOn a city that training never saw:")
    for name, figures in metrics["per_class"].items():
        typer.echo(f"  {name:16} IoU {figures['iou']:.3f}  F1 {figures['f1']:.3f}")
    means = f"mIoU {metrics['miou']:.3f}, mF1 {metrics['mf1']:.3f}, OA {metrics['oa']:.3f}"
    typer.echo(f"  {means} (means without clutter, as ISPRS counts)")
    length, edges = demo.roads["length_m"], demo.roads["edges"]
    typer.echo(f"Roads: {length / 1000:.2f} km in {edges} edges")
    typer.echo("\nLook at:")
    typer.echo(f"  {demo.folder / 'report.html'}     figures, curves, pictures (a browser)")
    typer.echo(f"  {demo.folder / 'scene.tif'}, landcover.tif, roads.gpkg    in QGIS")
