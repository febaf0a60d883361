"""``terradapt vectorize``: polygons per class, or the roads as a network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from terradapt.cli._help import MAP, add


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    examples = """
        # polygons of all classes, for QGIS
        terradapt vectorize map.tif -o map.gpkg
        # centrelines with widths and junctions
        terradapt vectorize roads.tif -o roads.gpkg --roads road
    """
    add(app, "vectorize", vectorize, MAP, examples)


def vectorize(
    labels: Annotated[Path, typer.Argument(help="Class raster, mask, or scores of one class.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help=".gpkg, .geojson or .shp; roads also .graphml.")
    ],
    roads: Annotated[
        str | None, typer.Option(help="Make a road network of this class (id or name).")
    ] = None,
    scores: Annotated[
        Path | None, typer.Option(help="Scores on the labels' grid, for roads.")
    ] = None,
    threshold: Annotated[float, typer.Option(help="Of scores given as LABELS, 0..1.")] = 0.5,
    max_width: Annotated[float, typer.Option(help="Roads: widest road, m.")] = 40.0,
    min_spur: Annotated[float, typer.Option(help="Roads: shortest dead end, m.")] = 8.0,
    max_gap: Annotated[float, typer.Option(help="Roads: longest gap closed, m; 0: none.")] = 25.0,
    simplify: Annotated[
        float | None,
        typer.Option(help="Deviation allowed, m; default half a pixel for roads, 0 for polygons."),
    ] = None,
    min_area: Annotated[
        float, typer.Option(help="Polygons: smaller ones join their neighbour, square metres.")
    ] = 0.0,
    buildings: Annotated[
        str | None, typer.Option(help="Polygons: class (id or name) with right angles.")
    ] = None,
    block: Annotated[int, typer.Option(help="Side of the blocks worked on, px.", min=64)] = 2048,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that is there.")
    ] = False,
) -> dict[str, Any]:
    """Turn a map into polygons, or its roads into a network.

    Lengths, widths and areas are in metres whatever the CRS, in pixels without one. QGIS opens the
    result coloured. It does not depend on --block.
    """
    from terradapt.cli._vectorize import run_polygons, run_roads

    if roads is not None:
        figures = run_roads(
            labels,
            output,
            roads,
            scores,
            threshold,
            max_width,
            min_spur,
            max_gap,
            simplify,
            block,
            overwrite,
        )
    else:
        figures = run_polygons(
            labels, output, simplify or 0.0, min_area, buildings, block, overwrite
        )
    return {"files": [output], "figures": figures}
