"""``terradapt compare``: two dates, or a map and what came after it, become an update."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from terradapt.cli._help import MAP, add

if TYPE_CHECKING:
    from terradapt.scene import Predictor


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    examples = """
        # two flights, mapped by one model
        terradapt compare 2019.tif 2024.tif -o update.gpkg --model run
        # the road network that you keep, against a newer one
        terradapt compare roads.gpkg osm.gpkg -o update.gpkg
    """
    add(app, "compare", compare, MAP, examples)


def compare(
    old: Annotated[str, typer.Argument(help="Scene, class map, or vectors: the earlier side.")],
    new: Annotated[str, typer.Argument(help="The later side, of any kind.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The GeoPackage to write.")],
    model: Annotated[
        Path | None, typer.Option(help="Maps scenes: a run, a checkpoint or a model.onnx.")
    ] = None,
    classes: Annotated[
        str, typer.Option(help="Look at these classes only: names with commas.")
    ] = "",
    things: Annotated[
        str, typer.Option(help="Classes that are built and removed: names with commas.")
    ] = "building,house,roof,road,car",
    resolution: Annotated[
        float | None, typer.Option(help="Metres per pixel; default the coarser side's.")
    ] = None,
    threshold: Annotated[float, typer.Option(help="Probability of a change, 0 to 1.")] = 0.5,
    grow: Annotated[
        float | None,
        typer.Option(help="Pixels beside a change belong to it from this probability on."),
    ] = None,
    min_area: Annotated[float, typer.Option(help="Smallest change told, square metres.")] = 20.0,
    unlike: Annotated[
        float,
        typer.Option(help="Least difference of the imagery, in usual ones; 0: do not look."),
    ] = 0.5,
    reach: Annotated[
        float | None,
        typer.Option(help="How far the dates may lie apart, m; default as estimated."),
    ] = None,
    align: Annotated[bool, typer.Option(help="Take the estimated shift out.")] = True,
    tolerance: Annotated[float, typer.Option(help="Roads: how far alongside, m.")] = 8.0,
    moved: Annotated[float, typer.Option(help="Roads: moved from this on, m.")] = 2.0,
    min_length: Annotated[float, typer.Option(help="Roads: shortest piece told, m.")] = 10.0,
    aoi: Annotated[
        Path | None, typer.Option(help="Area of interest: polygons; elsewhere nothing is told.")
    ] = None,
    old_class: Annotated[
        str | None, typer.Option(help="What OLD's features are without a column 'class'.")
    ] = None,
    new_class: Annotated[
        str | None, typer.Option(help="What NEW's features are without a column 'class'.")
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="JSON table from scores of change to probabilities.")
    ] = None,
    window: Annotated[int | None, typer.Option(help="Side of a window, px.", min=1)] = None,
    overlap: Annotated[float, typer.Option(help="Share of a window, 0 to 0.9.")] = 0.25,
    batch: Annotated[int | None, typer.Option(help="Windows per model call.", min=1)] = None,
    device: Annotated[str | None, typer.Option(help="For example cuda:0 or cpu.")] = None,
    engine: Annotated[str, typer.Option(help="What runs the model, as in predict.")] = "own",
    cluster: Annotated[
        str, typer.Option(help="Dask: tls://HOST:PORT, tcp://HOST:PORT, 'local' or 'none'.")
    ] = "none",
    workers: Annotated[int | None, typer.Option(help="Workers of --cluster local.", min=1)] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a run stopped.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results that are there.")
    ] = False,
) -> dict[str, Any]:
    """Compare two dates or maps; get what is new, gone and changed.

    Each side is a scene (--model maps it), a class map, or vectors: polygons and roads. The
    GeoPackage has polygons and edges with state, probability, area and length; beside it stand
    _change.tif, .json and .html.
    """
    from terradapt.changes.raster import here
    from terradapt.changes.roads import AlongOptions
    from terradapt.changes.run import compare as run
    from terradapt.cli._events import say_stopped
    from terradapt.cli._progress import progress
    from terradapt.cli._progress import say as tell
    from terradapt.scene import PredictOptions
    from terradapt.scene.job import Job

    predictor, load, name = opened(model, engine, device)
    with _pool(cluster, load, name, workers) as pool:
        try:
            figures = run(
                old,
                new,
                output,
                model=predictor,
                model_name=name,
                predict=PredictOptions(window=window, overlap=overlap, batch=batch),
                bar=progress,
                blocks=pool.blocks if pool else Job.blocks,
                rows=pool.ordered if pool else here,
                say=lambda line: tell(f"note: {line}"),
                classes=listed(classes),
                things=listed(things),
                resolution=resolution,
                threshold=threshold,
                grow=grow,
                min_area=min_area,
                unlike=unlike,
                reach=reach,
                align=align,
                aoi=aoi,
                along=AlongOptions(tolerance, moved, min_length),
                old_class=old_class,
                new_class=new_class,
                calibration=calibration,
                resume=resume,
                overwrite=overwrite,
            )
        except KeyboardInterrupt:
            say_stopped(f"go on with --resume, the state is in {output}.part")
            raise
    _tell(output, figures)
    return {"files": [output], "figures": figures}


def opened(
    model: Path | None, engine: str, device: str | None
) -> tuple[Predictor | None, Any, str]:
    """Open the model; give what opens it on a worker, and its name; nothing without one."""
    if model is None:
        return None, None, ""
    from terradapt import hub
    from terradapt.cli.predict import open_predictor
    from terradapt.files import digest

    path = hub.local(model)
    load = partial(open_predictor, path.absolute(), engine=engine, device=device)
    predictor = load(say=lambda line: typer.echo(line, err=True))
    load = partial(load, engine=predictor.engine)
    return predictor, load, f"{path.name} {digest(path)[:12]}"


def _pool(cluster: str, load: Any, name: str, workers: int | None) -> Any:
    if cluster == "none":
        return nullcontext(None)
    from terradapt.scene.cluster import Cluster

    return Cluster(cluster, load, name, workers=workers)


def listed(text: str) -> tuple[str, ...]:
    """Return the names of a list with commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _tell(output: Path, figures: dict[str, Any]) -> None:
    looked, unseen = figures["looked_at_km2"], figures["not_looked_at_km2"]
    typer.echo(
        f"{output}: {looked:.4f} km2 looked at"
        + (f", {unseen:.4f} km2 without data in one of the two" if unseen else "")
    )
    for state, row in figures["polygons"].items():
        roads = figures["edges"][state]
        area = row.get("area_m2", row.get("area", 0.0))
        typer.echo(
            f"  {state:<8} {row['count']:>6} areas {area:14,.0f} m2 "
            f"{roads['count']:>6} roads {roads['length_m']:12,.0f} m"
        )
