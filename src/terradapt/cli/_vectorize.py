"""What the verb ``vectorize`` calls: options to functions, figures to lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

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
    overwrite: bool,
) -> dict[str, Any]:
    """Write a road network and say what it is."""
    from terradapt.vector.files import missing_class, road_blocks, vectorize_roads
    from terradapt.vector.roads.extract import RoadOptions

    options = RoadOptions.of(max_width, min_spur, max_gap, simplify, block)
    with progress(road_blocks(labels, options), "roads", "blocks") as advance:
        figures = vectorize_roads(
            labels,
            output,
            road,
            scores=scores,
            threshold=threshold,
            options=options,
            progress=advance,
            overwrite=overwrite,
        )
    if not figures["edges"]:
        absent = missing_class(labels, road, threshold)
        if absent:
            typer.echo(absent)
    typer.echo(
        f"{output}: {figures['edges']:.0f} edges, {figures['nodes']:.0f} nodes, "
        f"{_length(figures)}, {figures['components']:.0f} components, "
        f"{figures['dead_ends']:.0f} dead ends"
    )
    _tell_scale(labels, "length_m" in figures)
    return figures


def run_polygons(
    labels: Path,
    output: Path,
    simplify: float,
    min_area: float,
    buildings: str | None,
    block: int,
    overwrite: bool,
) -> dict[str, Any]:
    """Write polygons and say what they are."""
    from terradapt.vector.files import building_value, polygon_blocks, vectorize_polygons
    from terradapt.vector.polygons.extract import PolygonOptions

    square = None if buildings is None else building_value(labels, buildings)
    options = PolygonOptions(simplify, min_area, square, block)
    with progress(polygon_blocks(labels, options), "polygons", "blocks") as advance:
        figures = vectorize_polygons(labels, output, options, advance, overwrite=overwrite)
    typer.echo(f"{output}: {sum(int(f['polygons']) for f in figures.values())} polygons")
    for name, row in figures.items():
        typer.echo(f"  {name}: {row['polygons']:.0f} polygons, {_area(row)}")
    _tell_scale(labels, all("area_m2" in row for row in figures.values()))
    return figures


def _length(figures: dict[str, float]) -> str:
    if "length_m" in figures:
        return f"{figures['length_m'] / 1000:.3f} km"
    pixels = figures.get("length_px")
    return f"{figures['length_units']:.1f} units" if pixels is None else f"{pixels:.1f} pixels"


def _area(row: dict[str, float]) -> str:
    if "area_m2" in row:
        return f"{row['area_m2'] / 10_000:.4f} ha"
    pixels = row.get("area_px")
    return f"{row['area_units']:.1f} square units" if pixels is None else f"{pixels:.0f} pixels"


def _tell_scale(labels: Path, known: bool) -> None:
    if not known:
        typer.echo(
            f"{labels}: no CRS, so its scale is unknown; figures are in its own pixels or units, "
            "and sizes given in metres are taken as such"
        )
