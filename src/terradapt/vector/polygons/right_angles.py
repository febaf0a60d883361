"""Right angles for buildings."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from terradapt.vector.lattice.metric import Floats, Metric

_LEAST_IOU = 0.8


def right_angled(shapes: NDArray[Any], metric: Metric, tolerance: float = 1.5) -> dict[int, Any]:
    """Return forms with right angles on the ground, along each polygon's main direction.

    A ring is simplified, its sides are turned to the nearest of the main direction and its normal,
    and neighbouring sides are cut with each other. Polygons whose new form overlaps the old one by
    an IoU below 0.8, or is not valid, have none.

    Args:
        shapes: (P,) polygons in pixels.
        metric: What a pixel measures.
        tolerance: Of the first simplification, longer sides of a pixel.

    Returns:
        New polygons in pixels by index.
    """
    to_metres, to_pixels = metric.matrix.T, np.linalg.inv(metric.matrix.T)
    forms = {}
    for i, shape in enumerate(shapely.transform(shapes, lambda xy: xy @ to_metres)):
        new = _square(shape, tolerance * float(metric.steps[[0, 6]].max()))
        if new is not None and _iou(shape, new) >= _LEAST_IOU:
            forms[i] = shapely.transform(new, lambda xy: xy @ to_pixels)
    return forms


def _iou(one: Any, two: Any) -> float:
    return float(
        shapely.area(shapely.intersection(one, two)) / shapely.area(shapely.union(one, two))
    )


def _square(shape: Any, tolerance: float) -> Any:
    simple = shapely.simplify(shape, tolerance)
    if simple.geom_type != "Polygon" or simple.is_empty:
        return None
    angle = _main_direction(np.asarray(simple.exterior.coords))
    outline, *holes = (np.asarray(r.coords) for r in (simple.exterior, *simple.interiors))
    squared = _square_ring(outline, angle)
    if squared is None:
        return None
    turned = [(_square_ring(hole, angle), hole) for hole in holes]
    new = shapely.Polygon(squared, [old if ring is None else ring for ring, old in turned])
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
