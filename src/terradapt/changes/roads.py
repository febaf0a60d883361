"""What is new, gone and moved between two road networks, by ways alongside and not by pixels.

Places lie along every edge, as TOPO has them. A place is found where the other network runs
alongside: within a tolerance, in about the same direction, beside the place and not ahead of it.
Runs of places become pieces of edges. Where a road leaves another at a sharp angle, the first
metres of it lie within the tolerance of that other one, which has a partner of its own: a piece
without a way alongside goes on over such places, as TOPO matches one to one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.ndimage import median_filter
from scipy.sparse.csgraph import dijkstra
from shapely.ops import substring

from terradapt.errors import ConfigError
from terradapt.metrics.network import ROWS, Floats, Ints, Places, Roads
from terradapt.metrics.network_topo import evenly_placed

NEW, GONE, CHANGED = STATES = ("new", "gone", "changed")
"""What may have become of an object or a piece of road."""
_CHORD = 5  # times the tolerance: a straight part up to here may cut a bend of 45 degrees
_ACROSS = 0.26  # cosine from which down a road runs across another, not along it
_DETOUR = 4  # times tolerance and interval: a longer way between neighbours is none alongside


@dataclass(frozen=True)
class AlongOptions:
    """When a way counts as running alongside another.

    Args:
        tolerance: Furthest that it may lie beside, m.
        moved: From this on a road that has a way alongside is said to have moved, m.
        min_length: Shorter pieces are not told, m.
        angle: Largest difference of directions, degrees.
        interval: Places lie this far apart, m.

    Raises:
        ConfigError: A length that is not above 0, or ``moved`` beyond the tolerance.
    """

    tolerance: float = 8.0
    moved: float = 2.0
    min_length: float = 10.0
    angle: float = 40.0
    interval: float = 2.0

    def __post_init__(self) -> None:
        for name in ("tolerance", "moved", "min_length", "interval"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(
                    f"{name} of {getattr(self, name):g} m is no length", "use metres above 0"
                )
        if self.moved > self.tolerance:
            raise ConfigError(
                f"moved roads from {self.moved:g} m on lie beyond the tolerance of "
                f"{self.tolerance:g} m",
                "use a larger tolerance",
            )


@dataclass(frozen=True)
class RoadChanges:
    """N pieces of two networks that differ, in the networks' coordinates.

    Attributes:
        lines: (N,) shapely LineStrings; of moved roads as they lie now.
        state: (N,) ``new``, ``gone`` or ``changed`` (moved within the tolerance).
        offset: (N,) m by which a moved piece lies beside the old one; NaN for others.
        breaks: (B, 2) places of the new network where what lies alongside in the old one is not
            connected.
    """

    lines: NDArray[Any]
    state: NDArray[Any]
    offset: Floats
    breaks: Floats


def compare_roads(
    old: Roads,
    new: Roads,
    options: AlongOptions = AlongOptions(),
) -> RoadChanges:
    """Return the pieces that are new, gone or moved.

    Args:
        old: The earlier network, m.
        new: The later one, in the same coordinates.
        options: The tolerances.
    """
    before, after = _alongside(old, new, options), _alongside(new, old, options)
    lines, states, offsets = [], [], []
    for way, state in ((after, NEW), (before, GONE)):
        found = _pieces(way, way.alone, options)
        lines += [line for line, _ in found]
        states += [state] * len(found)
        offsets += [np.nan] * len(found)
    moved = _pieces(after, after.moved, options)
    lines += [line for line, _ in moved]
    states += [CHANGED] * len(moved)
    for _, at in moved:
        beside = after.offset[at]
        beside = beside[np.isfinite(beside)]  # a short stretch may have nothing alongside
        offsets.append(float(np.median(beside)) if len(beside) else np.nan)
    return RoadChanges(
        np.array(lines, object),
        np.array(states, object),
        np.array(offsets, np.float64),
        _breaks(after, old, options),
    )


def crossings(roads: Roads) -> Floats:
    """Return (C, 2) places where lines cross that have no node there: bridges, or no nodes at all.

    Args:
        roads: The network.
    """
    if not len(roads.lines):
        return np.empty((0, 2))
    one, two = shapely.STRtree(roads.lines).query(roads.lines, predicate="crosses")
    one, two = one[one < two], two[one < two]
    meet = shapely.intersection(roads.lines[one], roads.lines[two])
    points = shapely.get_coordinates(meet[np.isin(shapely.get_type_id(meet), (0, 4))])
    if not len(points):
        return np.empty((0, 2))
    near = shapely.STRtree(np.asarray(shapely.points(roads.nodes), object)).query(
        shapely.points(points), predicate="dwithin", distance=1e-2
    )[0]
    return np.delete(points, near, axis=0)


@dataclass(frozen=True)
class _Way:
    """M places of a network, edge by edge, and what of the other network lies alongside."""

    roads: Roads
    places: Places
    offset: Floats  # (M,) m to the nearest way alongside; inf where there is none
    alone: NDArray[np.bool_]  # (M,)
    moved: NDArray[np.bool_]  # (M,)
    beside: Ints  # (P, 2) a place and an edge of the other network alongside, in order
    along: Floats  # (P,) m from that edge's beginning


def _alongside(roads: Roads, other: Roads, options: AlongOptions) -> _Way:
    places = evenly_placed(roads, options.interval)
    count = len(places.edge)
    nothing = np.empty((0, 2), np.int64), np.empty(0)
    if not count or not len(other.lines):
        far, yes = np.full(count, np.inf), np.ones(count, bool)
        return _Way(roads, places, far, yes, ~yes, *nothing)
    parts = _Parts.of(other)
    place, part, distance, foot = _matches(places, _directions(roads, places), parts, options)
    offset = np.full(count, np.inf)
    np.minimum.at(offset, place, distance)
    mine = _Parts.of(roads)
    off = np.minimum(offset, _drawn_off(mine, roads, places, parts, options.tolerance))
    own = np.zeros(count, bool)  # the nearest way alongside has no nearer partner than this
    nearest = np.lexsort((distance, place))
    nearest = nearest[np.unique(place[nearest], return_index=True)[1]]
    at = Places(part[nearest], np.zeros(len(nearest)), foot[nearest])
    back, _, returned, _ = _matches(at, parts.direction[part[nearest]], mine, options)
    best = np.full(len(nearest), np.inf)
    np.minimum.at(best, back, returned)
    own[place[nearest]] = distance[nearest] <= best + options.interval / 2
    steps = roads.length / np.maximum(np.bincount(places.edge, minlength=len(roads.edges)), 1)
    size = np.ceil(options.min_length / np.maximum(steps, 1e-9)).astype(np.int64)
    edges = np.split(np.arange(count), np.flatnonzero(np.diff(places.edge)) + 1)
    alone, moved = np.zeros(count, bool), np.zeros(count, bool)
    for index in edges:
        few = int(size[places.edge[index[0]]])
        alone[index] = ~_without_short(~_without_short(~own[index], few), few)
        smooth = median_filter(np.minimum(off[index], options.tolerance), few, mode="nearest")
        shifted = (smooth >= options.moved) & ~alone[index]
        moved[index] = _without_short(~_without_short(~shifted, few), few) & ~alone[index]
    edge = parts.edge[part]
    along = parts.begin[part] + np.linalg.norm(foot - parts.start[part], axis=1)
    order = np.lexsort((edge, place))
    beside = np.stack([place, edge], axis=1)[order]
    first = np.ones(len(order), bool)
    first[1:] = (beside[1:] != beside[:-1]).any(axis=1)
    return _Way(roads, places, offset, alone, moved, beside[first], along[order][first])


@dataclass(frozen=True)
class _Parts:
    """The straight parts of a network's lines."""

    lines: NDArray[Any]
    edge: Ints
    start: Floats
    direction: Floats
    begin: Floats  # m from the edge's beginning

    @classmethod
    def of(cls, roads: Roads) -> _Parts:
        xy, edge = shapely.get_coordinates(roads.lines, return_index=True)
        kept = np.flatnonzero(edge[1:] == edge[:-1])
        step = xy[kept + 1] - xy[kept]
        length = np.linalg.norm(step, axis=1)
        total = np.concatenate([[0.0], np.cumsum(length)])[:-1]
        edge = edge[kept]
        first = np.concatenate([[0], np.flatnonzero(np.diff(edge)) + 1])
        begin = total - np.repeat(total[first], np.diff(np.append(first, len(edge))))
        lines = np.asarray(shapely.linestrings(np.stack([xy[kept], xy[kept + 1]], axis=1)), object)
        return cls(lines, edge, xy[kept], step / np.maximum(length, 1e-12)[:, None], begin)


def _drawn_off(
    own: _Parts, roads: Roads, places: Places, other: _Parts, tolerance: float
) -> Floats:
    """(M,) m by which both ends of the short straight part at a place lie off; inf on long ones.

    A line of few vertices cuts the corners of a road that has not moved: what was measured is its
    vertices. Roads across are no partners of an end.
    """
    length = shapely.length(own.lines)
    off = np.where(length > _CHORD * tolerance, np.inf, 0.0)
    short = np.flatnonzero(length <= _CHORD * tolerance)
    tree = shapely.STRtree(other.lines)
    for end in (own.start[short], own.start[short] + own.direction[short] * length[short, None]):
        points = np.asarray(shapely.points(end), object)
        here, there = tree.query(points, predicate="dwithin", distance=tolerance)
        along = np.abs((own.direction[short[here]] * other.direction[there]).sum(axis=1)) > _ACROSS
        here, there = here[along], there[along]
        nearest = np.full(len(short), np.inf)
        np.minimum.at(nearest, here, shapely.distance(points[here], other.lines[there]))
        off[short] = np.maximum(off[short], nearest)
    at = np.concatenate([[0.0], np.cumsum(roads.length)])[places.edge] + places.along
    stops = np.cumsum(length)
    return np.asarray(off[np.minimum(np.searchsorted(stops, at), len(off) - 1)])


def _directions(roads: Roads, places: Places) -> Floats:
    """(M, 2) unit directions over an interval around places."""
    lines, length = roads.lines[places.edge], roads.length[places.edge]
    ends = [
        shapely.get_coordinates(
            shapely.line_interpolate_point(lines, np.clip(places.along + step, 0, length))
        )
        for step in (-1.0, 1.0)
    ]
    step = ends[1] - ends[0]
    return np.asarray(step / np.maximum(np.linalg.norm(step, axis=1), 1e-12)[:, None])


def _matches(
    places: Places, direction: Floats, parts: _Parts, options: AlongOptions
) -> tuple[Ints, Ints, Floats, Floats]:
    """Return which places have which straight parts alongside, how far off, and at which point."""
    points = np.asarray(shapely.points(places.xy), object)
    place, part = shapely.STRtree(parts.lines).query(
        points, predicate="dwithin", distance=options.tolerance
    )
    at = shapely.line_locate_point(parts.lines[part], points[place])
    foot = shapely.get_coordinates(shapely.line_interpolate_point(parts.lines[part], at))
    off = foot - places.xy[place]
    distance = np.linalg.norm(off, axis=1)
    own = direction[place]
    turn = np.abs((own * parts.direction[part]).sum(axis=1))
    ahead = np.abs((own * off).sum(axis=1))
    angle = np.radians(options.angle)
    fits = (turn >= np.cos(angle)) & (ahead <= np.sin(angle) * distance + options.interval / 2)
    return place[fits], part[fits], distance[fits], foot[fits]


def _without_short(flags: NDArray[np.bool_], few: int) -> NDArray[np.bool_]:
    """Drop runs of fewer than so many, unless the run is the whole."""
    if flags.all():
        return flags
    begin, stop = _spans(flags)
    kept = flags.copy()
    for a, b in zip(begin, stop, strict=True):
        kept[a:b] = b - a >= few
    return kept


def _spans(flags: NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """Return begin and stop of the runs of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return edges[::2], edges[1::2]


def _pieces(way: _Way, flags: NDArray[np.bool_], options: AlongOptions) -> list[tuple[Any, Ints]]:
    """Return the lines of runs of flagged places, and which places they are."""
    found = []
    roads, places = way.roads, way.places
    if not len(flags):
        return []
    for index in np.split(np.arange(len(flags)), np.flatnonzero(np.diff(places.edge)) + 1):
        edge = int(places.edge[index[0]])
        step = roads.length[edge] / len(index)
        for a, b in zip(*_spans(flags[index]), strict=True):
            if (b - a) * step < options.min_length:
                continue
            whole = b - a == len(index)
            line = roads.lines[edge]
            cut = line if whole else substring(line, a * step, b * step)
            found.append((cut, index[a:b]))
    return found


def _breaks(way: _Way, other: Roads, options: AlongOptions) -> Floats:
    """Return places where the ways alongside two neighbours are not connected on a short way."""
    edge = way.places.edge
    place = way.beside[:, 0]
    with_way = np.unique(place[~way.alone[place]])
    alone = np.cumsum(way.alone)
    here, then = with_way[:-1], with_way[1:]
    joined = np.flatnonzero((edge[here] == edge[then]) & (alone[here] == alone[then]))
    first, stop = (np.searchsorted(place, with_way, side) for side in ("left", "right"))
    pairs, owner = [], []
    for i in joined.tolist():
        mine, yours = (np.arange(first[k], stop[k]) for k in (i, i + 1))
        if not np.isin(way.beside[mine, 1], way.beside[yours, 1]).any():
            one, two = np.meshgrid(mine, yours)
            pairs.append(np.stack([one.ravel(), two.ravel()], axis=1))
            owner.append(np.full(one.size, with_way[i]))
    if not pairs:
        return np.empty((0, 2))
    both, of = np.concatenate(pairs), np.concatenate(owner)
    limit = _DETOUR * (options.tolerance + options.interval)
    connected = np.zeros(len(edge), bool)
    np.logical_or.at(connected, of, _lengths(way, other, both, limit) <= limit)
    return np.asarray(way.places.xy[np.setdiff1d(of, np.flatnonzero(connected))])


def _lengths(way: _Way, other: Roads, both: Ints, limit: float) -> Floats:
    """(P,) metres on the other network between two places beside, over the ends of their edges."""
    ends = [other.edges[way.beside[both[:, k], 1]] for k in (0, 1)]
    to_end = []
    for k in (0, 1):
        at, length = way.along[both[:, k]], other.length[way.beside[both[:, k], 1]]
        to_end.append(np.stack([at, length - at], axis=1))
    best = np.full(len(both), np.inf)
    for begin in range(0, len(both), ROWS):
        some = slice(begin, begin + ROWS)
        sources, index = np.unique(ends[0][some], return_inverse=True)
        far = dijkstra(other.matrix, directed=False, indices=sources, limit=limit)
        index = index.reshape(-1, 2)
        for one in (0, 1):
            for two in (0, 1):
                length = far[index[:, one], ends[1][some, two]]
                length = length + to_end[0][some, one] + to_end[1][some, two]
                best[some] = np.minimum(best[some], length)
    return best
