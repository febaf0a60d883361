"""Longitude and latitude by RFC 7946: across the antimeridian, around the poles, rings turned."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import shapely
from rasterio.crs import CRS
from rasterio.transform import Affine

from road_files import drawn
from terradapt.raster import Georef, write_raster
from terradapt.raster.georef import move_points
from terradapt.vector import polygonize_labels, roads_from_array, write_network
from terradapt.vector.lonlat import to_lonlat
from terradapt.vector.polygons.extract import ArrayLabels, PolygonOptions

WGS84 = CRS.from_epsg(4326)
# a square of 2000 km around a pole: its corners lie at 45, 135, -45 and -135 degrees
POLAR = np.array([[-1e6, -1e6], [1e6, -1e6], [1e6, 1e6], [-1e6, 1e6]])


def is_turned(shape: object) -> bool:
    parts = shapely.get_parts(shape)
    holes = [ring for p in parts for ring in p.interiors]
    return all(p.exterior.is_ccw for p in parts) and not any(h.is_ccw for h in holes)


@pytest.mark.parametrize("code", [4326, 32701, 3832, 3031])
def test_a_square_on_the_antimeridian_has_a_part_on_either_side(code: int) -> None:
    crs = CRS.from_epsg(code)
    lonlat = np.array([[179.8, -17.2], [180.2, -17.2], [180.2, -16.8], [179.8, -16.8]])
    corners = move_points(lonlat, WGS84, crs) if code != 4326 else lonlat
    [cut] = to_lonlat(np.array([shapely.Polygon(corners)], object), crs)
    assert cut.geom_type == "MultiPolygon" and cut.is_valid and is_turned(cut)
    boxes = sorted(shapely.bounds(shapely.get_parts(cut)).round(6).tolist())
    np.testing.assert_allclose(
        boxes, [[-180, -17.2, -179.8, -16.8], [179.8, -17.2, 180, -16.8]], atol=5e-4
    )
    assert cut.area == pytest.approx(0.4 * 0.4, rel=1e-3)


@pytest.mark.parametrize(("code", "pole"), [(3413, 90), (3995, 90), (3031, -90), (3976, -90)])
@pytest.mark.parametrize("direction", [1, -1])
def test_an_outline_around_a_pole_reaches_it(code: int, pole: int, direction: int) -> None:
    crs = CRS.from_epsg(code)
    hole = POLAR / 4
    polygon = shapely.Polygon(POLAR[::direction], [hole])
    whole, ring = to_lonlat(np.array([shapely.Polygon(POLAR[::direction]), polygon], object), crs)
    for shape in (whole, ring):
        assert shape.is_valid and is_turned(shape)
        assert shape.bounds[0] == -180 and shape.bounds[2] == 180
    assert pole in (whole.bounds[1], whole.bounds[3])
    assert pole not in (ring.bounds[1], ring.bounds[3])
    inside = move_points(np.array([[1e5, 2e5], [-1e5, 2e5], [1e5, -2e5], [9e5, 9e5]]), crs, WGS84)
    assert shapely.contains_xy(whole, inside).tolist() == [True] * 4
    assert shapely.contains_xy(ring, inside).tolist() == [False] * 3 + [True]
    outside = move_points(np.array([[1.1e6, 0], [0, -1.1e6]]), crs, WGS84)
    assert not shapely.contains_xy(whole, outside).any()


@pytest.mark.parametrize("west", [-180.0, 0.0])
def test_a_raster_of_the_whole_globe_stays_whole(west: float) -> None:
    labels = np.zeros((90, 180), np.uint8)
    labels[30:60], labels[40:50, 80:100] = 1, 2
    georef = Georef(Affine(2, 0, west, 0, -2, 90), WGS84, 90, 180)
    found = polygonize_labels(ArrayLabels(labels, georef))
    shapes = to_lonlat(found.shapes, WGS84)
    assert shapely.is_valid(shapes).all() and all(map(is_turned, shapes))
    np.testing.assert_allclose(shapely.area(shapes), shapely.area(found.shapes))
    assert shapely.total_bounds(shapes).tolist() == [-180, -90, 180, 90]
    assert shapely.union_all(shapes).area == 360 * 180


def test_a_road_over_the_antimeridian_is_cut_there_and_its_ends_are_its_nodes(
    tmp_path: Path,
) -> None:
    mask = drawn([[(0, 50), (300, 50)], [(150, 50), (150, 100)]], (100, 300), 8)
    step = 1 / 111_320.0
    roads = roads_from_array(mask, transform=Affine(step, 0, 179.999, 0, -step, 1), crs="EPSG:4326")
    write_network(tmp_path / "r.geojson", roads)
    features = json.loads((tmp_path / "r.geojson").read_text())["features"]
    lines = [f for f in features if f["properties"]["layer"] == "edges"]
    nodes = {
        f["properties"]["node"]: f["geometry"]["coordinates"]
        for f in features
        if f["properties"]["layer"] == "nodes"
    }
    assert sum(f["properties"]["length_m"] for f in lines) == pytest.approx(350, rel=0.03)
    assert {f["geometry"]["type"] for f in lines} == {"LineString", "MultiLineString"}
    for line in lines:
        found = line["geometry"]["coordinates"]
        parts = found if line["geometry"]["type"] == "MultiLineString" else [found]
        assert nodes[line["properties"]["from_node"]] == parts[0][0]
        assert nodes[line["properties"]["to_node"]] == parts[-1][-1]
        for part in parts:
            assert np.abs(np.diff([x for x, _ in part])).max() < 0.01
        for one, two in itertools.pairwise(parts):
            assert {one[-1][0], two[0][0]} == {180.0, -180.0} and one[-1][1] == two[0][1]


def test_lines_and_points_beyond_180_come_back() -> None:
    line = shapely.LineString([(170, 0), (190, 10), (200, 10), (550, 10)])
    cut, inside, point = to_lonlat(
        np.array([line, shapely.LineString([(190, 1), (200, 2)]), shapely.Point(190, 1)], object),
        WGS84,
    )
    np.testing.assert_allclose(
        [p.bounds for p in cut.geoms], [[170, 0, 180, 5], [-180, 5, 180, 10], [-180, 10, -170, 10]]
    )
    assert inside.bounds == (-170, 1, -160, 2) and (point.x, point.y) == (-170, 1)


@pytest.mark.parametrize("down", [-0.5, 0.5])
@pytest.mark.parametrize("right", [-0.5, 0.5])
@pytest.mark.parametrize("simplify", ["0", "1"])
def test_outlines_turn_counterclockwise_in_geojson(
    terradapt,  # type: ignore[no-untyped-def]
    tmp_path: Path,
    down: float,
    right: float,
    simplify: str,
) -> None:
    labels = np.random.default_rng(0).integers(0, 3, (60, 60)).astype(np.uint8)
    transform = Affine(right, 0, 5e5, 0, down, 5e6)
    write_raster(tmp_path / "a.tif", labels, crs="EPSG:32633", transform=transform)
    out = tmp_path / "a.geojson"
    assert terradapt("vectorize", tmp_path / "a.tif", "-o", out, "--simplify", simplify).status == 0
    shapes = [
        shapely.geometry.shape(f["geometry"]) for f in json.loads(out.read_text())["features"]
    ]
    assert len(shapes) > 200 and all(map(is_turned, shapes))


def test_a_map_around_the_pole_covers_itself_without_overlap() -> None:
    rng = np.random.default_rng(1)
    labels = np.kron(rng.integers(0, 3, (10, 10)), np.ones((6, 6))).astype(np.uint8)
    georef = Georef(Affine(5e4, 0, -1.4e6, 0, -5e4, 1.6e6), CRS.from_epsg(3413), 60, 60)
    found = polygonize_labels(ArrayLabels(labels, georef), PolygonOptions())
    shapes = to_lonlat(found.shapes, CRS.from_epsg(3413))
    assert shapely.is_valid(shapes).all() and all(map(is_turned, shapes))
    rows, cols = np.mgrid[0:60, 0:60]
    centres = georef.xy(np.column_stack([rows.ravel(), cols.ravel()]).astype(float))
    points = shapely.points(move_points(centres, CRS.from_epsg(3413), WGS84))
    place, shape = shapely.STRtree(shapes).query(points, predicate="intersects")
    assert (np.bincount(place, minlength=3600) == 1).mean() > 0.995  # edges bend a little
    assert (found.value[shape] == labels.ravel()[place]).mean() > 0.995
