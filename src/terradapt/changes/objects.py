"""Objects rather than pixels: regions of change, and footprints of a map that one has."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray

from terradapt.changes.looks import Looks, both_scenes
from terradapt.changes.raster import Pair
from terradapt.changes.roads import CHANGED, GONE, NEW
from terradapt.changes.sampling import Floats, placed, zonal_means, zones
from terradapt.changes.sides import VectorSide, name_key
from terradapt.errors import ConfigError
from terradapt.grid import Window
from terradapt.progress import Advance
from terradapt.raster import CRS, Georef, SceneReader
from terradapt.raster.georef import metric_crs, move_points
from terradapt.scene.options import STEPS
from terradapt.vector.lattice.metric import polygon_areas
from terradapt.vector.polygons.extract import PolygonOptions, polygonize_labels

_KINDS = 254
_BLOCK = 1024  # px; regions of change are small, and blocks of this side fit the caches
_COLUMNS = ("shapes", "state", "before", "after", "probability", "area", "feature")
_OVERLAP = 0.5
"""Share of a polygon that must be covered for it to be there still."""
_CORE = 0.25  # of a region, at least: one sure pixel is not an object
_LEAST_PAIRS = 20  # of matched polygons, for a shift


@dataclass(frozen=True)
class Objects:
    """P polygons that are new, gone or changed, the largest first.

    Attributes:
        shapes: (P,) shapely geometries in the CRS.
        state: (P,) ``new``, ``gone`` or ``changed``.
        before: (P,) class names.
        after: (P,) class names.
        probability: (P,) 0..1.
        area: (P,) in square units of ``unit``.
        feature: (P,) the number of the feature in the vector file, from 1; 0 where it is none.
        crs: The CRS or None.
        unit: As ``Georef.unit``.
    """

    shapes: NDArray[Any]
    state: NDArray[Any]
    before: NDArray[Any]
    after: NDArray[Any]
    probability: Floats
    area: Floats
    feature: NDArray[np.int64]
    crs: CRS | None = None
    unit: str = "m"

    def __len__(self) -> int:
        return len(self.shapes)

    def take(self, index: NDArray[Any]) -> Objects:
        """Return some of them."""
        return replace(self, **{name: getattr(self, name)[index] for name in _COLUMNS})

    def sorted(self) -> Objects:
        """Return them by area, the largest first."""
        return self.take(np.argsort(-self.area, kind="stable"))


def no_objects(crs: CRS | None = None, unit: str = "m") -> Objects:
    """Return none."""
    words, numbers = np.empty(0, object), np.empty(0)
    ids = np.empty(0, np.int64)
    return Objects(words, words, words, words, numbers, numbers, ids, crs, unit)


def joined_objects(parts: list[Objects]) -> Objects:
    """Return the objects of several lists as one, the largest first."""
    columns = {n: np.concatenate([getattr(p, n) for p in parts]) for n in _COLUMNS}
    return replace(parts[0], **columns).sorted()


class _Groups:
    """Regions of change as labels: a number for each kind, 0 elsewhere, 255 unseen."""

    def __init__(self, change: SceneReader, classes: SceneReader, pair: Pair, table: Any) -> None:
        self.change, self.classes, self.pair, self.table = change, classes, pair, table

    @property
    def georef(self) -> Georef:
        return self.pair.georef

    def kinds(self, window: Window) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]:
        """Return (H, W) steps of the probability, code of the pair of classes, and what is told."""
        steps, ids = self.change.read(window)[0][0], self.classes.read(window)[0]
        told = (steps != 255) & (steps >= round(self.pair.grow * STEPS)) & (ids[0] != ids[1])
        code = np.zeros(steps.shape, np.int32)
        before, after = (band[told].astype(np.int32) for band in ids)
        code[told] = before * len(self.pair.joined.names) + after
        return steps, code, told

    def labels(self, window: Window) -> NDArray[np.uint8]:
        steps, code, told = self.kinds(window)
        kinds = np.where(steps == 255, np.uint8(255), np.uint8(0))
        kinds[told] = self.table[code[told]]
        return kinds


@dataclass(frozen=True)
class _Tally:
    """Of each region: pixels seen, sure ones, the sum of their steps; (P, M) of each code."""

    seen: NDArray[np.int64]
    sure: NDArray[np.int64]
    total: NDArray[np.int64]
    own: NDArray[np.int64]


def _tallied(
    source: _Groups, shapes: NDArray[Any], codes: NDArray[Any], core: int, looks: Looks | None
) -> _Tally:
    """Count the pixels of regions, (column, row) of pixel corners, and look at their cores."""
    seen, sure, total = np.zeros((3, len(shapes)), np.int64)
    own = np.zeros((len(shapes), len(codes)), np.int64)
    for window, here, zone in zones(shapes, source.georef):
        steps, code, told = (v.ravel() for v in source.kinds(window))
        many = len(here)
        inside = np.flatnonzero((zone > 0) & (steps != 255))
        seen[here] += np.bincount(zone[inside] - 1, minlength=many)
        inside = inside[told[inside]]
        known, step = zone[inside] - 1, steps[inside]
        which = known * len(codes) + np.searchsorted(codes, code[inside])
        own[here] += np.bincount(which, minlength=many * len(codes)).reshape(many, -1)
        certain = step >= core
        known, step, inside = known[certain], step[certain], inside[certain]
        sure[here] += np.bincount(known, minlength=many)
        total[here] += np.bincount(known, step, minlength=many).astype(np.int64)
        if looks is not None:
            looks.add(window, ~told & (steps != 255), here[known], inside)
    return _Tally(seen, sure, total, own)


def changed_regions(
    pair: Pair,
    change: Path,
    classes: Path,
    pixels: dict[int, int],
    min_area: float,
    states: NDArray[Any],
    advance: Advance | None = None,
    unlike: float = 0.0,
) -> tuple[Objects, int]:
    """Return connected regions of change, with the mean probability of their core.

    What is new is one region whatever was there before, what is gone whatever came after it, and
    other ground that changed is one whatever it was: its classes are those of most of it. A region
    reaches as far as the probability is ``pair.grow``, and a quarter of it at least is its core,
    where it is ``pair.threshold``. Regions smaller than ``min_area`` join the neighbour with the
    longest common border, which may be ground without a change. Where both sides are scenes, a
    region whose ground looks as it did is none.

    Args:
        pair: The two sides.
        change: What :func:`terradapt.changes.raster.write_change` wrote.
        classes: The same.
        pixels: Changed pixels of each pair of classes, ``before * K + after``.
        min_area: Square metres.
        states: (K, K) state of each pair of classes.
        advance: Called with 1 after each block.
        unlike: By how much the imagery of a region differs at least; see :mod:`.looks`.

    Returns:
        The regions, and how many were left out since they look alike.

    Raises:
        ConfigError: More kinds of change than 254.
    """
    names = np.array(pair.joined.names, object)
    count, georef = len(names), pair.georef
    if not pixels:
        return no_objects(georef.crs, georef.unit), 0
    codes = np.array(sorted(pixels))
    before, after = codes // count, codes % count
    state = states[before, after]
    kind = np.where(state == NEW, 1 + after, np.where(state == GONE, 1 + count + before, 0))
    kinds, number = np.unique(kind, return_inverse=True)
    if len(kinds) > _KINDS:
        raise ConfigError(
            f"{len(kinds)} kinds of change are more than {_KINDS}",
            "name the classes to look at: --classes",
        )
    table = np.zeros(count * count, np.int64)
    table[codes] = number + 1
    core = round(pair.threshold * STEPS)
    with SceneReader(change) as reader, SceneReader(classes) as ids, ExitStack() as stack:
        source = _Groups(reader, ids, pair, table)
        found = polygonize_labels(source, PolygonOptions(min_area=min_area, block=_BLOCK), advance)
        kept = np.flatnonzero(found.value > 0)
        kept = kept[found.area[kept] >= min_area * (1 - 1e-9)]
        shapes = found.shapes[kept]
        scenes = both_scenes(pair, stack) if unlike > 0 else None
        looks = None if scenes is None else Looks(scenes, len(kept))
        tally = _tallied(source, placed(shapes, georef), codes, core, looks)
    own = tally.own * (table[codes][None] == found.value[kept][:, None])
    most = own.argmax(axis=1) if len(kept) else np.empty(0, np.int64)
    objects = Objects(
        shapes,
        state[most],
        names[before[most]],
        names[after[most]],
        tally.total / np.maximum(tally.sure, 1) / STEPS,
        found.area[kept],
        np.zeros(len(kept), np.int64),
        georef.crs,
        georef.unit,
    )
    told = tally.sure >= _CORE * np.maximum(tally.seen, 1)
    alike = np.zeros(len(kept), bool) if looks is None else looks.unlike < unlike
    return objects.take(told & ~alike).sorted(), int((told & alike).sum())


def footprints(pair: Pair, min_area: float) -> tuple[Objects, int]:
    """Return the vector side's polygons whose class the other side does not show.

    A polygon of OLD is gone, one of NEW is new, where the mean probability of its class over its
    footprint is low: their probability is one minus that mean.

    Args:
        pair: One side is vectors.
        min_area: Smaller polygons are not told, square metres.

    Returns:
        The polygons as they stand in the file, in the grid's CRS; and how many were not looked at.
    """
    is_old = isinstance(pair.old, VectorSide)
    side = pair.old if is_old else pair.new
    assert isinstance(side, VectorSide)
    georef, names = pair.georef, pair.joined.names
    moved = side.moved_to(georef.crs)
    shift = pair.shift if is_old else (0.0, 0.0)
    shapes = placed(moved.polygons, georef, shift)
    table = dict(zip(side.names, pair.joined.old if is_old else pair.joined.new, strict=True))
    kind = np.array([table[k] for k in side.kinds], np.int64)
    with ExitStack() as stack:
        other = pair.open_sides(stack)[1 if is_old else 0]

        def read(window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
            shares, valid = other.read(window)
            return shares, valid & pair.looked_at(window)

        means, pixels, seen = zonal_means(shapes, georef, read, len(names))
    own = means[np.arange(len(kind)), kind]
    looked = (pixels > 0) & (2 * seen >= pixels) & (kind != pair.joined.rest)
    area = _areas(shapes, georef)
    absent = 1 - np.nan_to_num(own)
    told = np.flatnonzero(looked & (absent >= pair.threshold) & (area >= min_area))
    best = np.nan_to_num(means).argmax(axis=1)
    shown = np.array(names, object)
    mine, theirs = shown[kind[told]], shown[best[told]]
    found = Objects(
        moved.polygons[told],
        np.full(len(told), GONE if is_old else NEW, object),
        mine if is_old else theirs,
        theirs if is_old else mine,
        absent[told],
        area[told],
        side.features[told],
        georef.crs,
        georef.unit,
    )
    return found.sorted(), int((~looked).sum())


def matched_polygons(
    old: VectorSide,
    new: VectorSide,
    min_area: float,
    area: tuple[Any, ...] = (),
    align: bool = True,
) -> tuple[Objects, tuple[float, float]]:
    """Match the polygons of two files by overlap, after the shift that most of them have.

    A polygon of which less than half is covered by polygons of its class is gone, or new; one that
    is covered by another class, or with another outline (less than half of their union is common)
    has changed.

    Args:
        old: The earlier polygons.
        new: The later ones.
        min_area: Smaller polygons are not told, square metres.
        area: What is looked at, in the new file's CRS; everywhere when empty.
        align: Take the median shift of matched polygons out.

    Returns:
        The polygons in the new file's CRS, and the metres east and north by which the old file
        lies off.
    """
    frame = metric_frame([*new.polygons, *old.moved_to(new.crs).polygons], new.crs)
    sides = [side.moved_to(frame.crs) for side in (old, new)]
    before, after = (shapely.transform(s.polygons, lambda xy: xy) for s in sides)
    shift = np.zeros(2)
    if align:
        one, two = shapely.STRtree(after).query(before, predicate="intersects")
        centres = [shapely.get_coordinates(shapely.centroid(x)) for x in (before, after)]
        sizes = [shapely.area(x) for x in (before, after)]
        like = np.abs(np.log(sizes[0][one] / np.maximum(sizes[1][two], 1e-9))) < 0.1
        off = centres[0][one[like]] - centres[1][two[like]]
        if len(off) >= _LEAST_PAIRS:
            shift = np.median(off, axis=0)
            before = shapely.transform(before, lambda xy: xy - shift)
    states, covered, partners = [], [], []
    for mine, theirs, kinds, others in (
        (before, after, sides[0].kinds, sides[1].kinds),
        (after, before, sides[1].kinds, sides[0].kinds),
    ):
        one, two = shapely.STRtree(theirs).query(mine, predicate="intersects")
        common = shapely.area(shapely.intersection(mine[one], theirs[two]))
        keys = [np.array([name_key(k) for k in x], object) for x in (kinds, others)]
        same = keys[0][one] == keys[1][two]
        size = np.maximum(shapely.area(mine), 1e-9)
        by_same = np.bincount(one[same], common[same], minlength=len(mine)) / size
        by_other = np.bincount(one[~same], common[~same], minlength=len(mine)) / size
        best = np.full(len(mine), -1)
        order = np.lexsort((common, one))
        best[one[order]] = two[order]
        at = np.flatnonzero(best >= 0)
        union = np.zeros(len(mine))
        meet = shapely.area(shapely.intersection(mine[at], theirs[best[at]]))
        union[at] = meet / (shapely.area(mine[at]) + shapely.area(theirs[best[at]]) - meet)
        states.append((by_same >= _OVERLAP, by_other >= _OVERLAP, union))
        covered.append(np.clip(np.maximum(by_same, by_other), 0, 1))
        partners.append(best)
    (kept_old, other_old, _), (kept_new, other_new, union) = states
    gone = np.flatnonzero(~kept_old & ~other_old)
    fresh = np.flatnonzero(~kept_new & ~other_new)
    another = np.flatnonzero((~kept_new & other_new) | (kept_new & (union < _OVERLAP)))
    here = sides[1].polygons
    shapes = np.concatenate([here[fresh], here[another], sides[0].polygons[gone]])
    names = [s.kinds for s in sides]
    none = "other"
    before_names = [none] * len(fresh), names[0][partners[1][another]], names[0][gone]
    after_names = names[1][fresh], names[1][another], [none] * len(gone)
    objects = Objects(
        shapes,
        np.array([NEW] * len(fresh) + [CHANGED] * len(another) + [GONE] * len(gone), object),
        np.concatenate([np.asarray(x, object) for x in before_names]),
        np.concatenate([np.asarray(x, object) for x in after_names]),
        np.concatenate([1 - covered[1][fresh], 1 - union[another], 1 - covered[0][gone]]),
        _areas(placed(shapes, frame), frame),
        np.concatenate(
            [sides[1].features[fresh], sides[1].features[another], sides[0].features[gone]]
        ),
        frame.crs,
        frame.unit,
    )
    kept = objects.area >= min_area
    objects = _in_crs(objects.take(kept), new.crs)
    if area:
        inside = shapely.intersects(objects.shapes, shapely.union_all(list(area)))
        objects = objects.take(inside)
    return objects.sorted(), (float(shift[0]), float(shift[1]))


def metric_frame(shapes: list[Any], crs: CRS | None) -> Georef:
    """Return a grid of pixels of one metre around geometries, in the UTM zone of their middle.

    Args:
        shapes: The geometries.
        crs: Their CRS; without one a unit is a metre.
    """
    bounds = shapely.total_bounds(np.array(shapes, object))
    if crs is not None:
        middle = (bounds[0] + bounds[2]) / 2, (bounds[1] + bounds[3]) / 2
        target = metric_crs(crs, *middle)
        west, south, east, north = bounds
        corners = np.array([[west, south], [west, north], [east, north], [east, south]])
        moved = move_points(corners, crs, target)
        bounds = np.concatenate([moved.min(axis=0), moved.max(axis=0)])
        crs = target
    west, south, east, north = bounds + np.array([-16, -16, 16, 16])
    size = int(np.ceil(north - south)), int(np.ceil(east - west))
    return Georef(Affine(1.0, 0.0, west, 0.0, -1.0, north), crs, *size)


def square_metres(shapes: list[Any], crs: CRS | None) -> float:
    """Return the area of polygons on the ellipsoid; without a CRS in its square units.

    Args:
        shapes: The polygons, without overlaps.
        crs: Their CRS.
    """
    frame = metric_frame(shapes, crs)
    moved = np.array(shapes, object)
    if crs is not None and frame.crs is not None:
        moved = shapely.transform(moved, lambda xy: move_points(xy, crs, frame.crs))
    return float(_areas(placed(np.asarray(moved), frame), frame).sum())


def _in_crs(objects: Objects, crs: CRS | None) -> Objects:
    if crs is None or objects.crs is None or crs == objects.crs:
        return replace(objects, crs=crs)
    shapes = shapely.transform(objects.shapes, lambda xy: move_points(xy, objects.crs, crs))
    return replace(objects, shapes=np.asarray(shapes, object), crs=crs)


def _areas(shapes: NDArray[Any], georef: Georef) -> Floats:
    """(P,) square metres of polygons and multipolygons in (column, row)."""
    parts, owner = shapely.get_parts(shapes, return_index=True)
    flat = np.flatnonzero(shapely.get_type_id(parts) == 3)
    sums = np.bincount(owner[flat], polygon_areas(parts[flat], georef), minlength=len(shapes))
    return sums.astype(np.float64)
