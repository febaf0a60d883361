"""``terradapt demo``: the whole way on synthetic scenes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from terradapt.cli._complete import keys
from terradapt.cli._help import START, add

if TYPE_CHECKING:
    from terradapt.demo import Demo


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    examples = """
        # everything in the folder demo
        terradapt demo
        # the same in less time, and worse
        terradapt demo epochs=2 -o quick
    """
    add(app, "demo", demo, START, examples)


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")] = Path("demo"),
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...", help="Changes of the recipe: epochs=3.", autocompletion=keys
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a stopped demo.")] = False,
) -> dict[str, Any]:
    """Run the whole way on made-up cities; get maps and reports.

    Two models, land cover and roads, train on some cities and map one that they never saw:
    scene.tif, labels.tif, run, road_run, landcover.tif, roads.tif, roads.gpkg and report.html.
    Minutes on two CPU cores.
    """
    from terradapt.cli._progress import progress
    from terradapt.cli._require import require

    require("terradapt demo", "train", "torch", "timm", "accelerate")
    require("terradapt demo", "report", "jinja2", "matplotlib")
    from terradapt.demo import run_demo

    done = run_demo(output, progress, overrides=overrides or [], resume=resume)
    _tell(done)
    names = ("report.html", "road_run/report.html", "scene.tif", "landcover.tif", "roads.gpkg")
    return {
        "files": [output / name for name in names],
        "metrics": done.report.metrics,
        "roads": done.roads.metrics,
        "network": done.network,
    }


def _tell(demo: Demo) -> None:
    metrics = demo.report.metrics
    typer.echo("\nOn a city that training never saw:")
    for name, figures in metrics["per_class"].items():
        absent = figures.get("absent")
        shown = "absent" if absent else f"IoU {figures['iou']:.3f}  F1 {figures['f1']:.3f}"
        typer.echo(f"  {name:16} {shown}")
    means = f"mIoU {metrics['miou']:.3f}, mF1 {metrics['mf1']:.3f}, OA {metrics['oa']:.3f}"
    typer.echo(f"  {means} (means without clutter, as ISPRS counts)")
    length, edges = demo.network["length_m"], demo.network["edges"]
    road = demo.roads.metrics["per_class"]["road"]
    typer.echo(
        f"Roads, also under trees: F1 {road['f1']:.3f}; {length / 1000:.2f} km, {edges} edges"
    )
    typer.echo("\nLook at:")
    typer.echo(f"  {demo.folder / 'report.html'}    figures, curves, pictures (in a browser)")
    typer.echo(f"  {demo.folder / 'road_run' / 'report.html'}    the same of the road model")
    typer.echo(f"  {demo.folder / 'scene.tif'}, landcover.tif, roads.gpkg    in QGIS")
