"""What the verb ``vectorize`` calls: options to functions, figures to lines."""

from __future__ import annotations

from pathlib import Path

import typer

from terradapt.classes import IGNORE
from terradapt.cli._progress import progress


def run_roads(
    labels: Path,
    output: Path,
    road: str,
    scores: Path | None,
    threshold: float,
    max_width: float,
    min_spur: float,
    max_gap: float,
    simplify: float | None,
    block: int,
) -> None:
    """Write a road network and say what it is."""
    from terradapt.vector.files import missing_class, road_blocks, vectorize_roads
    from terradapt.vector.roads.bridge import BridgeOptions
    from terradapt.vector.roads.clean import CleanOptions
    from terradapt.vector.roads.extract import RoadOptions

    options = RoadOptions(
        max_width, CleanOptions(min_spur=min_spur), BridgeOptions(max_gap=max_gap), simplify, block
    )
    with progress(road_blocks(labels, options), "roads", "blocks") as advance:
        figures = vectorize_roads(
            labels,
            output,
            road,
            scores=scores,
            threshold=threshold,
            options=options,
            progress=advance,
        )
    if not figures["edges"]:
        absent = missing_class(labels, road, threshold)
        if absent:
            typer.echo(absent)
    typer.echo(
        f"{output}: {figures['edges']:.0f} edges, {figures['nodes']:.0f} nodes, "
        f"{figures['length_m'] / 1000:.3f} km, {figures['components']:.0f} components, "
        f"{figures['dead_ends']:.0f} dead ends"
    )


def run_polygons(
    labels: Path,
    output: Path,
    simplify: float,
    min_area: float,
    buildings: str | None,
    block: int,
) -> None:
    """Write polygons and say what they are."""
    from terradapt.vector.files import is_mask, polygon_blocks, raster_classes, vectorize_polygons
    from terradapt.vector.polygons.extract import PolygonOptions

    square = None if buildings is None else raster_classes(labels).value(buildings, labels)
    if square == IGNORE and is_mask(labels):
        square = 1
    options = PolygonOptions(simplify, min_area, square, block)
    with progress(polygon_blocks(labels, options), "polygons", "blocks") as advance:
        figures = vectorize_polygons(labels, output, options, advance)
    typer.echo(f"{output}: {sum(int(f['polygons']) for f in figures.values())} polygons")
    for name, row in figures.items():
        typer.echo(f"  {name}: {row['polygons']:.0f} polygons, {row['area_m2'] / 10_000:.4f} ha")
