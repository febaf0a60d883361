"""Vector labels: polygons and lines of any CRS, rasterized onto each image's grid by window."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from terradapt.classes import IGNORE
from terradapt.data.dataset import Item
from terradapt.data.labels import VectorForm
from terradapt.data.vector_files import column_texts
from terradapt.errors import DataError
from terradapt.files import stamp
from terradapt.grid import Window
from terradapt.raster import (
    CRS,
    FeatureLayer,
    Georef,
    SceneReader,
    names_image,
    rasterize,
    read_layer,
    upright,
)
from terradapt.raster.georef import metric_crs, move_points

_ARC_SEGMENTS = 16  # of a quarter circle, round line ends
_LONGEST = 500.0  # m, edges are divided before they are bent into another CRS
_IMAGES = 64  # whose features are kept ready
_SOURCES = 64  # files kept open


@dataclass(frozen=True)
class Census:
    """What was found among the features of a vector label file.

    Args:
        features: All features.
        used: Features that can label pixels.
        empty: Features without a geometry.
        invalid: Geometries that were mended (self-crossing rings and the like).
        points: Point features; they label nothing.
        unclassed: Features without a class.
    """

    features: int
    used: int
    empty: int
    invalid: int
    points: int
    unclassed: int


class VectorSource:
    """The features of one file, ready to be burnt onto any image.

    Args:
        path: GeoPackage, GeoJSON, Shapefile or FlatGeobuf.
        form: How features become classes.

    Raises:
        DataError: The file cannot be read, or a feature has a class that ``form`` does not know.
    """

    def __init__(self, path: Path, form: VectorForm) -> None:
        self.path, self.form = path, form
        features = read_layer(path, form.layer)
        self.crs = features.crs
        ids = _class_ids(features, form, path)
        self.geometries, self.ids, owner, self.census = _usable(features, ids)
        named = features.images
        self.images = None if named is None else np.array(named, object)[owner]
        self._tree = shapely.STRtree(self.geometries)
        self._ready: OrderedDict[str, tuple[Any, Any, NDArray[np.uint8]]] = OrderedDict()

    def burn(self, window: Window, georef: Georef, image: str) -> NDArray[np.uint8]:
        """Rasterize a window of an image: (H, W) class ids; a pixel takes what its centre lies in.

        Later features cover earlier ones; ``form.background`` lies elsewhere. On an image without a
        CRS those that name another image (column ``image``) are left out, and those that name this
        one are in its pixels: x to the right, y down, or upwards from 0 as QGIS has it.

        Args:
            window: Pixels of the image.
            georef: Where the image lies.
            image: The image's path, for errors and as its key.

        Raises:
            DataError: The image has no CRS although the labels have one.
        """
        tree, shapes, ids = self._near(georef, image)
        here = georef.crop(window)
        hits = np.sort(tree.query(shapely.Polygon(here.outline())))
        pairs = [(shapes[i], int(ids[i])) for i in hits]
        return rasterize(
            pairs,
            height=window.height,
            width=window.width,
            transform=here.transform,
            fill=self.form.background,
        )

    def covers(self, georef: Georef, image: str) -> NDArray[np.int64]:
        """Return the indexes of the features that touch an image."""
        own = self._own(georef, image)
        edges = np.array([shapely.Polygon(georef.outline(16))])
        outline = moved(edges, georef.crs, self.crs, divide=False)[0]
        if georef.crs is None and self.images is not None:
            return own[shapely.intersects(upright(self.geometries[own], georef), outline)]
        return np.asarray(self._tree.query(outline, predicate="intersects"), np.int64)

    def can_lie_on(self, georef: Georef) -> bool:
        """Tell whether the features have a place on an image: a common CRS, or its name."""
        return georef.crs is not None or self.crs is None or self.images is not None

    def _near(self, georef: Georef, image: str) -> tuple[Any, Any, NDArray[np.uint8]]:
        """The features of an image's surroundings in its CRS, lines as polygons."""
        key = f"{image}|{georef.transform}"
        if key not in self._ready:
            self._ready[key] = self._prepare(georef, self._own(georef, image))
            while len(self._ready) > _IMAGES:
                self._ready.popitem(last=False)
        self._ready.move_to_end(key)
        return self._ready[key]

    def _own(self, georef: Georef, image: str) -> NDArray[np.int64]:
        """Indexes of the features that may lie on an image."""
        if georef.crs is not None:
            return np.arange(len(self.geometries))
        if not self.can_lie_on(georef):
            raise DataError(
                f"{image}: has no CRS, so the labels of {self.path.name} cannot be placed on it",
                "georeference the image, give label rasters, or name the image of each shape in a "
                "column 'image'",
            )
        if self.images is None:
            return np.arange(len(self.geometries))
        anywhere = self.crs is None  # else its coordinates may be any
        path = Path(image)
        kept = [names_image(text, path) if text else anywhere for text in self.images]
        return np.flatnonzero(np.array(kept, bool))

    def _prepare(
        self, georef: Georef, own: NDArray[np.int64]
    ) -> tuple[Any, Any, NDArray[np.uint8]]:
        source = self.crs or georef.crs
        shapes, ids = self.geometries[own], self.ids[own]
        if georef.crs is None and self.images is not None:
            shapes = upright(shapes, georef)
        lines = shapely.get_dimensions(shapes) == 1
        if lines.any():
            shapes[lines] = self._widened(shapes[lines], source, georef)
        if (~lines).any():
            shapes[~lines] = moved(shapes[~lines], source, georef.crs)
        keep = ~shapely.is_empty(shapes)
        shapes, ids = shapes[keep], ids[keep]
        return shapely.STRtree(shapes), shapes, ids

    def _widened(self, lines: NDArray[Any], source: CRS | None, georef: Georef) -> NDArray[Any]:
        """Buffer lines by half their width in metres, in the UTM zone of the image's origin."""
        half = self.form.line_width / 2
        if georef.crs is None:
            raise DataError(
                f"{self.path}: line labels have a width in metres, and there is no CRS",
                "give the lines and the images a CRS, or give polygons",
            )
        metric = metric_crs(georef.crs, *georef.outline()[0])
        wide = shapely.buffer(moved(lines, source, metric), half, quad_segs=_ARC_SEGMENTS)
        return moved(wide, metric, georef.crs, divide=False)


def moved(
    shapes: NDArray[Any], source: CRS | None, target: CRS | None, divide: bool = True
) -> NDArray[Any]:
    """Return geometries of ``source`` in ``target``; long edges are divided to bend with it."""
    if source is None or target is None or source == target:
        return shapes
    if divide:
        unit = 1 / 111_000 if source.is_geographic else 1.0
        shapes = shapely.segmentize(shapes, _LONGEST * unit)
    return shapely.transform(shapes, lambda points: move_points(points, source, target))


def vector_source(path: Path, form: VectorForm) -> VectorSource:
    """Return the features of a file, kept in memory while the file does not change."""
    key = (str(path), *stamp(path), repr(form))
    if key not in _OPEN:
        _OPEN[key] = VectorSource(path, form)
        while len(_OPEN) > _SOURCES:
            _OPEN.popitem(last=False)
    _OPEN.move_to_end(key)
    return _OPEN[key]


def touches(path: Path, form: VectorForm, item: Item) -> bool:
    """Tell whether a vector file has a feature on an image.

    None is on an image with another label of its own that has no place for them (no CRS).

    Raises:
        DataError: The image has no place for them, and no other label.
    """
    source = vector_source(path, form)
    with SceneReader(item.image) as file:
        georef = item.placed(file.georef)
    if item.label not in (None, path) and not source.can_lie_on(georef):
        return False
    return len(source.covers(georef, str(item.image))) > 0


def uncovered(path: Path, form: VectorForm, items: Sequence[Item]) -> tuple[int, int]:
    """Return how many geometries of a label file touch none of the images, and how many are."""
    source = vector_source(path, form)
    touched = np.zeros(len(source.geometries), bool)
    for item in items:
        with SceneReader(item.image) as file:
            touched[source.covers(item.placed(file.georef), str(item.image))] = True
    return int((~touched).sum()), len(touched)


def strangers(path: Path, form: VectorForm, items: Sequence[Item]) -> str:
    """Say in words which images features name that are not among some without a CRS, else "".

    Args:
        path: The vector file.
        form: How its features become classes.
        items: All that they may lie on.
    """
    named = vector_source(path, form).images
    if named is None or not items:
        return ""
    with SceneReader(items[0].image) as file:
        if file.crs is not None:
            return ""
    texts, counts = np.unique(named[named != ""].astype(str), return_counts=True)
    lost = [
        (str(text), int(count))
        for text, count in zip(texts, counts, strict=True)
        if not any(names_image(str(text), item.image) for item in items)
    ]
    if not lost:
        return ""
    number, first = sum(count for _, count in lost), lost[0][0]
    more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
    return f"{path}: {number} shapes lie on {first}{more}, which is not here; they label nothing"


_OPEN: OrderedDict[tuple[object, ...], VectorSource] = OrderedDict()


def _class_ids(features: FeatureLayer, form: VectorForm, path: Path) -> NDArray[np.int64]:
    """(N,) class ids, -1 where a feature has no class."""
    count = len(features.geometries)
    if form.column is None:
        return np.full(count, form.single, np.int64)
    keys = column_texts(features, form.column, path)
    unknown = sorted({k for k in keys if k is not None and k not in form.classes})
    if unknown:
        number = sum(k == unknown[0] for k in keys)
        raise DataError(
            f"{path}: '{unknown[0]}' in column '{form.column}' is no class ({number} features; "
            f"{len(unknown)} unknown values)",
            f"known: {', '.join(list(form.classes)[:8])}; mend it, or add it to classes.yaml",
        )
    return np.array([-1 if k is None else form.classes[k] for k in keys], np.int64).reshape(count)


def _usable(
    features: FeatureLayer, ids: NDArray[np.int64]
) -> tuple[Any, NDArray[np.uint8], NDArray[np.int64], Census]:
    """Return what can label pixels: geometries, ids, numbers of their features; and a census."""
    shapes = features.geometries
    empty = shapely.is_missing(shapes) | shapely.is_empty(shapes)
    invalid = ~empty & ~shapely.is_valid(shapes)
    shapes = shapes.copy()
    shapes[invalid] = shapely.make_valid(shapes[invalid])
    points = ~empty & (shapely.get_dimensions(shapes) == 0)
    unclassed = ~empty & ~points & (ids < 0)
    used = ~(empty | points | unclassed)
    numbers = (len(shapes), *(int(m.sum()) for m in (used, empty, invalid, points, unclassed)))
    parts, owner = shapely.get_parts(shapes[used], return_index=True)
    flat = shapely.get_dimensions(parts) > 0
    kept_ids = np.where(ids < 0, IGNORE, ids)[used].astype(np.uint8)
    owner = owner[flat]
    return parts[flat], kept_ids[owner], np.flatnonzero(used)[owner], Census(*numbers)
