"""Thinning, tracing and joining: laws, and skimage and skan as oracles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_closing, distance_transform_cdt
from skimage.measure import label
from skimage.morphology import thin as reference_thin

from road_files import in_metres, random_mask, random_roads, ring_with_arms
from terradapt.vector.lattice.graph import Graph
from terradapt.vector.lattice.metric import Metric
from terradapt.vector.roads import thin as thinning
from terradapt.vector.roads.bits import close_pinholes, depths, pack, unpack
from terradapt.vector.roads.clean import lengths
from terradapt.vector.roads.skeleton import Reach, skeleton_graph
from terradapt.vector.roads.source import ArraySource
from terradapt.vector.roads.thin import thin

SEEDS = st.integers(0, 10_000)


@given(SEEDS, st.integers(1, 140), st.integers(1, 140), st.integers(0, 12))
@settings(max_examples=40, deadline=None)
@example(0, 1, 1, 3)
@example(1, 3, 64, 2)
@example(2, 5, 65, 2)
def test_thinning_is_guo_and_halls_iteration_by_iteration(
    seed: int, height: int, width: int, iterations: int
) -> None:
    mask = random_mask(seed, (height, width), 1.5, 0.5)
    expected = reference_thin(mask, max_num_iter=iterations) if iterations else mask
    np.testing.assert_array_equal(unpack(thin(pack(mask), iterations)), expected)


@given(SEEDS, st.integers(1, 12), st.sampled_from([1, 1000]))
@settings(max_examples=20, deadline=None)
def test_thinning_does_not_depend_on_strips_nor_on_what_is_picked_out(
    seed: int, iterations: int, sparse: int
) -> None:
    mask = random_mask(seed, (150, 200), 3.0, 0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(thinning, "_STRIP", 23)
        patch.setattr(thinning, "_SPARSE", sparse)
        found = unpack(thin(pack(mask), iterations))
    np.testing.assert_array_equal(found, reference_thin(mask, max_num_iter=iterations))


@given(SEEDS)
@settings(max_examples=10, deadline=None)
def test_depths_are_chessboard_distances(seed: int) -> None:
    mask = random_mask(seed, (50, 150), 4.0, 0.5)
    distance = distance_transform_cdt(np.pad(mask, 1), "chessboard")[1:-1, 1:-1]
    row, col = np.nonzero(mask)
    np.testing.assert_array_equal(depths(pack(mask), row, col), distance[mask] - 1)


@given(SEEDS)
@settings(max_examples=10, deadline=None)
def test_pinholes_are_closed_as_scipy_closes(seed: int) -> None:
    mask = random_mask(seed, (50, 70), 0.8, 0.6)
    expected = binary_closing(np.pad(mask, 3), np.ones((3, 3)))[3:-3, 3:-3] | mask
    np.testing.assert_array_equal(unpack(close_pinholes(pack(mask))), expected)


def assert_same(one: Graph, two: Graph) -> None:
    np.testing.assert_array_equal(one.ends, two.ends)
    np.testing.assert_array_equal(one.place, two.place)
    np.testing.assert_array_equal(one.chains.codes, two.chains.codes)
    np.testing.assert_array_equal(one.chains.row, two.chains.row)
    np.testing.assert_array_equal(one.chains.col, two.chains.col)
    np.testing.assert_array_equal(one.sums, two.sums)
    np.testing.assert_array_equal(one.radius, two.radius)


@given(SEEDS, st.sampled_from([3.0, 8.0, 16.0]), st.integers(15, 90), st.booleans())
@settings(max_examples=12, deadline=None)
def test_the_graph_of_a_cut_scene_is_that_of_one_piece(
    seed: int, max_width: float, block: int, lines: bool
) -> None:
    rng = np.random.default_rng(seed)
    size = int(rng.integers(20, 150)), int(rng.integers(20, 150))
    mask = random_roads(seed, size, 4, 5.0) if lines else random_mask(seed, size, 2.5, 0.45)
    source = ArraySource(mask, in_metres(size))
    whole = skeleton_graph(source, max_width, block=1000)
    assert_same(whole, skeleton_graph(source, max_width, block=block))


def pixel_graph(mask: np.ndarray) -> tuple[Graph, float]:
    """The graph of a line drawing and its length, px."""
    source = ArraySource(mask, in_metres(mask.shape))
    graph = skeleton_graph(source, 16.0)
    return graph, float(lengths(graph, Metric.of(source.georef)).sum())


def test_a_roundabout_keeps_both_sides() -> None:
    """A tracer that keeps one edge per pair of nodes loses a half of the ring."""
    graph, length = pixel_graph(ring_with_arms())
    assert len(graph) == 4
    pairs = [tuple(sorted(e)) for e in graph.ends.tolist()]
    assert sorted(pairs.count(p) for p in set(pairs)) == [1, 1, 2]
    assert length == pytest.approx(2 * 70 + 2 * np.pi * 40 * 1.06, rel=0.03)


def skeleton_of(mask: np.ndarray) -> np.ndarray:
    """The skeleton that the graph is made of, for masks away from the scene's edge."""
    iterations = Reach(Metric.of(in_metres(mask.shape)), 16.0).iterations
    return unpack(thin(close_pinholes(pack(mask)), iterations))


@pytest.mark.slow  # skan compiles itself for most of a minute
@pytest.mark.parametrize("seed", range(10))
def test_lengths_and_edges_agree_with_skan(seed: int) -> None:
    import skan

    ring = skan.Skeleton(reference_thin(ring_with_arms()))
    graph, length = pixel_graph(ring_with_arms())
    assert len(graph) == ring.n_paths
    assert length == pytest.approx(ring.path_lengths().sum(), rel=0.01)
    mask = np.pad(random_roads(seed, (150, 150), 2 + seed % 5, 5.0), 12)
    _, length = pixel_graph(mask)
    branches = skan.Skeleton(skeleton_of(mask))
    assert length == pytest.approx(branches.path_lengths().sum(), rel=0.06)


@given(SEEDS, st.integers(2, 6))
@settings(max_examples=10, deadline=None)
def test_parts_and_holes_are_those_of_the_skeleton(seed: int, count: int) -> None:
    mask = np.pad(random_roads(seed, (150, 150), count, 5.0), 12)
    graph, _ = pixel_graph(mask)
    skeleton = skeleton_of(mask)
    parts = label(skeleton, connectivity=2).max()
    assert len(set(graph.components())) == parts
    holes = label(~skeleton, connectivity=1).max() - 1
    assert len(graph) - len(graph.place) + parts == holes


def test_a_wide_area_is_one_node_where_its_roads_meet() -> None:
    mask = np.zeros((200, 200), bool)
    mask[60:140, 60:140] = True
    mask[98:103] = True
    source = ArraySource(mask, in_metres(mask.shape))
    graph = skeleton_graph(source, 20.0)
    hub = int(graph.degree.argmax())
    assert graph.degree[hub] >= 2
    np.testing.assert_allclose(graph.place[hub], [99.5, 99.5], atol=1.5)
