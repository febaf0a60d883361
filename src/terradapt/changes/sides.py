"""Sides: what OLD and NEW are. A scene, a class map with or without scores, or vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from terradapt.classes import IGNORE, Colour, default_colours
from terradapt.errors import DataError, SceneError, one_of
from terradapt.grid import Window
from terradapt.raster import (
    CRS,
    Georef,
    ScenePath,
    SceneReader,
    layer_names,
    open_scene,
    read_layer,
)
from terradapt.raster.georef import crs_name, move_points
from terradapt.raster.vectors import VECTOR_SUFFIXES
from terradapt.vector.files import is_mask, raster_classes

OTHER = "other"
"""What classes that only one side has are taken as."""
ROAD = "road"
_NOTHING = {"background", "other", "clutter", "unlabelled", "unknown", "rest"}
_BLANK = {"", "None", "nan"}
_LOOK, _PLACES = 256, 9  # px of a side, and how many places along the diagonal, are looked at
_MOST_IDS = 64  # values that a class map without names has
_STRIP = 1 << 24  # pixels read at a time


@dataclass(frozen=True)
class MapSide:
    """A class map, or a scene that becomes one.

    Attributes:
        path: The class raster; of a scene the map that a model makes of it.
        georef: Where it lies.
        names: Name of each id.
        colours: RGB of each id.
        scores: Class probabilities on the same grid; None takes the map's classes for certain.
        scene: The imagery, for pictures; None where there is only the map.
        mask: It is a mask of 0 and 255, and 255 is class 1.
        surety: How far the scores are probabilities, in words.
    """

    path: Path
    georef: Georef
    names: tuple[str, ...]
    colours: tuple[Colour, ...]
    scores: Path | None = None
    scene: ScenePath | None = None
    mask: bool = False
    surety: str = ""

    @property
    def files(self) -> list[Path]:
        """What it is read from."""
        scene = self.scene
        scenes = [] if scene is None else [scene] if isinstance(scene, str | Path) else list(scene)
        return [self.path, *([self.scores] if self.scores else []), *map(Path, map(str, scenes))]

    def absolute(self) -> MapSide:
        """Return it by paths that mean the same in every folder."""
        scores = self.scores and self.scores.absolute()
        return replace(self, path=self.path.absolute(), scores=scores)


@dataclass(frozen=True)
class VectorSide:
    """Polygons and lines of a vector file.

    Attributes:
        path: The file.
        crs: Its CRS; None if unknown.
        polygons: (P,) shapely polygons.
        kinds: (P,) the class of each.
        features: (P,) the number of each in its layer, from 1.
        lines: (L,) road centrelines.
    """

    path: Path
    crs: CRS | None
    polygons: NDArray[Any]
    kinds: NDArray[Any]
    features: NDArray[np.int64]
    lines: NDArray[Any] = field(default_factory=lambda: np.empty(0, object))

    @property
    def names(self) -> tuple[str, ...]:
        """The classes of its polygons."""
        return tuple(sorted(set(self.kinds.tolist())))

    @property
    def files(self) -> list[Path]:
        """What it is read from."""
        return [self.path]

    def absolute(self) -> VectorSide:
        """Return it as it is: its features travel with it."""
        return self

    def moved_to(self, crs: CRS | None) -> VectorSide:
        """Return it in another CRS; without one on either side as it is."""
        if crs is None or self.crs is None or crs == self.crs:
            return replace(self, crs=crs or self.crs)

        def move(xy: NDArray[np.float64]) -> NDArray[np.float64]:
            return move_points(xy, self.crs, crs)

        polygons, lines = (shapely.transform(x, move) for x in (self.polygons, self.lines))
        return replace(self, crs=crs, polygons=np.asarray(polygons), lines=np.asarray(lines))


Side = MapSide | VectorSide


def is_vector(path: ScenePath) -> bool:
    """Tell whether a path is a vector file's, by its name."""
    return isinstance(path, str | Path) and Path(path).suffix.lower() in VECTOR_SUFFIXES


def is_map(path: ScenePath) -> bool:
    """Tell whether a path is a class map and no scene.

    A map says its classes, or has one band of integers with a colour table or with few values: a
    panchromatic scene has many.

    Raises:
        SceneError: The file cannot be read.
    """
    if not isinstance(path, str | Path) or Path(path).is_dir():
        return False
    with SceneReader(path) as reader:
        if np.dtype(reader.dtype).kind not in "iu":
            return False
        if "TERRADAPT_CLASSES" in reader.tags:
            return True
        if len(reader.data_bands) != 1:
            return False
        side = min(_LOOK, reader.height, reader.width)
        values: set[int] = set()
        for row, col in np.linspace((0, 0), (reader.height - side, reader.width - side), _PLACES):
            pixels, valid = reader.read(Window(round(row), round(col), side, side))
            values |= set(np.unique(pixels[0][valid]).tolist())
    return len(values) <= _MOST_IDS or bool(raster_classes(Path(path)).names)


def open_vectors(path: str | Path, named: str | None = None) -> VectorSide:
    """Read the polygons and lines of all layers of a vector file.

    Args:
        path: The file.
        named: The class of features in a layer without the column ``class``; None: polygons are
            buildings. Lines are always roads.

    Raises:
        DataError: It cannot be read, has no polygons and no lines, or layers of several CRSs.
        MissingExtraError: pyogrio is not installed.
    """
    path = Path(path)
    polygons, kinds, features, lines, crs = [], [], [], [], None
    layers = layer_names(path)
    for number, name in enumerate(layers):
        found = read_layer(path, name)
        if number and found.crs != crs:
            raise DataError(f"{path}: its layers have several CRSs", "save them in one CRS")
        crs = found.crs
        kind = shapely.get_type_id(found.geometries)
        surface = np.flatnonzero(np.isin(kind, (3, 6)) & ~shapely.is_empty(found.geometries))
        polygons.append(shapely.make_valid(found.geometries[surface]))
        own = found.columns.get("class")
        known = [None] * len(surface) if own is None else own[surface].tolist()
        told = [named or "building" if str(v) in _BLANK else str(v) for v in known]
        kinds.append(np.array(told, object))
        features.append(surface + 1)
        line = found.geometries[np.isin(kind, (1, 5))]
        lines.append(line[~shapely.is_empty(line)])
    side = VectorSide(
        path,
        crs,
        np.concatenate([np.empty(0, object), *polygons]),
        np.concatenate([np.empty(0, object), *kinds]),
        np.concatenate([np.empty(0, np.int64), *features]),
        np.concatenate([np.empty(0, object), *lines]),
    )
    if not len(side.polygons) and not len(side.lines):
        raise DataError(
            f"{path}: has no polygons and no lines",
            "give a file of buildings, land cover or road centrelines",
        )
    return side


def open_map(path: str | Path, named: str | None = None) -> MapSide:
    """Open a class map; scores that ``terradapt predict --scores`` wrote beside it are used.

    Args:
        path: The class raster.
        named: What 255 is in a mask of 0 and 255.

    Raises:
        SceneError: It cannot be read.
        DataError: It holds no class ids.
    """
    path = Path(path)
    known = raster_classes(path)
    with SceneReader(path) as reader:
        georef = reader.georef
        if np.dtype(reader.dtype).kind not in "iu":
            raise DataError(
                f"{path}: holds {reader.dtype} values, not class ids", "give a class map"
            )
    mask = is_mask(path)
    if known.names:
        count = max(known.names) + 1
        names = tuple(known.names.get(i, str(i)) for i in range(count))
        colours = tuple(known.colours.get(i, (0, 0, 0)) for i in range(count))
    else:
        names = ("background", named or "1") if mask else _ids(path)
        colours = default_colours(names)
    scores = path.with_name(f"{path.stem}_scores.tif")
    surety = "no scores: the map's classes are taken for certain"
    if not scores.is_file() or not known.names:
        return MapSide(path, georef, names, colours, mask=mask, surety=surety)
    with SceneReader(scores) as reader:
        same = (reader.height, reader.width) == (georef.height, georef.width)
        if not same or reader.count != len(names):
            return MapSide(path, georef, names, colours, mask=mask, surety=surety)
        surety = reader.tags.get("TERRADAPT_CONFIDENCE", "not known to be calibrated")
    return MapSide(path, georef, names, colours, scores, surety=surety)


def place_of(scene: ScenePath, allow_remote: bool = False) -> Georef:
    """Return where a scene lies.

    Raises:
        SceneError: It cannot be read.
    """
    with open_scene(scene, None, allow_remote=allow_remote) as source:
        return source.georef


@dataclass(frozen=True)
class Joined:
    """The classes of both sides, joined by name.

    Attributes:
        names: K names; the first is ``other`` where a side has classes that the other lacks.
        old: Of each id of the old side its joined id; of vectors, of each of their names.
        new: The same of the new side.
        alone: Classes of the old side, and of the new one, that the other lacks.
        rest: The joined id of what is in no polygon.
    """

    names: tuple[str, ...]
    old: tuple[int, ...]
    new: tuple[int, ...]
    alone: tuple[tuple[str, ...], tuple[str, ...]]
    rest: int = 0

    def rank(self, things: Sequence[str]) -> NDArray[np.int64]:
        """(K,) 0 for nothing in particular, 1 for ground that is always something, 2 for things."""
        known = {name_key(t) for t in things}
        keys = [name_key(n) for n in self.names]
        return np.array([2 if k in known else 0 if k in _NOTHING else 1 for k in keys])


def match_classes(old: Side, new: Side, wanted: Sequence[str] = ()) -> Joined:
    """Join the classes of two sides by name: capitals and a plural do not count.

    Args:
        old: A map, or vectors with polygons.
        new: The same.
        wanted: Names to look at; all when empty.

    Raises:
        DataError: No class is in both, or one that is wanted or that the vectors have is not.
    """
    sides = (old, new)
    keys = [[name_key(n) for n in s.names] for s in sides]
    both = [n for n in new.names if name_key(n) in keys[0]]
    lists = "; ".join(f"{s.path} has {', '.join(s.names) or 'none'}" for s in sides)
    for side, others in ((old, keys[1]), (new, keys[0])):
        lost = [n for n in side.names if name_key(n) not in others]
        if isinstance(side, VectorSide) and len(lost) == len(side.names):
            raise DataError(
                f"{side.path}: its class {', '.join(lost)} is not on the other side; {lists}",
                "say what its features are: --old-class or --new-class",
            )
    for name in wanted:
        if name_key(name) not in {name_key(n) for n in both}:
            raise DataError(f"class '{name}' is not on both sides; {lists}", one_of(name, both))
    if not [n for n in both if name_key(n) not in _NOTHING]:
        raise DataError(f"no class is on both sides; {lists}", "give maps of the same classes")
    if wanted:
        both = [n for n in both if name_key(n) in {name_key(w) for w in wanted}]
    index = {name_key(n): i for i, n in enumerate(both)}
    vector = any(isinstance(s, VectorSide) for s in sides)
    short = vector or any(k not in index for side in keys for k in side)
    start = int(short and not any(name_key(n) in _NOTHING for n in both))
    fallback = next((i for n, i in index.items() if n in _NOTHING), 0)
    tables = [tuple(index[k] + start if k in index else fallback for k in side) for side in keys]
    alone = [
        tuple(n for n, k in zip(s.names, ks, strict=True) if k not in index)
        for s, ks in zip(sides, keys, strict=True)
    ]
    return Joined(
        ((OTHER,) * start) + tuple(both), tables[0], tables[1], (alone[0], alone[1]), fallback
    )


def name_key(name: str) -> str:
    """Return what a class name is joined by: lower case, without a plural's s."""
    key = " ".join(name.casefold().replace("_", " ").replace("-", " ").split())
    return key[:-1] if key.endswith("s") and len(key) > 3 else key


def road_id(side: Side) -> int | None:
    """Return the id of a map's road class; None where it has none."""
    found = [i for i, n in enumerate(side.names) if name_key(n) == ROAD]
    return found[0] if found and isinstance(side, MapSide) else None


def common_ground(old: Side, new: Side, resolution: float | None = None) -> Georef:
    """Return the grid that two sides are compared on: where both lie, at the coarser's pixels.

    Args:
        old: One is a map.
        new: The same.
        resolution: Metres per pixel instead.

    Raises:
        SceneError: They do not overlap, or only one has a CRS.
        DataError: The same of vectors.
    """
    maps = [s for s in (new, old) if isinstance(s, MapSide)]
    base = max(maps, key=lambda s: _pixel(s.georef))
    other = old if base is new else new
    own = base.georef
    theirs = other.georef.crs if isinstance(other, MapSide) else other.crs
    if (own.crs is None) != (theirs is None):
        bare = base if own.crs is None else other
        raise SceneError(
            f"{bare.path}: has no CRS, the other side has one",
            "give it the right CRS: gdal_edit.py -a_srs EPSG:n",
        )
    if isinstance(other, MapSide):
        around = other.georef.outline(16)
    else:
        shapes = np.concatenate([other.polygons, other.lines])
        west, south, east, north = shapely.total_bounds(shapes)
        around = np.array([[west, south], [west, north], [east, north], [east, south]])
    if own.crs is not None and not own.same_place(theirs):
        around = move_points(around, theirs, own.crs)
    places = own.pixels(around) + 0.5
    low, high = np.floor(places.min(axis=0) + 1e-6), np.ceil(places.max(axis=0) - 1e-6)
    known = bool(np.isfinite(places).all())
    size = high - low if known else np.zeros(2)
    box = (
        Window(int(low[0]), int(low[1]), int(size[0]), int(size[1]))
        if known
        else Window(0, 0, 0, 0)
    )
    whole = Window(0, 0, own.height, own.width)
    inside = box.intersect(whole) if box.height > 0 and box.width > 0 else None
    if inside is None:
        where = [crs_name(c) for c in (own.crs, theirs)]
        error = SceneError if isinstance(other, MapSide) else DataError
        raise error(
            f"{old.path} and {new.path} do not overlap ({where[0]}, {where[1]})",
            "give two sides of the same place, and check their CRS",
        )
    georef = own.crop(inside) if isinstance(other, MapSide) else own
    if resolution is None or not (has := own.resolution):
        return georef
    zoom = has / resolution
    return georef.zoom(max(1, round(georef.height * zoom)), max(1, round(georef.width * zoom)))


def _pixel(georef: Georef) -> float:
    return float(georef.resolution or np.sqrt(abs(georef.transform.determinant)))


def _ids(path: Path) -> tuple[str, ...]:
    """Name the ids of a map without names by themselves."""
    most = 0
    with SceneReader(path) as reader:
        rows = max(1, _STRIP // reader.width)
        for row in range(0, reader.height, rows):
            window = Window(row, 0, min(rows, reader.height - row), reader.width)
            pixels, valid = reader.read(window)
            values = pixels[0][valid & (pixels[0] != IGNORE)]
            low, high = int(values.min(initial=0)), int(values.max(initial=0))
            if low < 0 or high > IGNORE:
                raise DataError(f"{path}: has values beyond 0 to 255", "save 8 bit class ids")
            most = max(most, high)
    return tuple(map(str, range(most + 1)))
