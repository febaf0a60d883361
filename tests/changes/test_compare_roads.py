"""Road networks compared: known changes found, noise not told, metres on the ground."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import shapely
from pyproj import Geod

from terradapt.changes.roads import CHANGED, GONE, NEW, AlongOptions, compare_roads, crossings
from terradapt.changes.run import compare
from terradapt.errors import ConfigError
from terradapt.metrics.network import Roads

GRID = [
    *([(0, y), (100, y), (200, y), (300, y)] for y in (0, 100, 200)),
    *([(x, 0), (x, 100), (x, 200)] for x in (0, 100, 200, 300)),
]
Line = list[tuple[float, float]]


def network(lines: list[Line]) -> Roads:
    return Roads.from_lines([shapely.LineString(line) for line in lines])


def parted(lines: list[Line]) -> list[Line]:
    return [[a, b] for line in lines for a, b in pairwise(line)]


def lengths(old: Roads, new: Roads) -> dict[str, float]:
    found = compare_roads(old, new)
    length = shapely.length(found.lines)
    return {s: round(float(length[found.state == s].sum())) for s in (NEW, GONE, CHANGED)}


def resampled(lines: list[Line], seed: int) -> list[Line]:
    rng, found = np.random.default_rng(seed), []
    for line in lines:
        whole = shapely.LineString(line)
        at = np.sort(rng.uniform(0, whole.length, 12))
        inner = shapely.get_coordinates(shapely.line_interpolate_point(whole, at))
        inner = inner + rng.normal(0, 0.3, inner.shape)
        found.append([line[0], *map(tuple, inner.tolist()), line[-1]])
    return found


def test_other_vertices_order_and_direction_are_no_change() -> None:
    other = [line[::-1] for line in resampled(parted(GRID), 1)][::-1]
    assert lengths(network(GRID), network(other)) == {NEW: 0, GONE: 0, CHANGED: 0}


def test_removed_added_and_moved_roads_are_told_by_their_lengths() -> None:
    parts = parted(GRID)
    gone, moved = parts[1], parts[4]
    aside = [moved[0], *((x, y + 3) for x, y in moved), moved[1]]
    kept = resampled([p for p in parts if p not in (gone, moved)], 2)
    new = network([*kept, aside, [(200, 200), (230, 260)]])
    found = lengths(network(GRID), new)
    assert found[GONE] == pytest.approx(100, abs=3)
    assert found[NEW] == pytest.approx(67, abs=3)
    assert found[CHANGED] == pytest.approx(100, abs=7)
    found = compare_roads(network(GRID), new)
    assert found.offset[found.state == CHANGED] == pytest.approx(3, abs=0.1)
    assert np.isnan(found.offset[found.state != CHANGED]).all()


def test_a_road_that_leaves_another_at_a_sharp_angle_is_new_from_its_beginning() -> None:
    main: Line = [(0, 0), (400, 0)]
    branch: Line = [(100, 0), (250, 40)]  # beside the main road, within 8 m, for its first 30 m
    assert lengths(network([main]), network([main, branch])) == {NEW: 155, GONE: 0, CHANGED: 0}


def test_a_line_that_cuts_a_corner_between_its_vertices_has_not_moved() -> None:
    bend: Line = [(0, 0), (100, 0), (170, 70)]
    coarse: Line = [(0, 0), (85, 0), (111, 11), (170, 70)]  # 6 m beside it at the bend
    wide: Line = [(0, 0), (85, 0), (98, 5.5), (111, 11), (170, 70)]  # a vertex stands beside it
    assert lengths(network([bend]), network([coarse]))[CHANGED] == 0
    assert lengths(network([bend]), network([wide]))[CHANGED] > 10


def test_a_crossing_road_is_no_way_alongside_and_neither_is_one_ahead() -> None:
    assert lengths(network([[(0, 0), (100, 0)]]), network([[(50, -6), (50, 6)]]))[GONE] == 100
    longer = lengths(network([[(0, 0), (100, 0)]]), network([[(0, 0), (140, 0)]]))
    assert longer == {NEW: pytest.approx(40, abs=3), GONE: 0, CHANGED: 0}


def test_lines_that_cross_without_a_node_are_counted() -> None:
    assert len(crossings(network(GRID))) == 0
    bridge = network(
        [[(0, 0), (80, 0), (100, 0)], [(40, -30), (60, 30)], [(80, -5), (80, 0), (80, 5)]]
    )
    np.testing.assert_allclose(crossings(bridge), [[50, 0]], atol=1e-9)


def test_a_break_in_what_lies_alongside_is_told() -> None:
    whole, cut = [[(0, 0), (200, 0)]], [[(0, 0), (97, 0)], [(102, 0), (200, 0)]]
    assert len(compare_roads(network(cut), network(whole)).breaks) == 1
    assert len(compare_roads(network(parted(whole)), network(whole)).breaks) == 0


def test_options_that_cannot_be() -> None:
    for options in ({"tolerance": 0.0}, {"moved": 9.0}, {"min_length": float("nan")}):
        with pytest.raises(ConfigError):
            AlongOptions(**options)


def test_two_vector_files_are_compared_in_metres_on_the_ellipsoid(tmp_path: Path) -> None:
    def write(name: str, lines: list[Line]) -> Path:
        features = [
            {
                "type": "Feature",
                "properties": {},
                "geometry": {"type": "LineString", "coordinates": x},
            }
            for x in lines
        ]
        path = tmp_path / name
        path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
        return path

    west = [(25.0, 65.0), (25.01, 65.0)]
    fresh = [(25.005, 65.0), (25.005, 65.004)]
    old, new = write("old.geojson", [west]), write("new.geojson", [west, fresh])
    figures = compare(old, new, tmp_path / "update.gpkg")
    true = Geod(ellps="WGS84").line_length(*zip(*fresh, strict=True))
    assert figures["edges"][NEW] == {"count": 1, "length_m": pytest.approx(true, rel=2e-5)}
    assert figures["edges"][GONE]["count"] == figures["edges"][CHANGED]["count"] == 0
    meta, _, wkb, fields = pyogrio.raw.read(tmp_path / "update.gpkg", layer="edges")
    row = dict(zip(meta["fields"], fields, strict=True))
    assert row["state"].tolist() == [NEW] and row["probability"].tolist() == [1.0]
    np.testing.assert_allclose(shapely.get_coordinates(shapely.from_wkb(wkb)), fresh, atol=1e-8)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "new.geojson", "old.geojson", "update.gpkg", "update.html", "update.json",
    ]  # fmt: skip
