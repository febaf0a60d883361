"""Rings of regions from their borders: every region's outline with the region at its left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from terradapt.vector.lattice.graph import Floats, Graph
from terradapt.vector.lattice.trace import Ints

_TURNS = (2, 0, -2, 4)  # left, straight on, right, back


@dataclass(frozen=True)
class _Darts:
    """Each border twice: dart ``2 e`` runs as border ``e``, dart ``2 e + 1`` runs back.

    Attributes:
        begin: Nodes at which darts begin.
        region: Region at the left.
        follow: The dart that goes on along the same region.
    """

    begin: Ints
    region: Ints
    follow: Ints


def region_polygons(borders: Graph, sides: Ints) -> tuple[list[shapely.Polygon], Ints]:
    """Return the polygons of all regions in (column, row) of pixel corners, and their regions.

    Args:
        borders: Chains of corners between different regions.
        sides: (E, 2) the regions left and right of each border.
    """
    darts = _darts(borders, sides)
    points, sizes = borders.chains.points()
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    rings: dict[int, list[Floats]] = {}
    for cycle in _cycles(darts):
        for part in _simple(cycle, darts.begin):
            ring = np.concatenate([_dart_points(d, points, offsets) for d in part])
            rings.setdefault(int(darts.region[part[0]]), []).append(ring[:, ::-1])
    regions = sorted(rings)
    polygons = []
    owner = []
    for region in regions:
        for polygon in _polygons(rings[region]):
            polygons.append(polygon)
            owner.append(region)
    return polygons, np.array(owner, np.int64)


def _darts(borders: Graph, sides: Ints) -> _Darts:
    chains, offsets = borders.chains, borders.chains.offsets
    count = len(borders)
    leave = np.empty(2 * count, np.int64)
    arrive = np.empty(2 * count, np.int64)
    leave[0::2], leave[1::2] = chains.codes[offsets[:-1]], chains.codes[offsets[1:] - 1] ^ 4
    arrive[0::2], arrive[1::2] = leave[1::2] ^ 4, leave[0::2] ^ 4
    begin, stop = borders.ends.ravel(), borders.ends[:, ::-1].ravel()
    out = np.full(len(borders.place) * 8, -1)
    out[begin * 8 + leave] = np.arange(2 * count)
    follow = np.full(2 * count, -1)
    for turn in _TURNS:
        follow = np.where(follow < 0, out[stop * 8 + (arrive + turn) % 8], follow)
    return _Darts(begin, sides.ravel(), follow)


def _cycles(darts: _Darts) -> Iterator[list[int]]:
    follow = darts.follow.tolist()
    seen = bytearray(len(follow))
    for first in range(len(follow)):
        if not seen[first]:
            cycle, dart = [], first
            while not seen[dart]:
                seen[dart] = 1
                cycle.append(dart)
                dart = follow[dart]
            yield cycle


def _simple(cycle: list[int], begin: Ints) -> Iterator[list[int]]:
    """Cut a ring that comes back to a node into rings that do not."""
    nodes = begin[cycle].tolist()
    if len(set(nodes)) == len(nodes):
        yield cycle
        return
    at: dict[int, int] = {}
    path: list[int] = []
    for node, dart in zip(nodes, cycle, strict=True):
        if node in at:
            start = at[node]
            yield path[start:]
            for gone in path[start:]:
                at.pop(int(begin[gone]), None)
            del path[start:]
        at[node] = len(path)
        path.append(dart)
    yield path


def _dart_points(dart: int, points: Floats, offsets: Ints) -> Floats:
    """Return the corners of a dart at which it turns, and its first; without its last."""
    edge = dart // 2
    chain = points[offsets[edge] : offsets[edge + 1]]
    if dart % 2:
        chain = chain[::-1]
    turns = np.any(chain[2:] - chain[1:-1] != chain[1:-1] - chain[:-2], axis=1)
    return np.concatenate([chain[:1], chain[1:-1][turns]])


def _polygons(rings: list[Floats]) -> Iterator[shapely.Polygon]:
    """Yield polygons of one region's rings: outlines turn one way, holes the other."""
    outer = [r for r in rings if _signed_area(r) > 0]
    holes = [r for r in rings if _signed_area(r) < 0]
    if len(outer) == 1:
        yield shapely.Polygon(outer[0], holes)
        return
    for ring in outer:
        shell = shapely.Polygon(ring)
        inside = [h for h in holes if shell.covers(shapely.Polygon(h))]
        yield shapely.Polygon(ring, inside)


def _signed_area(ring: NDArray[np.float64]) -> float:
    """Twice the area; positive where the ring turns counterclockwise as seen, rows downward."""
    x, y = ring[:, 0], -ring[:, 1]
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))
