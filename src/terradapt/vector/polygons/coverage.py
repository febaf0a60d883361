"""Coverages of polygons: new forms put in, small polygons taken out, nothing left open.

Polygons lie in (column, row) of pixel corners. What is cut anew is noded on a grid of 2^-16 px, so
that neighbours share every vertex; corners of pixels lie on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from terradapt.raster import Georef
from terradapt.vector.lattice.metric import polygon_areas
from terradapt.vector.lattice.trace import Ints

_GRID = 2.0**-16  # px
_STRAIGHT = 0.1  # px; vertices go whose triangle with their neighbours is smaller than its square
_GAP, _NOBODY = -1, -2
_ROUNDING = 1e-9  # of areas


@dataclass(frozen=True)
class Coverage:
    """P polygons that share their borders.

    Attributes:
        shapes: (P,) polygons, px.
        owner: (P,) what each belongs to.
        firm: (P,) True where a form should stay as it is.
    """

    shapes: NDArray[Any]
    owner: Ints
    firm: NDArray[np.bool_]

    def take(self, index: NDArray[Any]) -> Coverage:
        """Return some of the polygons."""
        return Coverage(self.shapes[index], self.owner[index], self.firm[index])


def with_forms(
    shapes: NDArray[Any], forms: Mapping[int, Any], georef: Georef, least: float
) -> tuple[NDArray[Any], Ints]:
    """Give some polygons of a coverage new forms; their neighbours give way, or fill what is left.

    What lies outside the coverage stays outside. Where two new forms overlap, the first wins. Parts
    smaller than ``least`` join the neighbour with the longest common border, a polygon without a
    new form if there is one.

    Args:
        shapes: (P,) polygons.
        forms: New polygons by index.
        georef: Where the pixels lie.
        least: Square metres.

    Returns:
        (Q,) polygons and (Q,) the indexes of those that they come from, ascending.
    """
    order = np.arange(len(shapes))
    if not forms:
        return shapes, order
    chosen, new = np.array(sorted(forms)), np.array([forms[i] for i in sorted(forms)], object)
    near = shapely.STRtree(shapes).query(new, predicate="dwithin", distance=1.0)[1]
    near = np.union1d(near, chosen)
    faces = _faces(np.concatenate([shapes[near], new]))
    owner = _owners(faces, shapes[near], new, near, chosen)
    pieces = _absorbed(_dissolved(faces, owner, chosen), georef, least)
    straight = shapely.coverage_simplify(pieces.shapes, _STRAIGHT, simplify_boundary=False)
    pieces = _absorbed(replace(pieces, shapes=straight), georef, least)
    far = np.setdiff1d(order, near)
    result = np.concatenate([shapes[far], pieces.shapes])
    source = np.concatenate([far, pieces.owner])
    order = np.argsort(source, kind="stable")
    return result[order], source[order]


def without_small(
    shapes: NDArray[Any], value: Ints, georef: Georef, least: float
) -> tuple[NDArray[Any], Ints]:
    """Join polygons of less than ``least`` square metres to their neighbours.

    Args:
        shapes: (P,) polygons of a coverage.
        value: (P,) what they belong to.
        georef: Where the pixels lie.
        least: Square metres.

    Returns:
        Polygons and what they belong to; small ones without a neighbour are still among them.
    """
    whole = Coverage(shapes, value, np.zeros(len(shapes), bool))
    kept = _absorbed(whole, georef, least)
    return kept.shapes, kept.owner


def _faces(shapes: NDArray[Any]) -> NDArray[Any]:
    """Return what the outlines of overlapping polygons cut the plane into."""
    lines = shapely.union_all(shapely.boundary(shapes), grid_size=_GRID)
    faces: NDArray[Any] = shapely.get_parts(shapely.polygonize(shapely.get_parts(lines)))
    return faces


def _owners(
    faces: NDArray[Any], old: NDArray[Any], new: NDArray[Any], near: Ints, chosen: Ints
) -> Ints:
    """Return whose each face is: a polygon's index, _GAP or _NOBODY."""
    points = shapely.point_on_surface(faces)
    first = np.full((2, len(faces)), len(near) + len(new))
    for found, shapes in zip(first, (old, new), strict=True):
        face, shape = shapely.STRtree(shapes).query(points, predicate="intersects")
        np.minimum.at(found, face, shape)
    before = np.append(near, np.full(len(new) + 1, _NOBODY))[first[0]]
    before[np.isin(before, chosen)] = _GAP
    renewed = (first[1] < len(new)) & (before != _NOBODY)
    return np.where(renewed, np.append(chosen, _GAP)[np.minimum(first[1], len(new))], before)


def _dissolved(faces: NDArray[Any], owner: Ints, chosen: Ints) -> Coverage:
    """Unite the faces of each owner; what hangs together is a polygon."""
    order = np.argsort(owner, kind="stable")
    order = order[owner[order] >= _GAP]
    owners, begin = np.unique(owner[order], return_index=True)
    groups = np.split(order, begin[1:])
    united = np.array([shapely.coverage_union_all(faces[group]) for group in groups], object)
    parts, index = shapely.get_parts(united, return_index=True)
    return Coverage(parts, owners[index], np.isin(owners[index], chosen))


def _absorbed(coverage: Coverage, georef: Georef, least: float) -> Coverage:
    """Join gaps and small polygons to their neighbours until none is left that has one."""
    area = polygon_areas(coverage.shapes, georef)
    while True:
        small = (coverage.owner == _GAP) | (area < least * (1 - _ROUNDING))
        into = _neighbours(coverage, small, area)
        moved = np.flatnonzero(into != np.arange(len(into)))
        if not len(moved):
            return coverage
        while (into != into[into]).any():
            into = into[into]
        shapes = coverage.shapes.copy()
        grown, which = np.unique(into[moved], return_inverse=True)
        for i, root in enumerate(grown):
            shapes[root] = shapely.coverage_union_all(shapes[np.append(moved[which == i], root)])
        area[grown] = polygon_areas(shapes[grown], georef)
        kept = np.setdiff1d(np.arange(len(into)), moved)
        coverage = Coverage(shapes, coverage.owner, coverage.firm).take(kept)
        area = area[kept]


def _neighbours(coverage: Coverage, small: NDArray[np.bool_], area: NDArray[Any]) -> Ints:
    """Return what each polygon joins, itself for none: large ones first, and such as may change."""
    shapes, into = coverage.shapes, np.arange(len(small))
    some = np.flatnonzero(small)
    if not len(some):
        return into
    one, two = shapely.STRtree(shapes).query(shapes[some], predicate="intersects")
    one = some[one]
    later = (area[two] > area[one]) | ((area[two] == area[one]) & (two > one))
    gap = coverage.owner == _GAP
    fits = (one != two) & ~gap[two] & (~small[two] | later | gap[one])
    one, two = one[fits], two[fits]
    border = shapely.length(shapely.intersection(shapes[one], shapes[two]))
    one, two, border = one[border > 0], two[border > 0], border[border > 0]
    order = np.lexsort([two, -border, small[two], coverage.firm[two], one])
    first = order[np.unique(one[order], return_index=True)[1]]
    into[one[first]] = two[first]
    return into
