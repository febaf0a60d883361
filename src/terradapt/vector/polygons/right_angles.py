"""Right angles for buildings."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from terradapt.vector.lattice.graph import Floats

_LEAST_IOU = 0.8


def right_angled(
    shapes: NDArray[Any], which: NDArray[np.bool_], tolerance: float = 1.5
) -> NDArray[Any]:
    """Give some polygons right angles along their main direction.

    A ring is simplified, its sides are turned to the nearest of the main direction and its normal,
    and neighbouring sides are cut with each other. A polygon whose new form overlaps its old one
    by an IoU below 0.8, or is not valid, keeps its old form; and what would cover another
    polygon is taken off, so that polygons never overlap.

    Args:
        shapes: (P,) polygons in pixels.
        which: (P,) those that get right angles.
        tolerance: Of the first simplification, px.

    Returns:
        (P,) polygons.
    """
    result = shapes.copy()
    for i in np.flatnonzero(which):
        new = _square(shapes[i], tolerance)
        if new is not None and _iou(shapes[i], new) >= _LEAST_IOU:
            result[i] = new
    return _apart(result, which)


def _iou(one: Any, two: Any) -> float:
    return float(
        shapely.area(shapely.intersection(one, two)) / shapely.area(shapely.union(one, two))
    )


def _square(shape: Any, tolerance: float) -> Any:
    simple = shapely.simplify(shape, tolerance)
    if simple.geom_type != "Polygon" or simple.is_empty:
        return None
    angle = _main_direction(np.asarray(simple.exterior.coords))
    rings = [
        _square_ring(np.asarray(r.coords), angle) for r in (simple.exterior, *simple.interiors)
    ]
    if rings[0] is None:
        return None
    new = shapely.Polygon(rings[0], [r for r in rings[1:] if r is not None])
    return new if new.is_valid and new.area > 0 else None


def _main_direction(ring: Floats) -> float:
    """Return the direction, modulo 90 degrees, that most of the outline follows, rad."""
    steps = np.diff(ring, axis=0)
    length = np.hypot(*steps.T)
    turned = np.exp(4j * np.arctan2(steps[:, 1], steps[:, 0]))
    return float(np.angle((length * turned).sum()) / 4)


def _square_ring(ring: Floats, angle: float) -> Floats | None:
    """Turn the sides of a closed ring to two directions and cut neighbours with each other."""
    cos, sin = np.cos(angle), np.sin(angle)
    local = ring @ np.array([[cos, -sin], [sin, cos]])
    steps = np.diff(local, axis=0)
    flat = np.abs(steps[:, 0]) >= np.abs(steps[:, 1])
    length = np.hypot(*steps.T)
    level = np.where(flat, local[:-1, 1] + local[1:, 1], local[:-1, 0] + local[1:, 0]) / 2
    start = np.flatnonzero(flat != np.roll(flat, 1))
    if len(start) < 4:
        return None
    group = (np.cumsum(flat != np.roll(flat, 1)) - 1) % len(start)
    total = np.bincount(group, length)
    offset = np.bincount(group, length * level) / total
    is_flat = flat[start]
    before = np.roll(offset, 1)
    corners = np.stack(
        [np.where(is_flat, before, offset), np.where(is_flat, offset, before)], axis=1
    )
    back: Floats = corners @ np.array([[cos, sin], [-sin, cos]])
    return back


def _apart(shapes: NDArray[Any], which: NDArray[np.bool_]) -> NDArray[Any]:
    """Let the polygons with right angles push the others back, and the first the later ones."""
    result = shapes.copy()
    chosen = np.flatnonzero(which)
    pushing, pushed = shapely.STRtree(shapes).query(shapes[chosen], predicate="intersects")
    for i, j in zip(chosen[pushing], pushed, strict=True):
        if j != i and not (which[j] and j < i):
            result[j] = _polygonal(shapely.difference(result[j], result[i]))
    return result


def _polygonal(shape: Any) -> Any:
    parts = [p for p in shapely.get_parts(shape) if p.geom_type == "Polygon"]
    return parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)
