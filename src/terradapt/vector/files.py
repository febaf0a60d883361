"""From a raster file to a vector file: what the verb ``vectorize`` does."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np

from terradapt.classes import ClassMap
from terradapt.errors import DataError
from terradapt.files import parse_json
from terradapt.grid import Window
from terradapt.progress import Advance
from terradapt.raster import SceneReader, scene_files
from terradapt.vector.polygons.extract import (
    PIXELS,
    PolygonOptions,
    RasterLabels,
    polygonize_labels,
)
from terradapt.vector.roads.extract import DEFAULTS, RoadOptions, block_count, road_network
from terradapt.vector.roads.network import import_networkx
from terradapt.vector.roads.source import RasterSource
from terradapt.vector.write import SUFFIXES, check_vector, write_layers, write_network


def vectorize_roads(
    labels: str | Path,
    output: str | Path,
    road: int | str = 1,
    *,
    scores: str | Path | None = None,
    threshold: float = 0.5,
    options: RoadOptions = DEFAULTS,
    progress: Advance | None = None,
) -> dict[str, float]:
    """Write the road network of a label raster, and return its figures.

    Args:
        labels: Raster of class ids; a mask of 0 and 255; or scores of one class, 0..1.
        output: ``.gpkg``, ``.geojson`` or ``.graphml``.
        road: Id of the class, or its name where the raster knows names.
        scores: Raster of scores on the labels' grid.
        threshold: Where ``labels`` holds scores: from here on it is road.
        options: Sizes.
        progress: Called with 1 after each of :func:`road_blocks` blocks.

    Raises:
        SceneError: A raster cannot be read.
        DataError: No such class, or scores of another size.
        OutputError: The result cannot be written.
        MissingExtraError: GraphML without networkx.
    """
    reads = [*scene_files(labels), *(scene_files(scores) if scores else ())]
    output = check_vector(output, SUFFIXES, reads)
    if output.suffix.lower() == ".graphml":
        import_networkx()
    value, band = road_value(labels, road)
    source = RasterSource(labels, value, scores=scores, band=band, threshold=threshold)
    try:
        network = road_network(source, options, progress)
    finally:
        source.close()
    write_network(output, network)
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
) -> dict[str, dict[str, float]]:
    """Write the polygons of all classes of a label raster, and return each class's figures.

    Args:
        labels: Raster of class ids; 255 and pixels without data have no polygons.
        output: ``.gpkg`` or ``.geojson``.
        options: Sizes.
        progress: Called with 1 after each of :func:`polygon_blocks` blocks.

    Returns:
        For each class that occurs, by name, or by id where the raster has no names: polygons and
        square metres.

    Raises:
        SceneError: The raster cannot be read.
        DataError: It holds no class ids.
        OutputError: The result cannot be written.
    """
    output = check_vector(output, SUFFIXES[:3], scene_files(labels))
    names = raster_classes(labels).names
    source = RasterLabels(labels)
    try:
        found = polygonize_labels(source, options, progress)
    finally:
        source.close()
    name = np.array([names.get(int(v), str(v)) for v in found.value], object)
    fields = {"class_id": found.value, "class": name, "area_m2": found.area}
    write_layers(output, [("polygons", "Polygon", found.shapes, fields)], found.crs)
    return {
        str(n): {"polygons": int((name == n).sum()), "area_m2": float(found.area[name == n].sum())}
        for n in dict.fromkeys(name[np.argsort(found.value, kind="stable")])
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
    colours: dict[int, tuple[int, ...]]

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
        if reader.dtype != "uint8" or len(reader.data_bands) != 1:
            return False
        step = max(1, round((reader.height * reader.width / 2**24) ** 0.5))
        seen = np.zeros(256, bool)
        side = 1024
        for row in range(0, reader.height, side * step):
            for col in range(0, reader.width, side * step):
                size = min(side, reader.height - row), min(side, reader.width - col)
                values, valid = reader.read(Window(row, col, *size))
                seen[np.unique(values[0][valid])] = True
                if seen[1:255].any():
                    return False
    return bool(seen[255])
