"""ShownRaster: a raster as the page shows it, in its own pixels."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from terradapt.classes import IGNORE, ClassMap, default_colours
from terradapt.config import InputSpec
from terradapt.errors import DataError, SceneError
from terradapt.files import Closing, stamp
from terradapt.grid import Window
from terradapt.raster import (
    CRS,
    Georef,
    Scene,
    ScenePath,
    SceneReader,
    names_image,
    open_scene,
    read_layer,
    upright,
)
from terradapt.raster.georef import crs_name, move_points
from terradapt.viewer.png import colour_png, indexed_png
from terradapt.viewer.pyramid import Pyramid
from terradapt.viewer.recent import Recent

_KEPT = 48 << 20  # bytes of pictures of coarse tiles
_MOST_SHOWN = 4000  # vector features in an answer


class ShownRaster(Closing):
    """A raster, its pyramid and its coarse tiles; may be read from several threads.

    Args:
        scene: What is shown.
        draw: Pixels (C, H, W) and valid (H, W) to a PNG.
    """

    def __init__(
        self, scene: Scene, draw: Callable[[NDArray[np.uint8], NDArray[np.bool_]], bytes]
    ) -> None:
        self.scene, self.draw = scene, draw
        self.path = Path(str(scene.path))
        self.pyramid = Pyramid(scene.height, scene.width)
        self._files = tuple(Path(str(f)) for f in scene.files)
        self._stamps = self._stamped()
        self._lock = threading.Lock()
        self._kept = Recent[bytes](_KEPT)

    def close(self) -> None:
        """Close the files."""
        with self._lock:
            self.scene.close()

    def tile(self, level: int, x: int, y: int) -> bytes | None:
        """Return a tile's PNG, None where there is no such tile.

        Raises:
            SceneError: This part of the file cannot be read.
        """
        window = self.pyramid.tile(level, x, y)
        if window is None:
            return None
        key = (level, x, y)
        known = self._kept.get(key)
        if known is not None:
            return known
        with self._lock:
            side, step = self.pyramid.side(level), 1 << level
            small = Window(window.row >> level, window.col >> level, side, side)
            pixels, valid = self.scene.thinned(small, step)
        picture = self.draw(pixels, valid)
        if level:
            self._kept.put(key, picture, len(picture))
        return picture

    def read(self, window: Window) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Read a window at full resolution."""
        with self._lock:
            return self.scene.read(window)

    def changed(self) -> bool:
        """Tell whether a file of it is another one than when it was opened, or gone."""
        return self._stamped() != self._stamps

    def _stamped(self) -> list[list[int]]:
        return [stamp(f) for f in self._files]


def show_image(path: ScenePath, spec: InputSpec | None = None, **options: object) -> ShownRaster:
    """Open an image: with a model's bands and stretch, or as its own values suggest.

    Args:
        path: A file, a folder or several files.
        spec: Of the model that reads it.
        options: Further ones of :func:`terradapt.raster.open_scene`.

    Raises:
        SceneError: It cannot be read.
    """
    if spec is None:
        with open_scene(path) as raw:
            count = len(getattr(raw, "data_bands", ())) or int(getattr(raw, "count", 1))
            bands = (1, 2, 3) if count >= 3 else (1, 1, 1)
            stretch = None if raw.dtype == "uint8" else (2.0, 98.0)
            spec = InputSpec(bands=bands, dtype=raw.dtype, stretch=stretch)
    return ShownRaster(open_scene(path, spec, **options), _photo)


def show_classes(path: Path, classes: ClassMap | None = None) -> tuple[ShownRaster, ClassMap]:
    """Open a raster of class ids; its classes are those that it names, else its values.

    Raises:
        SceneError: It cannot be read.
        DataError: It holds no class ids.
    """
    from terradapt.vector.files import is_mask, raster_classes

    known = raster_classes(path)
    reader = SceneReader(path)
    try:
        if reader.count != 1 or reader.dtype not in ("uint8", "int16", "uint16", "int32"):
            raise DataError(
                f"{path}: is no class map ({reader.count} bands of {reader.dtype})",
                "give a map of class ids, or show it beside one with --image",
            )
        if known.names:
            count = max(known.names) + 1
            names = tuple(known.names.get(i, f"class {i}") for i in range(count))
            classes = ClassMap(names, tuple(known.colours[i] for i in range(count)))
        if classes is None:
            step = max(1, max(reader.height, reader.width) // 2048)
            size = Window(0, 0, max(1, reader.height // step), max(1, reader.width // step))
            values, valid = reader.thinned(size, step)
            most = int(values[0][valid & (values[0] < IGNORE)].max(initial=1))
            names = tuple(f"class {i}" for i in range(max(2, most + 1)))
            if is_mask(path):
                names = ("background", path.stem)
            classes = ClassMap(names, default_colours(names))
    except BaseException:
        reader.close()
        raise
    palette, mask = classes.palette, is_mask(path)

    def draw(pixels: NDArray[np.uint8], valid: NDArray[np.bool_]) -> bytes:
        return indexed_png(_ids(pixels[0], valid, mask), palette)

    return ShownRaster(reader, draw), classes


def class_at(shown: ShownRaster, row: int, col: int) -> int | None:
    """Return the id of a pixel of a class raster, None where it has no data."""
    values, valid = shown.read(Window(row, col, 1, 1))
    value = int(values[0, 0, 0])
    return value if valid[0, 0] and value < IGNORE else None


def _ids(values: NDArray[np.uint8], valid: NDArray[np.bool_], mask: bool) -> NDArray[np.uint8]:
    if mask:
        return np.where(valid, (values > 0).astype(np.uint8), IGNORE)
    return np.where(valid & (values >= 0) & (values < IGNORE), values, IGNORE).astype(np.uint8)


def _photo(pixels: NDArray[np.uint8], valid: NDArray[np.bool_]) -> bytes:
    rgb = pixels[:3] if len(pixels) >= 3 else np.repeat(pixels[:1], 3, axis=0)
    planes = [*rgb] if valid.all() else [*rgb, (valid * np.uint8(255)).astype(np.uint8)]
    return colour_png(np.ascontiguousarray(np.stack(planes, axis=2)))


class Features:
    """A vector file of the user in a scene's pixels, read again when it changes.

    Args:
        path: Any vector file.
        georef: Of the scene.
        scene: Its file: shapes that name another one are left out where there is no CRS.
    """

    def __init__(self, path: Path, georef: Georef, scene: Path) -> None:
        self.path, self.georef, self.scene = path, georef, scene
        self._lock = threading.Lock()
        self._stamp: list[int] | None = None
        self._shapes = np.empty(0, object)
        self._names: list[str] = []
        self._tree = shapely.STRtree([])
        self.load()

    def load(self) -> None:
        """Read the file if it has changed.

        Raises:
            DataError: It cannot be read, or has no place on the scene.
        """
        now = stamp(self.path)
        if now == self._stamp:
            return
        layer = read_layer(self.path)
        named = layer.images if self.georef.crs is None else None
        if layer.crs is not None and self.georef.crs is None and named is None:
            raise DataError(
                f"{self.path}: has a CRS ({crs_name(layer.crs)}), the scene has none",
                "georeference the scene",
            )
        kept = ~(shapely.is_missing(layer.geometries) | shapely.is_empty(layer.geometries))
        if named is not None:
            kept &= [not text or names_image(text, self.scene) for text in named]
        shapes = (
            layer.geometries[kept]
            if named is None
            else upright(layer.geometries[kept], self.georef)
        )
        shapes = to_pixels(shapes, layer.crs, self.georef)
        column = next((c for c in ("class", "name", "label") if c in layer.columns), None)
        texts = layer.columns[column][kept].tolist() if column else [""] * len(shapes)
        with self._lock:
            self._stamp, self._shapes = now, shapes
            self._names = ["" if t is None else str(t) for t in texts]
            self._tree = shapely.STRtree(shapes)

    def within(self, window: Window) -> list[tuple[str, BaseGeometry]]:
        """Return (name, geometry in pixels: x right, y down) of features that touch a window."""
        box = shapely.box(window.col, window.row, window.right, window.bottom)
        with self._lock:
            hits = np.sort(self._tree.query(box))[:_MOST_SHOWN]
            return [(self._names[i], self._shapes[i]) for i in hits]

    def __len__(self) -> int:
        return len(self._shapes)


def to_pixels(shapes: NDArray[np.object_], crs: CRS | None, georef: Georef) -> NDArray[np.object_]:
    """Return geometries of a CRS in a scene's pixels: x right, y down, corners whole numbers."""

    def place(points: NDArray[np.float64]) -> NDArray[np.float64]:
        if crs is not None and georef.crs is not None:
            points = move_points(points, crs, georef.crs)
        return georef.pixels(points)[:, ::-1] + 0.5

    return np.asarray(shapely.transform(shapes, place))


def from_pixels(shapes: NDArray[np.object_], georef: Georef) -> NDArray[np.object_]:
    """Return geometries of a scene's pixels in its CRS."""
    return np.asarray(shapely.transform(shapes, lambda xy: georef.xy(xy[:, ::-1] - 0.5)))


def lonlat(georef: Georef, x: float, y: float) -> tuple[float, float] | None:
    """Return longitude and latitude of a place in pixels, None without a CRS."""
    if georef.crs is None:
        return None
    point = georef.xy(np.array([[y - 0.5, x - 0.5]]))
    try:
        lon, lat = move_points(point, georef.crs, CRS.from_epsg(4326))[0].tolist()
    except (DataError, SceneError):
        return None
    return (lon, lat) if np.isfinite([lon, lat]).all() else None


def as_feature(shape: BaseGeometry, properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return a geometry in pixels as GeoJSON, y upwards as the page has it."""
    flipped = shapely.transform(shape, lambda xy: xy * [1, -1])
    geometry = shapely.geometry.mapping(flipped)
    return {"type": "Feature", "geometry": geometry, "properties": dict(properties)}
