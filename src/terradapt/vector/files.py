"""From a raster file to a vector file: what the verb ``vectorize`` does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from terradapt.classes import IGNORE, ClassMap, Colour
from terradapt.errors import DataError, one_of, refusing
from terradapt.files import parse_json
from terradapt.grid import Window
from terradapt.owner import owned
from terradapt.progress import Advance, Track, silent
from terradapt.raster import SceneReader, scene_files
from terradapt.vector.options import VectorizeOptions
from terradapt.vector.polygons.extract import (
    PIXELS,
    PolygonOptions,
    Polygons,
    RasterLabels,
    polygonize_labels,
)
from terradapt.vector.roads.extract import DEFAULTS, RoadOptions, block_count, road_network
from terradapt.vector.roads.network import Network, import_networkx
from terradapt.vector.roads.source import RasterSource
from terradapt.vector.write import check_vector, write_network, write_polygons

_STRIP = 1 << 24  # pixels read at a time
Made = TypeVar("Made", Polygons, Network)


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
    reads = [*scene_files(labels), *(scene_files(scores) if scores else ())]
    return into_file(
        output,
        lambda: raster_roads(
            labels, road, scores=scores, threshold=threshold, options=options, progress=progress
        ),
        roads=True,
        reads=reads,
        overwrite=overwrite,
    ).summary()


def raster_roads(
    labels: str | Path,
    road: int | str = 1,
    *,
    scores: str | Path | None = None,
    threshold: float = 0.5,
    options: RoadOptions = DEFAULTS,
    progress: Advance | None = None,
) -> Network:
    """Return the road network of a label raster; arguments as of :func:`vectorize_roads`."""
    value = road_value(labels, road)
    band = 1 if scores is None else score_band(scores, labels, value)
    source = RasterSource(labels, value, scores=scores, band=band, threshold=threshold)
    try:
        return road_network(source, options, progress)
    finally:
        source.close()


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
        labels: Raster of class ids; 255 and pixels without data have no polygons. In a mask of 0
            and 255, 255 is class 1.
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
    return into_file(
        output,
        lambda: raster_polygons(labels, options, progress),
        reads=scene_files(labels),
        overwrite=overwrite,
    ).summary()


def raster_polygons(
    labels: str | Path, options: PolygonOptions = PIXELS, progress: Advance | None = None
) -> Polygons:
    """Return the polygons of a label raster; arguments as of :func:`vectorize_polygons`."""
    known = raster_classes(labels)
    source = RasterLabels(labels, mask=is_mask(labels))
    try:
        found = polygonize_labels(source, options, progress)
    finally:
        source.close()
    return found.named(known.names, known.colours)


def polygons_of(
    labels: Path, output: str | Path | None, options: VectorizeOptions, track: Track = silent
) -> Polygons:
    """Return the polygons of a label raster and write them, if a file is named.

    Args:
        labels: As of :func:`vectorize_polygons`.
        output: As of :func:`vectorize_polygons`, or None.
        options: How.
        track: Progress.
    """
    square = None if options.buildings is None else building_value(labels, options.buildings)
    how = options.polygons(square)

    def make() -> Polygons:
        with track(polygon_blocks(labels, how), "polygons", "blocks") as advance:
            return raster_polygons(labels, how, advance)

    return into_file(output, make, reads=scene_files(labels), overwrite=options.overwrite)


def roads_of(
    labels: Path,
    road: int | str,
    output: str | Path | None,
    options: VectorizeOptions,
    track: Track = silent,
) -> Network:
    """Return the road network of a label raster and write it, if a file is named.

    Args:
        labels: As of :func:`vectorize_roads`.
        road: Id or name of the class.
        output: As of :func:`vectorize_roads`, or None.
        options: How.
        track: Progress.
    """
    how, scores = options.roads, options.scores

    def make() -> Network:
        with track(road_blocks(labels, how), "roads", "blocks") as advance:
            return raster_roads(
                labels,
                road,
                scores=scores,
                threshold=options.threshold,
                options=how,
                progress=advance,
            )

    reads = [*scene_files(labels), *(scene_files(scores) if scores else ())]
    return into_file(output, make, roads=True, reads=reads, overwrite=options.overwrite)


def into_file(
    output: str | Path | None,
    make: Callable[[], Made],
    *,
    roads: bool = False,
    reads: Sequence[str | Path] = (),
    overwrite: bool = False,
) -> Made:
    """Make polygons or a network and write them; what stands in the way is found before.

    Args:
        output: The vector file; None writes nothing.
        make: Makes what is written.
        roads: It is a network.
        reads: What it is made from.
        overwrite: Replace a file that is there.

    Raises:
        OutputError: The result exists already, or cannot be written.
        MissingExtraError: GraphML without networkx.
    """
    if output is None:
        return make()
    output = check_vector(output, overwrite, roads=roads, reads=reads)
    if output.suffix.lower() == ".graphml":
        import_networkx()
    with owned(output):
        made = make()
        if isinstance(made, Network):
            write_network(output, made, overwrite=overwrite)
        else:
            write_polygons(output, made, overwrite=overwrite)
    return made


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
        if text.isdecimal() and int(text) <= 255 and (not self.names or int(text) in self.names):
            return int(text)
        for value, name in self.names.items():
            if name.casefold() == text.casefold():
                return value
        if not self.names:
            fix = "give the class's id, for example 1"
            raise DataError(f"{source}: no class '{given}' by name", fix)
        names = self.names.values()
        known = ", ".join(names)
        raise DataError(f"{source}: no class '{given}'; it has: {known}", one_of(given, names))


def raster_classes(path: str | Path) -> RasterClasses:
    """Return the class names that a raster written by ``terradapt predict`` carries."""
    with SceneReader(path) as reader:
        text = reader.tags.get("TERRADAPT_CLASSES")
    if not text:
        return RasterClasses({}, {})
    with suppress(DataError), refusing(path, DataError, "", "odd class names"):
        classes = ClassMap.from_dict(parse_json(text, path))
        return RasterClasses(dict(enumerate(classes.names)), dict(enumerate(classes.colours)))
    return RasterClasses({}, {})


def road_value(labels: str | Path, road: int | str) -> int:
    """Return the id of the road class, 255 for 1 in a mask of 0 and 255.

    Raises:
        DataError: No such class.
        SceneError: The raster cannot be read.
    """
    value = raster_classes(labels).value(road, labels)
    return 255 if value == 1 and is_mask(labels) else value


def score_band(scores: str | Path, labels: str | Path, value: int) -> int:
    """Return the 1-based band of a class's scores: the one of its name, else by its id.

    Raises:
        DataError: The bands have names, and none is the class's; or there are too few.
        SceneError: A raster cannot be read.
    """
    name = raster_classes(labels).names.get(value)
    with SceneReader(scores) as reader:
        bands = [n.casefold() for n in reader.band_names]
        count = reader.count
    if name is not None and name.casefold() in bands:
        return bands.index(name.casefold()) + 1
    if count == 1 or value == IGNORE:
        return 1
    if (name is not None and any(bands)) or value >= count:
        raise DataError(
            f"{scores}: has no band of the class {name or value}",
            "use the scores that were predicted with these labels, and with this class",
        )
    return value + 1


def building_value(labels: str | Path, given: int | str) -> int:
    """Return the id of the class whose polygons get right angles; 1 for 255 in a mask of 0 and 255.

    Raises:
        DataError: No such class.
    """
    value = raster_classes(labels).value(given, labels)
    return 1 if value == IGNORE and is_mask(labels) else value


def is_mask(path: str | Path) -> bool:
    """Tell whether a raster without class names holds 255, and nothing but 255 and 0.

    Where 255 is its nodata value, or a pixel is hidden otherwise, it does not count.
    """
    if raster_classes(path).names:
        return False
    seen = _seen(path, 1, 255)
    return bool(seen[255] and not seen[1:255].any() and not seen[256])


def missing_class(labels: str | Path, road: int | str, threshold: float = 0.5) -> str | None:
    """Say that a raster has nothing of the class that roads were asked of; None where it has.

    Args:
        labels: As given to :func:`vectorize_roads`.
        road: Id of the class, or its name.
        threshold: Of scores.
    """
    with SceneReader(labels) as reader:
        if np.dtype(reader.dtype).kind == "f":
            high = (reader.read(w) for w in _strips(reader))
            if any((valid & (values[0] >= threshold)).any() for values, valid in high):
                return None
            return f"{labels}: no score reaches {threshold:g}"
    seen = _seen(labels, 256, 257)
    value = road_value(labels, road)
    if seen[value]:
        return None
    held = ", ".join(map(str, np.flatnonzero(seen[:256]))) or "no data"
    return f"{labels}: no pixel is of class {road}; it holds {held}"


def _strips(reader: SceneReader) -> Iterator[Window]:
    rows = max(1, _STRIP // reader.width)
    for row in range(0, reader.height, rows):
        yield Window(row, 0, min(rows, reader.height - row), reader.width)


def _seen(path: str | Path, first: int, last: int) -> NDArray[np.bool_]:
    """(257,) which ids occur, the last for all beyond 255; ends at one of ``first`` to ``last``."""
    seen = np.zeros(257, bool)
    with SceneReader(path) as reader:
        for window in _strips(reader):
            pixels, valid = reader.read(window)
            values = np.unique(pixels[0][valid])
            seen[np.where((values >= 0) & (values < 256), values, 256).astype(np.int64)] = True
            if seen[first:last].any():
                break
    return seen
