"""Road networks: cleaning, gaps, lines, metres, and the same result however a scene is cut."""

from __future__ import annotations

import math

import numpy as np
import pytest
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.transform import Affine

from road_files import METRE, UTM, drawn, in_metres, random_roads, ring_with_arms
from terradapt.vector import Network, RoadOptions, roads_from_array
from terradapt.vector.roads.bridge import BridgeOptions
from terradapt.vector.roads.clean import CleanOptions

NO_GAPS = BridgeOptions(max_gap=0.0)


def network(mask: NDArray[np.generic], **options: object) -> Network:
    return roads_from_array(mask, transform=METRE, crs=UTM, options=RoadOptions(**options))  # type: ignore[arg-type]


@given(st.integers(0, 10_000), st.integers(40, 120), st.booleans())
@settings(max_examples=12, deadline=None)
@example(439, 30, False)
def test_the_network_of_a_cut_scene_is_that_of_one_piece(
    seed: int, block: int, scored: bool
) -> None:
    size = 160, 190
    mask: NDArray[np.generic] = random_roads(seed, size, 4, 6.0)
    if scored:
        noise = np.random.default_rng(seed).uniform(0, 0.45, size)
        mask = np.where(mask, 0.55 + noise, noise).astype(np.float32)
    whole, cut = (network(mask, block=b, max_width=12.0) for b in (1000, block))
    np.testing.assert_array_equal(whole.edges, cut.edges)
    np.testing.assert_allclose(whole.nodes, cut.nodes, rtol=0, atol=1e-6)
    np.testing.assert_allclose(whole.length, cut.length, rtol=1e-9)
    np.testing.assert_allclose(whole.width, cut.width)
    np.testing.assert_allclose(whole.score, cut.score)


def test_a_crossing_of_wide_roads_is_one_node() -> None:
    mask = drawn([[(0, 100), (200, 100)], [(30, 0), (160, 200)]], (200, 200), 14)
    roads = network(mask)
    assert sorted(roads.degree.tolist()) == [1, 1, 1, 1, 4]
    node = roads.nodes[int(roads.degree.argmax())] - [METRE.c, METRE.f]
    np.testing.assert_allclose(node, [95.0, -100.0], atol=3.0)


def test_roundabouts_and_divided_roads_keep_their_parallel_edges() -> None:
    ring = network(np.kron(ring_with_arms(), np.ones((3, 3), bool)), noise=CleanOptions(min_spur=3))
    assert ring.graph().number_of_edges(*ring.edges[_doubled(ring)[0]]) == 2
    divided = drawn(
        [[(0, 50), (40, 50)], [(260, 50), (300, 50)],
         [(40, 50), (60, 40), (240, 40), (260, 50)], [(40, 50), (60, 60), (240, 60), (260, 50)]],
        (100, 300), 6,
    )  # fmt: skip
    roads = network(divided)
    assert len(_doubled(roads)) == 2
    assert roads.length.sum() == pytest.approx(80 + 2 * (180 + 2 * math.hypot(20, 10)), rel=0.03)


def _doubled(roads: Network) -> list[int]:
    pairs = [tuple(sorted(e)) for e in roads.edges.tolist()]
    return [i for i, p in enumerate(pairs) if pairs.count(p) == 2]


def test_spurs_go_and_side_roads_stay() -> None:
    road = [(0, 60), (300, 60)]
    stump, side = [(100, 60), (100, 50)], [(200, 60), (200, 20)]
    assert len(network(drawn([road, stump], (120, 300), 8))) == 1
    kept = network(drawn([road, side], (120, 300), 8))
    assert len(kept) == 3 and sorted(kept.degree.tolist()) == [1, 1, 1, 3]


def test_a_road_that_leaves_the_scene_beside_a_crossing_stays() -> None:
    roads = network(drawn([[(0, 60), (300, 60)], [(288, 0), (288, 120)]], (120, 300), 10))
    assert sorted(roads.degree.tolist()) == [1, 1, 1, 1, 4]
    bulge = drawn([[(0, 60), (300, 60)], [(150, 60), (150, 68)]], (66, 300), 10)
    assert len(network(bulge)) == 1


def test_a_road_under_a_tree_is_bridged_along_its_direction() -> None:
    mask = drawn([[(0, 60), (120, 60)], [(140, 60), (300, 60)]], (120, 300), 8)
    roads = network(mask)
    assert len(roads) == 1 and roads.length[0] == pytest.approx(300, abs=2)
    assert 0.04 < roads.bridged[0] < 0.12
    assert len(network(mask, gaps=NO_GAPS)) == 2
    side = drawn([[(0, 60), (300, 60)], [(150, 0), (150, 46)]], (120, 300), 8)
    joined = network(side)
    assert sorted(joined.degree.tolist()) == [1, 1, 1, 3] and joined.components == 1


def test_a_side_road_does_not_bend_the_road_that_it_meets() -> None:
    mask = drawn([[(0, 60), (300, 60)], [(150, 60), (150, 120)]], (120, 300), 16)
    roads = network(mask)
    assert sorted(roads.degree.tolist()) == [1, 1, 1, 3]
    node = roads.nodes[int(roads.degree.argmax())] - [METRE.c, METRE.f]
    np.testing.assert_allclose(node, [150, -60], atol=1.0)
    through = [x for x in roads.lines if abs(x.coords[0][1] - x.coords[-1][1]) < 5]
    rows = METRE.f - np.concatenate([shapely.get_coordinates(x) for x in through])[:, 1]
    assert len(through) == 2 and np.abs(rows - 60).max() < 1.0


def test_scores_decide_which_gap_is_closed() -> None:
    scores = drawn([[(0, 30), (120, 30)], [(140, 30), (300, 30)]], (120, 300), 8) * 0.9
    scores += drawn([[(0, 90), (120, 90)], [(140, 90), (300, 90)]], (120, 300), 8) * 0.9
    scores[26:34, 120:140] = 0.3
    roads = network(scores)
    assert len(roads) == 3
    whole = roads.lines[int(roads.length.argmax())]
    assert METRE.f - whole.centroid.y == pytest.approx(30, abs=1)
    assert roads.score[int(roads.length.argmax())] == pytest.approx(0.86, abs=0.03)


@pytest.mark.parametrize("width", [1, 3, 6, 9, 20])
@pytest.mark.parametrize("angle", [0, 30, 45, 90])
def test_lengths_and_widths_in_metres(width: int, angle: int) -> None:
    turn = math.radians(angle)
    way = np.array([math.cos(turn), math.sin(turn)])
    start, stop = 150 - 100 * way, 150 + 100 * way
    mask = drawn([[tuple(start), tuple(stop)]], (300, 300), width)
    if width == 1:
        mask = np.zeros((300, 300), bool)
        steps = np.rint(start + np.linspace(0, 200, 2000)[:, None] * way).astype(int)
        mask[steps[:, 1], steps[:, 0]] = True
    roads = network(mask)
    assert len(roads) == 1
    assert roads.length[0] == pytest.approx(200, rel=0.025, abs=width * 0.4)
    assert roads.width[0] == pytest.approx(width, abs=1.4 if width == 1 else 0.6 + 0.03 * width)


def _georeferenced(crs: str, lon: float, lat: float, metres: float) -> Affine:
    """A geographic transform with pixels of some metres north and east."""
    assert crs == "EPSG:4326"
    north = metres / 111_320.0
    return Affine(north / math.cos(math.radians(lat)), 0, lon, 0, -north, lat)


@pytest.mark.parametrize(("lon", "lat"), [(10.0, 0.0), (10.0, 48.0), (10.0, 78.0), (179.999, 60.0)])
def test_metres_in_degrees_at_high_latitude_and_across_the_antimeridian(
    lon: float, lat: float
) -> None:
    mask = drawn([[(0, 100), (300, 100)], [(150, 0), (150, 200)]], (200, 300), 8)
    transform = _georeferenced("EPSG:4326", lon, lat, 1.0)
    roads = roads_from_array(mask, transform=transform, crs="EPSG:4326")
    assert sorted(roads.degree.tolist()) == [1, 1, 1, 1, 4]
    assert roads.length.sum() == pytest.approx(500, rel=0.01)
    assert roads.width.mean() == pytest.approx(8, rel=0.1)


def test_pixels_that_are_not_square_measure_the_same() -> None:
    """At 78 degrees a pixel of equal degrees is a fifth as wide as it is high."""
    north = 2.0 / 111_320.0
    mask = np.zeros((150, 900), bool)
    mask[70:74] = True  # 8 m high
    mask[:, 430:470] = True  # 40 px of 0.42 m
    roads = roads_from_array(
        mask, transform=Affine(north, 0, 20.0, 0, -north, 78.0), crs="EPSG:4326"
    )
    east = 2.0 * math.cos(math.radians(78.0)) * 1.0015
    assert roads.length.sum() == pytest.approx(900 * east + 300, rel=0.02)
    assert set(np.round(roads.width / 4).astype(int)) == {2, 4}


def test_the_same_road_has_the_same_length_in_every_crs() -> None:
    from terradapt.raster.georef import move_points, parse_crs

    mask = drawn([[(0, 100), (300, 150)]], (200, 300), 8)
    corner = move_points(
        np.array([[METRE.c, METRE.f]]), parse_crs(UTM, ""), parse_crs("EPSG:3857", "")
    )[0]
    stretch = 1 / math.cos(math.radians(45.15))
    mercator = Affine(stretch, 0, corner[0], 0, -stretch, corner[1])
    one = roads_from_array(mask, transform=METRE, crs=UTM)
    two = roads_from_array(mask, transform=mercator, crs="EPSG:3857")
    assert two.length.sum() == pytest.approx(one.length.sum(), rel=2e-3)
    feet = roads_from_array(
        mask, transform=Affine(1 / 0.3048, 0, 2e6, 0, -1 / 0.3048, 6e5), crs="EPSG:2264"
    )
    assert feet.length.sum() == pytest.approx(one.length.sum(), rel=1e-3)


def test_lines_are_smooth_simple_and_near_the_centre() -> None:
    turn = np.linspace(0, np.pi, 60)
    arc = list(zip(150 + 100 * np.cos(turn), 30 + 100 * np.sin(turn), strict=True))
    roads = network(drawn([arc], (160, 300), 8))
    assert len(roads) == 1
    line = shapely.transform(roads.lines[0], lambda xy: (xy - [METRE.c, METRE.f]) * [1, -1])
    assert shapely.hausdorff_distance(line, shapely.LineString(arc)) < 4
    assert shapely.get_num_coordinates(line) < 40
    assert roads.length[0] == pytest.approx(100 * np.pi, rel=0.02)


def test_all_road_no_road_and_single_pixels_are_empty_networks() -> None:
    lone = np.zeros((60, 60), bool)
    lone[30, 30] = True
    for mask in (np.zeros((60, 60), bool), np.ones((60, 60), bool), np.ones((1, 1), bool), lone):
        roads = network(mask)
        assert len(roads) == len(roads.nodes) == 0
        assert roads.summary()["components"] == 0


def test_a_ring_is_one_loop() -> None:
    y, x = np.mgrid[:200, :200]
    ring = np.abs(np.hypot(y - 100, x - 100) - 60) <= 4
    roads = network(ring)
    assert roads.edges.tolist() == [[0, 0]] and roads.degree.tolist() == [2]
    assert roads.length[0] == pytest.approx(2 * np.pi * 60, rel=0.03)


def test_nan_scores_are_no_road() -> None:
    scores = np.full((80, 200), np.nan, np.float32)
    scores[38:44, :90] = 0.9
    roads = network(scores)
    assert len(roads) == 1 and roads.length[0] == pytest.approx(90, abs=2)
    assert np.isfinite([roads.width, roads.score, roads.length]).all()
    assert len(network(np.full((80, 200), np.nan, np.float32))) == 0


def test_networkx_graph_has_every_edge_and_attribute() -> None:
    roads = network(random_roads(3, (200, 200), 4, 6.0))
    graph = roads.graph()
    assert graph.number_of_edges() == len(roads) and graph.number_of_nodes() == len(roads.nodes)
    assert dict(graph.degree()) == dict(enumerate(roads.degree.tolist()))
    for u, v, edge in graph.edges(data=True):
        ends = {tuple(edge["geometry"].coords[0]), tuple(edge["geometry"].coords[-1])}
        assert ends <= {(graph.nodes[n]["x"], graph.nodes[n]["y"]) for n in (u, v)}
        assert edge["length"] == pytest.approx(edge["geometry"].length / 0.9996, rel=1e-6)
    assert in_metres((2, 2)).resolution == 1.0
