"""Roads of any two sides: centrelines of a file, or the network of a map's road class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from terradapt.changes.objects import metric_frame
from terradapt.changes.options import CompareOptions
from terradapt.changes.raster import Pair
from terradapt.changes.roads import CHANGED, GONE, NEW, STATES, compare_roads, crossings
from terradapt.changes.sampling import Floats, MapSampler, values_at
from terradapt.changes.sides import MapSide, Side, VectorSide, road_id
from terradapt.errors import DataError
from terradapt.metrics.network import Roads
from terradapt.progress import Advance
from terradapt.raster import CRS, Georef
from terradapt.raster.georef import move_points
from terradapt.vector.lattice.metric import line_lengths
from terradapt.vector.roads.extract import road_network
from terradapt.vector.roads.source import RasterSource

_SPACING = 2.0  # m between places at which scores are read
_EDGE = 0.5  # of a pixel


@dataclass(frozen=True)
class Edges:
    """N pieces of road that are new, gone or moved, the longest first.

    Attributes:
        lines: (N,) shapely LineStrings in the CRS.
        state: (N,) ``new``, ``gone`` or ``changed``.
        probability: (N,) 0..1.
        length: (N,) m on the ellipsoid.
        offset: (N,) m by which a moved road lies beside the old one; NaN for others.
        crs: The CRS or None.
        totals: Metres of both networks, ``before`` and ``after``, within what is looked at.
        notes: What should be known of them.
    """

    lines: NDArray[Any]
    state: NDArray[Any]
    probability: Floats
    length: Floats
    offset: Floats
    crs: CRS | None
    totals: dict[str, float]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.lines)


def no_edges(crs: CRS | None = None) -> Edges:
    """Return none."""
    words, numbers = np.empty(0, object), np.empty(0)
    return Edges(words, words, numbers, numbers, numbers, crs, {})


def has_roads(side: Side) -> bool:
    """Tell whether a side has roads: lines of a file, or a class of a map."""
    return bool(len(side.lines)) if isinstance(side, VectorSide) else road_id(side) is not None


def changed_edges(
    old: Side,
    new: Side,
    options: CompareOptions,
    *,
    pair: Pair | None = None,
    area: tuple[Any, ...] = (),
    advance: Advance | None = None,
) -> Edges:
    """Return the pieces of road that are new, gone or moved.

    Args:
        old: The earlier side.
        new: The later side.
        options: The tolerances.
        pair: The grid and the shift, where one side is a map.
        area: Polygons in ``crs``; outside nothing is looked at; everywhere when empty.
        advance: Called with 1 after each block that is vectorized.

    Raises:
        DataError: Lines with a CRS and lines without one, or a side without a road.
    """
    crs = pair.georef.crs if pair else _crs_of(new)
    lines = [_placed(side, crs, advance) for side in (old, new)]
    clip = list(area)
    if pair is not None:
        ground = shapely.Polygon(pair.georef.outline(16))
        clip = [shapely.intersection(s, ground) for s in clip] or [ground]
    if clip:
        mould = shapely.union_all(clip)
        shapely.prepare(mould)
        lines = [_clipped(some, mould) for some in lines]
    for side, some in zip((old, new), lines, strict=True):
        if not len(some) and isinstance(side, VectorSide):
            where = "where the other side lies" if pair else "in the area that is looked at"
            raise DataError(f"{side.path}: has no lines {where}", "check its CRS and its place")
    if not len(lines[0]) and not len(lines[1]):
        return no_edges(crs)
    frame = metric_frame([*lines[0], *lines[1]], crs)
    step = _metres(pair, frame)

    def forth(xy: Floats) -> Floats:
        return xy if crs is None or frame.crs is None else move_points(xy, crs, frame.crs)

    def back(xy: Floats) -> Floats:
        return xy if crs is None or frame.crs is None else move_points(xy, frame.crs, crs)

    metric = [np.asarray(shapely.transform(some, forth), object) for some in lines]
    metric[0] = np.asarray(shapely.transform(metric[0], lambda xy: xy - step), object)
    networks = [Roads.from_lines(some) for some in metric]
    found = compare_roads(networks[0], networks[1], options.along)
    own = shapely.transform(found.lines, lambda xy: xy)
    gone = found.state == GONE
    own[gone] = shapely.transform(own[gone], lambda xy: xy + step)
    probability, seen = np.ones(len(own)), np.ones(len(own), bool)
    if pair is not None and len(own):
        placed = np.asarray(shapely.transform(found.lines, back), object)
        probability, seen = _scores(old, new, placed, found.state, pair)
    length = _lengths(own, frame)
    kept = np.flatnonzero(seen & (probability > 0))
    kept = kept[np.argsort(-length[kept], kind="stable")]
    notes = [
        f"{side.path}: {len(cross)} crossings without a node (bridges, or lines that were never "
        f"joined), the first at {_shown(back(cross[:1])[0])}; lines are compared as they are"
        for side, network in zip((old, new), networks, strict=True)
        if isinstance(side, VectorSide) and len(cross := crossings(network))
    ]
    if len(found.breaks):
        notes.append(
            f"at {len(found.breaks)} places of {new.path} the roads alongside in {old.path} are "
            f"not connected, the first at {_shown(back(found.breaks[:1])[0])}"
        )
    return Edges(
        np.asarray(shapely.transform(own[kept], back), object),
        found.state[kept],
        probability[kept],
        length[kept],
        found.offset[kept],
        crs,
        {
            name: float(_lengths(network.lines, frame).sum())
            for name, network in zip(("before", "after"), networks, strict=True)
        },
        tuple(notes),
    )


def _crs_of(side: Side) -> CRS | None:
    return side.georef.crs if isinstance(side, MapSide) else side.crs


def _placed(side: Side, crs: CRS | None, advance: Advance | None) -> NDArray[Any]:
    """Return a side's centrelines in a CRS."""
    if isinstance(side, VectorSide):
        if (side.crs is None) != (crs is None):
            raise DataError(
                f"{side.path}: {'has no CRS' if side.crs is None else 'has a CRS'}, the other side "
                f"{'has one' if side.crs is None else 'has none'}",
                "give both the right CRS",
            )
        return shapely.get_parts(side.moved_to(crs).lines)
    value = road_id(side)
    assert value is not None
    band = value + 1
    source = RasterSource(side.path, 255 if side.mask else value, scores=side.scores, band=band)
    try:
        network = road_network(source, progress=advance)
    finally:
        source.close()
    if crs is None or network.crs is None or crs == network.crs:
        return network.lines
    moved = shapely.transform(network.lines, lambda xy: move_points(xy, network.crs, crs))
    return np.asarray(moved, object)


def _clipped(lines: NDArray[Any], mould: Any) -> NDArray[Any]:
    whole = shapely.covers(mould, lines)
    cut = shapely.get_parts(shapely.intersection(lines[~whole], mould))
    cut = cut[np.isin(shapely.get_type_id(cut), (1,)) & ~shapely.is_empty(cut)]
    return np.concatenate([lines[whole], cut])


def _metres(pair: Pair | None, frame: Georef) -> Floats:
    """(2,) metres east and north by which the old side lies off the new one."""
    if pair is None or not any(pair.shift):
        return np.zeros(2)
    own = pair.georef
    middle = np.array([[own.height, own.width]]) / 2
    ends = own.xy(np.concatenate([middle, middle + pair.shift]))
    if own.crs is not None and frame.crs is not None:
        ends = move_points(ends, own.crs, frame.crs)
    return np.asarray(ends[1] - ends[0])


def _lengths(lines: NDArray[Any], frame: Georef) -> Floats:
    if not len(lines):
        return np.zeros(0)
    xy, owner = shapely.get_coordinates(lines, return_index=True)
    return line_lengths(xy, np.bincount(owner, minlength=len(lines)), frame)


def _scores(
    old: Side, new: Side, lines: NDArray[Any], state: NDArray[Any], pair: Pair
) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the mean probability along lines, and which lie where both sides were seen.

    A new road is one with the probability of road in NEW, and of none in OLD; vectors are certain.
    """
    georef = pair.georef
    count = np.maximum(1, np.ceil(_metric_lengths(lines, georef) / _SPACING)).astype(np.int64)
    owner = np.repeat(np.arange(len(lines)), count)
    step = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    points = shapely.line_interpolate_point(
        lines[owner], (step + _EDGE) / count[owner], normalized=True
    )
    places = georef.pixels(shapely.get_coordinates(points))
    likely, seen = np.ones(len(owner)), np.ones(len(owner), bool)
    shifts = (pair.shift, (0.0, 0.0))
    for number, (side, shift) in enumerate(zip((old, new), shifts, strict=True)):
        if not isinstance(side, MapSide):
            continue
        table = [int(i == road_id(side)) for i in range(len(side.names))]
        with MapSampler(side, georef, table, 2, shift) as sampler:
            values, valid = values_at(places, georef, sampler.read, 2)
        there = (state == (NEW if number else GONE)) | (state == CHANGED)
        likely *= np.where(there[owner], values[:, 1], 1 - values[:, 1])
        seen &= valid
    total = np.bincount(owner, seen, minlength=len(lines))
    mean = np.bincount(owner, likely * seen, minlength=len(lines)) / np.maximum(total, 1)
    return mean, 2 * total >= count


def _metric_lengths(lines: NDArray[Any], georef: Georef) -> Floats:
    xy, owner = shapely.get_coordinates(lines, return_index=True)
    sizes = np.bincount(owner, minlength=len(lines))
    return line_lengths(xy, sizes, georef)


def _shown(xy: Floats) -> str:
    return f"{xy[0]:.7g} {xy[1]:.7g}"


__all__ = ["STATES", "Edges", "changed_edges", "has_roads", "no_edges"]
