"""APLS and TOPO: laws on random networks, networkx as oracle, real pairs."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from terradapt.errors import DataError
from terradapt.metrics.network import Places, Roads, path_lengths, snap
from terradapt.metrics.network_apls import AplsOptions, apls, control_points
from terradapt.metrics.network_files import (
    INVENTED,
    MISSED,
    TRUE,
    compare_files,
    draw_comparison,
    read_pair,
)
from terradapt.metrics.network_topo import topo
from terradapt.raster import Georef

SEEDS = st.integers(0, 100_000)


def streets(seed: int, side: int = 4, step: float = 90.0) -> list[shapely.LineString]:
    """A bent street grid with some streets missing; junctions share vertices."""
    rng = np.random.default_rng(seed)
    places = {
        (r, c): np.array([c, r]) * step + rng.uniform(-20, 20, 2)
        for r in range(side) for c in range(side)
    }  # fmt: skip
    lines = []
    for (r, c), here in places.items():
        for other in ((r + 1, c), (r, c + 1)):
            if other in places and rng.random() > 0.15:
                middle = (here + places[other]) / 2 + rng.uniform(-12, 12, 2)
                lines.append(shapely.LineString([here, middle, places[other]]))
    return lines


def scores(truth: Roads, proposal: Roads) -> tuple[float, float]:
    return apls(truth, proposal)["apls"], topo(truth, proposal)["topo_f1"]


@given(SEEDS)
@settings(max_examples=15, deadline=None)
def test_identical_networks_score_one_and_empty_ones_zero(seed: int) -> None:
    roads, empty = Roads.from_lines(streets(seed)), Roads.from_lines([])
    assert scores(roads, roads) == (1.0, 1.0)
    assert scores(roads, empty) == scores(empty, roads) == (0.0, 0.0)
    assert scores(empty, empty) == (1.0, 1.0)


@given(SEEDS)
@settings(max_examples=15, deadline=None)
def test_deletion_lowers_the_score(seed: int) -> None:
    lines = streets(seed)
    gone = np.random.default_rng(seed).integers(len(lines))
    truth = Roads.from_lines(lines)
    less = Roads.from_lines([x for i, x in enumerate(lines) if i != gone])
    by_path, by_place = scores(truth, less)
    assert by_path < 1.0 and by_place < 1.0
    much_less = Roads.from_lines(lines[: len(lines) // 3])
    assert scores(truth, much_less)[1] < by_place


@given(SEEDS)
@settings(max_examples=15, deadline=None)
def test_splitting_direction_and_order_change_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lines, other = streets(seed), Roads.from_lines(streets(seed + 1))
    parts = []
    for line in lines:
        at = np.sort(rng.uniform(0.1, 0.9, 2)) * line.length
        cuts = [line.interpolate(a) for a in at]
        points = [(0.0, line.coords[0]), (line.length, line.coords[-1])]
        points += [(line.project(shapely.Point(p)), p) for p in line.coords[1:-1]]
        points += [(a, c.coords[0]) for a, c in zip(at, cuts, strict=True)]
        corners = [p for _, p in sorted(points)]
        parts += [shapely.LineString(pair) for pair in pairwise(corners)]
    turned = [p.reverse() if rng.random() < 0.5 else p for p in parts]
    rng.shuffle(turned)
    one, two = Roads.from_lines(lines), Roads.from_lines(turned)
    assert len(one.edges) == len(two.edges) and len(one.nodes) == len(two.nodes)
    for a, b in ((one, two), (two, one)):
        assert apls(a, b)["apls"] == pytest.approx(1.0, abs=1e-9)
    assert apls(one, other)["apls"] == pytest.approx(apls(two, other)["apls"], abs=1e-6)
    assert topo(one, other)["topo_f1"] == pytest.approx(topo(two, other)["topo_f1"], abs=1e-6)


@given(SEEDS)
@settings(max_examples=10, deadline=None)
def test_path_lengths_are_those_of_networkx(seed: int) -> None:
    rng = np.random.default_rng(seed)
    roads = Roads.from_lines([*streets(seed, 3), shapely.Point(45, 45).buffer(30).exterior])
    count = 12
    edge = rng.integers(0, len(roads.edges), count)
    along = rng.uniform(0, 1, count) * roads.length[edge]
    places = Places(edge, along, np.zeros((count, 2)))
    graph = nx.Graph()
    for e, (u, v) in enumerate(roads.edges.tolist()):
        stops = sorted((float(along[i]), f"p{i}") for i in np.flatnonzero(edge == e))
        chain = [(0.0, u), *stops, (float(roads.length[e]), v)]
        for (a, x), (b, y) in pairwise(chain):
            old = graph.get_edge_data(x, y, {"weight": np.inf})["weight"]
            graph.add_edge(x, y, weight=min(old, b - a))
    found = path_lengths(roads, places, np.arange(count))
    for i in range(count):
        true = nx.single_source_dijkstra_path_length(graph, f"p{i}")
        expected = [true.get(f"p{j}", np.inf) for j in range(count)]
        np.testing.assert_allclose(found[i], expected, atol=1e-9)


def test_apls_of_a_detour_by_hand() -> None:
    """Two nodes 100 m apart; the proposal goes around by 150 m: 1 - 50/100 and 1 - 50/150."""
    truth = Roads.from_lines([shapely.LineString([(0, 0), (100, 0)])])
    around = shapely.LineString([(0, 0), (50, 55.9017), (100, 0)])
    proposal = Roads.from_lines([around])
    result = apls(truth, proposal, AplsOptions(spacing=1000))
    assert result["apls_truth_to_proposal"] == pytest.approx(0.5, abs=1e-4)
    assert result["apls_proposal_to_truth"] == pytest.approx(2 / 3, abs=1e-4)
    assert result["apls"] == pytest.approx(2 * 0.5 * (2 / 3) / (0.5 + 2 / 3), abs=1e-4)
    assert "SpaceNet" in result["definition"] and "4 m" in result["definition"]


def test_control_points_lie_every_50_m_on_curved_edges_only() -> None:
    straight = shapely.LineString([(0, 0), (400, 0)])
    bent = shapely.LineString([(0, 500), (0, 600), (100, 600)])
    points = control_points(Roads.from_lines([straight, bent]), AplsOptions())
    assert len(points.edge) == 4 + 3
    everywhere = control_points(Roads.from_lines([straight, bent]), AplsOptions(curved=-1))
    assert len(everywhere.edge) == 4 + 3 + 7
    nodes = control_points(Roads.from_lines([straight, bent]), AplsOptions(max_nodes=3))
    assert len(nodes.edge) == 4


def test_snapping_has_a_reach() -> None:
    roads = Roads.from_lines([shapely.LineString([(0, 0), (100, 0)])])
    found = snap(roads, np.array([[30.0, 3.9], [30.0, 4.1]]), 4.0)
    assert found.edge.tolist() == [0, -1] and found.along[0] == pytest.approx(30)


def test_rings_parallel_edges_and_loose_ends_are_counted() -> None:
    ring = shapely.LinearRing([(0, 0), (40, 0), (40, 40), (0, 40)])
    twin = [[(100, 0), (120, 10), (140, 0)], [(100, 0), (120, -10), (140, 0)]]
    tail = [(140, 0), (200, 0)]
    roads = Roads.from_lines([ring, *map(shapely.LineString, [*twin, tail])])
    assert len(roads.edges) == 3
    figures = roads.connectivity()
    assert (figures["components"], figures["dead_ends"]) == (2, 1)
    assert figures["length_km"] * 1000 == pytest.approx(160 + 4 * np.hypot(20, 10) + 60)


def write_lines(path: Path, lines: list[list[tuple[float, float]]]) -> Path:
    features = [
        {"type": "Feature", "properties": {}, "geometry": {"type": "LineString", "coordinates": c}}
        for c in lines
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def test_files_in_degrees_are_compared_in_metres(tmp_path: Path) -> None:
    truth = write_lines(tmp_path / "t.geojson", [[(10.0, 48.0), (10.01, 48.0)]])
    other = write_lines(tmp_path / "p.geojson", [[(10.0, 48.00003), (10.01, 48.00003)]])
    one, two = read_pair(truth, other)
    assert one.length.sum() == pytest.approx(746, rel=2e-3)
    assert compare_files(truth, other)["apls"] == pytest.approx(1.0, abs=1e-4)
    assert len(two.edges) == 1


def test_files_that_are_no_networks_are_refused(tmp_path: Path) -> None:
    good = write_lines(tmp_path / "t.geojson", [[(10.0, 48.0), (10.01, 48.0)]])
    broken = tmp_path / "broken.gpkg"
    broken.write_bytes(b"no database")
    points = tmp_path / "points.geojson"
    points.write_text('{"type": "Point", "coordinates": [1, 2]}')
    for bad in (broken, points, tmp_path / "none.geojson"):
        with pytest.raises(DataError) as error:
            read_pair(good, bad)
        assert bad.name in error.value.message and error.value.fix


def test_the_picture_tells_true_missed_and_invented_roads() -> None:
    from rasterio.transform import Affine

    georef = Georef(Affine(2.0, 0, 0, 0, -2.0, 0), None, 100, 100)
    image = np.full((100, 100, 3), 90, np.uint8)
    both, gone, new = (shapely.LineString([(10, -y), (190, -y)]) for y in (40, 100, 160))
    drawn = draw_comparison(image, np.array([both, gone]), np.array([both, new]), georef, reach=3)
    assert [tuple(drawn[y, 50]) for y in (20, 50, 80)] == [TRUE, MISSED, INVENTED]
    assert (image == 90).all() and tuple(drawn[5, 50]) == (85, 85, 85)


@pytest.mark.data
@pytest.mark.parametrize("tile", ["99", "990", "991", "995", "997", "998", "999"])
def test_real_pairs_of_vegas(real_data: Path, tile: str) -> None:
    folder = real_data / "formats" / "vegas_road_graphs"
    truth, other = (
        folder / kind / f"AOI_2_Vegas_img{tile}.geojson" for kind in ("spacenetroads", "osm")
    )
    assert compare_files(truth, truth)["apls"] == compare_files(other, other)["apls"] == 1.0
    result = compare_files(truth, other)
    assert 0.2 < result["apls"] < 0.9 and result["topo_precision"] > 0.8
    assert result["truth"]["components"] >= 1
