"""Procedural aerial scenes of cities, with land cover, roads and georeference.

A stand-in for aerial benchmarks that needs no download: 0.3 m pixels in UTM zone 33N, the six
ISPRS classes, street centrelines, cars, cast shadows, and trees over the roads. A seed is a city;
cities differ in layout, materials, sun, season and camera.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from terradapt.classes import ISPRS, ROADS
from terradapt.data.dataset import Dataset, Item, write_json
from terradapt.data.labels import LabelForm
from terradapt.data.splits import SPLITS_NAME, write_splits
from terradapt.data.synthetic_blocks import things_of_block
from terradapt.data.synthetic_city import City, Road, Things
from terradapt.data.synthetic_render import (
    Canvas,
    paint_building,
    paint_car,
    paint_ground,
    paint_patch,
    paint_tree,
    photograph,
    survey,
)
from terradapt.raster import write_raster

RESOLUTION = 0.3  # m/px
MARGIN = 64  # px drawn around a window, so that shadows and crowns enter it
CRS = "EPSG:32633"
REACH = 45.0  # m beyond a window from which things may reach into it


@dataclass(frozen=True)
class Scene:
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
    lines: tuple[Road, ...]


def make_scene(seed: int, height: int, width: int, row: int = 0, col: int = 0) -> Scene:
    """Draw the window of a city whose top left pixel is (row, col); adjacent windows fit.

    Args:
        seed: The city.
        height: Rows, px of 0.3 m.
        width: Columns.
        row: First row in the city, any integer.
        col: First column.
    """
    city = City(seed)
    canvas = Canvas(
        city,
        (col - MARGIN) * RESOLUTION,
        (row - MARGIN) * RESOLUTION,
        RESOLUTION,
        height + 2 * MARGIN,
        width + 2 * MARGIN,
    )
    ground = survey(canvas)
    bounds = (
        float(ground.u.min()) - REACH,
        float(ground.v.min()) - REACH,
        float(ground.u.max()) + REACH,
        float(ground.v.max()) + REACH,
    )
    paint_ground(canvas, ground)
    things = _things(city, bounds, (row, col, height, width))
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
    return Scene(image, labels, roads, _clipped(city, bounds, row, col, height, width))


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
) -> tuple[Road, ...]:
    """Centrelines inside the window, in its pixels."""
    from shapely import LineString, box, get_coordinates, get_parts

    frame = box(0, 0, width, height)
    found = []
    for road in city.centrelines(bounds):
        pixels = road.line / RESOLUTION - (col, row)
        for part in get_parts(LineString(pixels).intersection(frame)):
            if part.geom_type == "LineString" and part.length > 1:
                found.append(Road(get_coordinates(part), road.width, road.kind))
    return tuple(found)


def origin(seed: int) -> tuple[float, float]:
    """Return easting and northing (m, UTM 33N) of a city's pixel (0, 0); no two cities overlap."""
    return 300_000.0 + seed % 20 * 20_000, 5_400_000.0 + seed // 20 % 20 * 20_000


def transform_at(seed: int, row: int, col: int) -> Affine:
    """Return pixel to UTM of the window that begins at (row, col)."""
    east, north = origin(seed)
    return Affine(RESOLUTION, 0, east + col * RESOLUTION, 0, -RESOLUTION, north - row * RESOLUTION)


def write_city(
    folder: Path,
    seed: int,
    scenes: int = 1,
    size: int = 1024,
    advance: Callable[[int], None] | None = None,
) -> Path:
    """Write scenes of one city side by side in the folder layout.

    ``images/cityS_N.tif`` (RGB), ``labels/`` (ISPRS ids), ``roads/`` (0 and 1, also under trees),
    ``classes.yaml`` and ``roads_cityS.geojson`` (centrelines with width in metres and kind).

    Args:
        folder: Made when missing; may hold other cities.
        seed: The city.
        scenes: How many, from west to east, each touching the next.
        size: Side of a scene, px.
        advance: Called with 1 after each scene.
    """
    features = []
    for number in range(scenes):
        row, col = 0, number * size
        scene = make_scene(seed, size, size, row, col)
        transform = transform_at(seed, row, col)
        name = f"city{seed}_{number}.tif"
        for part, pixels, colours in (
            ("images", np.moveaxis(scene.image, -1, 0), None),
            ("labels", scene.labels, ISPRS.colours),
            ("roads", scene.roads, ROADS.colours),
        ):
            target = folder / part / name
            write_raster(target, pixels, crs=CRS, transform=transform, colours=colours)
        features += [_feature(road, transform, name) for road in scene.lines]
        if advance is not None:
            advance(1)
    write_json(folder / f"roads_city{seed}.geojson", _collection(features))
    _write_classes(folder / "classes.yaml")
    return folder


def _feature(road: Road, transform: Affine, scene: str) -> dict[str, object]:
    points = [transform * (x, y) for x, y in road.line]
    return {
        "type": "Feature",
        "properties": {"width": round(road.width, 2), "kind": road.kind, "scene": scene},
        "geometry": {
            "type": "LineString",
            "coordinates": [[round(v, 3) for v in p] for p in points],
        },
    }


def _collection(features: Sequence[dict[str, object]]) -> dict[str, object]:
    name = "urn:ogc:def:crs:EPSG::32633"
    return {
        "type": "FeatureCollection",
        "crs": {"type": "name", "properties": {"name": name}},
        "features": list(features),
    }


def _write_classes(path: Path) -> None:
    import yaml

    values = {
        "names": list(ISPRS.names),
        "colours": [list(c) for c in ISPRS.colours],
        "values": list(range(len(ISPRS))),
        "evaluated": [ISPRS.names[i] for i in ISPRS.evaluated],
    }
    path.write_text(yaml.safe_dump(values, sort_keys=False), "utf-8")


def write_dataset(
    folder: Path,
    cities: dict[str, Sequence[int]],
    scenes: int = 1,
    size: int = 1024,
    roads: bool = False,
    advance: Callable[[int], None] | None = None,
) -> Dataset:
    """Write cities with ``dataset.json`` and ``splits.json``: every city in one split alone.

    Args:
        folder: Where to.
        cities: Seeds by split, for example ``{"train": (1, 2), "val": (3,), "test": (4,)}``.
        scenes: Scenes of each city.
        size: Side of a scene, px.
        roads: Label with roads against background instead of the six ISPRS classes.
        advance: Called with 1 after each scene.
    """
    splits: dict[str, tuple[str, ...]] = {}
    items: list[Item] = []
    for split, seeds in cities.items():
        for seed in seeds:
            write_city(folder, seed, scenes, size, advance)
        part = [_item(folder, seed, n, size, roads) for seed in seeds for n in range(scenes)]
        splits[split] = tuple(item.id for item in part)
        items += part
    classes = ROADS if roads else ISPRS
    name = "synthetic-roads" if roads else "synthetic"
    form = LabelForm.identity(len(classes))
    dataset = Dataset(name, folder, tuple(items), classes, form, splits, "by_city")
    dataset.save()
    write_splits(folder / SPLITS_NAME, splits, "by_city", None)
    return dataset


def _item(folder: Path, seed: int, number: int, size: int, roads: bool) -> Item:
    name = f"city{seed}_{number}"
    label = folder / ("roads" if roads else "labels") / f"{name}.tif"
    image = folder / "images" / f"{name}.tif"
    return Item(name, image, label, f"city{seed}", None, size, size, RESOLUTION)
