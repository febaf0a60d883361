"""make_scene: the photograph, land cover and roads of a window of a procedural city."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terradapt.synthetic.canvas import Canvas, Ground, survey
from terradapt.synthetic.city import City, CityRoad
from terradapt.synthetic.ground import paint_ground, paint_patch
from terradapt.synthetic.light import photograph
from terradapt.synthetic.objects import paint_building, paint_car, paint_tree
from terradapt.synthetic.streets import things_of_block
from terradapt.synthetic.things import Things

RESOLUTION = 0.3  # m/px
MARGIN = 64  # px drawn around a window, so that shadows and crowns enter it
REACH = 45.0  # m beyond a window from which things may reach into it


@dataclass(frozen=True)
class CityScene:
    """A window of a city.

    Args:
        image: (H, W, 3) uint8, RGB.
        labels: (H, W) uint8, ISPRS ids 0..5; the topmost thing counts, as in the benchmark.
        roads: (H, W) uint8, 1 on carriageways, also under trees and cars.
        lines: Centrelines in pixels (x right, y down, N x 2), width in metres, and kind.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    roads: NDArray[np.uint8]
    lines: tuple[CityRoad, ...]


def make_scene(seed: int, height: int, width: int, row: int = 0, col: int = 0) -> CityScene:
    """Draw the window of a city whose top left pixel is (row, col); adjacent windows fit.

    Args:
        seed: The city.
        height: Rows, px of 0.3 m.
        width: Columns.
        row: First row in the city, any integer.
        col: First column.
    """
    return draw_scene(City(seed), height, width, row, col)


Standing = Callable[[Things], Things]
"""Leaves of some things those that stand."""


def draw_scene(
    city: City,
    height: int,
    width: int,
    row: int,
    col: int,
    standing: Standing | None = None,
    *,
    fill: City | None = None,
) -> CityScene:
    """Draw a window as :func:`make_scene` does, with some of its things.

    Args:
        city: Gives light, season and camera.
        height: Rows, px.
        width: Columns.
        row: First row in the city.
        col: First column.
        standing: Chooses what stands; all when None.
        fill: The city that says what is on the blocks, ``city`` itself when None.
    """
    canvas = Canvas(
        city,
        (col - MARGIN) * RESOLUTION,
        (row - MARGIN) * RESOLUTION,
        RESOLUTION,
        height + 2 * MARGIN,
        width + 2 * MARGIN,
    )
    ground = survey(canvas)
    bounds = _bounds(ground)
    paint_ground(canvas, ground)
    things = _things(fill or city, bounds, (row, col, height, width))
    things = standing(things) if standing is not None else things
    for patch in things.patches:
        paint_patch(canvas, patch, ground)
    for house in sorted(things.buildings, key=lambda b: (b.eave, b.x, b.y)):
        paint_building(canvas, house)
    for car in things.cars:
        paint_car(canvas, car)
    for tree in sorted(things.trees, key=lambda t: (t.height, t.x, t.y)):
        paint_tree(canvas, tree)
    inner = (slice(MARGIN, MARGIN + height), slice(MARGIN, MARGIN + width))
    image = photograph(canvas, MARGIN)
    labels = np.ascontiguousarray(canvas.label[inner])
    roads = np.ascontiguousarray(ground.road[inner]).astype(np.uint8)
    return CityScene(image, labels, roads, _clipped(city, bounds, row, col, height, width))


def draw_things(city: City, height: int, width: int, row: int, col: int) -> Things:
    """Return all that stands in a window or reaches into it."""
    x = np.linspace(col, col + width, 33) * RESOLUTION
    y = np.linspace(row, row + height, 33) * RESOLUTION
    u, v = city.lattice(*np.meshgrid(x, y))
    reached = (u.min() - REACH, v.min() - REACH, u.max() + REACH, v.max() + REACH)
    u0, v0, u1, v1 = (float(value) for value in reached)
    return _things(city, (u0, v0, u1, v1), (row, col, height, width))


def _bounds(ground: Ground) -> tuple[float, float, float, float]:
    return (
        float(ground.u.min()) - REACH,
        float(ground.v.min()) - REACH,
        float(ground.u.max()) + REACH,
        float(ground.v.max()) + REACH,
    )


def _things(
    city: City, bounds: tuple[float, float, float, float], window: tuple[int, int, int, int]
) -> Things:
    """What stands within reach of the window, block by block."""
    u0, v0, u1, v1 = bounds
    row, col, height, width = window
    things = Things()
    for i in city.span(0, u0, u1):
        for j in city.span(1, v0, v1):
            u = np.array((city.street(0, i), city.street(0, i + 1)))
            v = np.array((city.street(1, j), city.street(1, j + 1)))
            x, y = city.position(u[[0, 1, 0, 1]], v[[0, 0, 1, 1]])
            near_x = (
                x.max() > col * RESOLUTION - REACH and x.min() < (col + width) * RESOLUTION + REACH
            )
            near_y = (
                y.max() > row * RESOLUTION - REACH and y.min() < (row + height) * RESOLUTION + REACH
            )
            if near_x and near_y:
                things.extend(things_of_block(city, i, j))
    return things


def _clipped(
    city: City,
    bounds: tuple[float, float, float, float],
    row: int,
    col: int,
    height: int,
    width: int,
) -> tuple[CityRoad, ...]:
    """Centrelines inside the window, in its pixels."""
    from shapely import LineString, box, get_coordinates, get_parts

    frame = box(0, 0, width, height)
    found = []
    for road in city.centrelines(bounds):
        pixels = road.line / RESOLUTION - (col, row)
        for part in get_parts(LineString(pixels).intersection(frame)):
            if part.geom_type == "LineString" and part.length > 1:
                found.append(CityRoad(get_coordinates(part), road.width, road.kind))
    return tuple(found)
