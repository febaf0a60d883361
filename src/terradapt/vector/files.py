"""From a raster file to a vector file: what the verb ``vectorize`` does."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from terradapt.classes import ClassMap, Colour
from terradapt.errors import DataError
from terradapt.files import parse_json
from terradapt.grid import Window
from terradapt.progress import Advance
from terradapt.raster import SceneReader
from terradapt.vector.polygons.extract import (
    PIXELS,
    PolygonOptions,
    RasterLabels,
    polygonize_labels,
)
from terradapt.vector.roads.extract import DEFAULTS, RoadOptions, block_count, road_network
from terradapt.vector.roads.network import import_networkx
from terradapt.vector.roads.source import RasterSource
from terradapt.vector.write import check_vector, write_network, write_polygons


def vectorize_roads(
    labels: str | Path,
    output: str | Path,
    road: int | str = 1,
    *,
    scores: str | Path | None = None,
    threshold: float = 0.5,
    options: RoadOptions = DEFAULTS,
    progress: Advance | None = None,
    overwrite: bool = False,
) -> dict[str, float]:
    """Write the road network of a label raster, and return its figures.

    Args:
        labels: Raster of class ids; a mask of 0 and 255; or scores of one class, 0..1.
        output: ``.gpkg``, ``.geojson``, ``.shp`` or ``.graphml``.
        road: Id of the class, or its name where the raster knows names.
        scores: Raster of scores on the labels' grid.
        threshold: Where ``labels`` holds scores: from here on it is road.
        options: Sizes.
        progress: Called with 1 after each of :func:`road_blocks` blocks.
        overwrite: Replace a file that is there.

    Raises:
        SceneError: A raster cannot be read.
        DataError: No such class, or scores of another size.
        OutputError: The result exists already, or cannot be written.
        MissingExtraError: GraphML without networkx.
    """
    output = check_vector(output, overwrite, roads=True)
    if output.suffix.lower() == ".graphml":
        import_networkx()
    value, band = road_value(labels, road)
    source = RasterSource(labels, value, scores=scores, band=band, threshold=threshold)
    try:
        network = road_network(source, options, progress)
    finally:
        source.close()
    write_network(output, network, overwrite=overwrite)
    return network.summary()


def road_blocks(labels: str | Path, options: RoadOptions) -> int:
    """Return how many blocks :func:`vectorize_roads` works through."""
    source = RasterSource(labels, 1)
    try:
        return block_count(source, options)
    finally:
        source.close()


def vectorize_polygons(
    labels: str | Path,
    output: str | Path,
    options: PolygonOptions = PIXELS,
    progress: Advance | None = None,
    *,
    overwrite: bool = False,
) -> dict[str, dict[str, float]]:
    """Write the polygons of all classes of a label raster, and return each class's figures.

    Args:
        labels: Raster of class ids; 255 and pixels without data have no polygons.
        output: ``.gpkg``, ``.geojson`` or ``.shp``.
        options: Sizes.
        progress: Called with 1 after each of :func:`polygon_blocks` blocks.
        overwrite: Replace a file that is there.

    Returns:
        For each class that occurs, by name, or by id where the raster has no names: ``polygons``
        and ``area_m2``, or ``area_px`` of an image without scale.

    Raises:
        SceneError: The raster cannot be read.
        DataError: It holds no class ids.
        OutputError: The result exists already, or cannot be written.
    """
    output = check_vector(output, overwrite)
    known = raster_classes(labels)
    source = RasterLabels(labels)
    try:
        found = polygonize_labels(source, options, progress)
    finally:
        source.close()
    write_polygons(output, found, known.names, known.colours, overwrite=overwrite)
    area = "area_m2" if found.unit == "m" else f"area_{found.unit}"
    return {
        known.names.get(i, str(i)): {
            "polygons": int((found.value == i).sum()),
            area: float(found.area[found.value == i].sum()),
        }
        for i in np.unique(found.value).tolist()
    }


def polygon_blocks(labels: str | Path, options: PolygonOptions) -> int:
    """Return how many blocks :func:`vectorize_polygons` works through."""
    with SceneReader(labels) as reader:
        value: int = ceil(reader.height / options.block) * ceil(reader.width / options.block)
        return value


@dataclass(frozen=True)
class RasterClasses:
    """What a label raster says about its ids.

    Args:
        names: Name of each id that the raster names; empty when it names none.
        colours: RGB by id, 0..255.
    """

    names: dict[int, str]
    colours: dict[int, Colour]

    def value(self, given: int | str, source: str | Path) -> int:
        """Return the id of a class given by id or name.

        Raises:
            DataError: The raster has no such class.
        """
        text = str(given).strip()
        if text.isdecimal() and int(text) <= 255:
            return int(text)
        for value, name in self.names.items():
            if name.casefold() == text.casefold():
                return value
        known = ", ".join(self.names.values())
        raise DataError(
            f"{source}: no class '{given}'" + (f"; it has: {known}" if known else " by name"),
            "give a class of the raster" if known else "give the class's id, for example 1",
        )


def raster_classes(path: str | Path) -> RasterClasses:
    """Return the class names that a raster written by ``terradapt predict`` carries."""
    with SceneReader(path) as reader:
        text = reader.tags.get("TERRADAPT_CLASSES")
    if not text:
        return RasterClasses({}, {})
    try:
        classes = ClassMap.from_dict(parse_json(text, path))
    except (ValueError, KeyError, TypeError, DataError):
        return RasterClasses({}, {})
    return RasterClasses(dict(enumerate(classes.names)), dict(enumerate(classes.colours)))


def road_value(labels: str | Path, road: int | str) -> tuple[int, int]:
    """Return the id of the road class, 255 for 1 in a mask of 0 and 255, and its scores' band.

    Raises:
        DataError: No such class.
        SceneError: The raster cannot be read.
    """
    value = raster_classes(labels).value(road, labels)
    if value == 1 and _is_mask(labels):
        return 255, 1
    return value, value + 1


def _is_mask(path: str | Path) -> bool:
    """Tell whether a raster holds 255 and 0 only, looking at up to 16 Mpx of it."""
    with SceneReader(path) as reader:
        if reader.dtype != "uint8" or reader.count != 1:
            return False
        step = max(1, round((reader.height * reader.width / 2**24) ** 0.5))
        seen = np.zeros(256, bool)
        side = 1024
        for row in range(0, reader.height, side * step):
            for col in range(0, reader.width, side * step):
                size = min(side, reader.height - row), min(side, reader.width - col)
                values: Any = reader.read(Window(row, col, *size))[0]
                seen[np.unique(values)] = True
                if seen[1:255].any():
                    return False
    return bool(seen[255])
