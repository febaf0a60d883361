"""Road networks against road networks: APLS and TOPO, with the definition in the result.

Both metrics work on :class:`Roads`: lines noded at shared vertices and joined through every vertex
of degree 2, so that neither the splitting of a line, nor its direction, nor the order of the file
changes anything.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components, dijkstra, maximum_bipartite_matching
from scipy.spatial import cKDTree

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_GRAIN = 1e-3  # m: vertices closer than this are one
_ROWS = 256  # control points whose paths are compared at once


@dataclass(frozen=True)
class Roads:
    """A road network in metres: N nodes, E edges, parallel edges and loops included.

    Attributes:
        nodes: (N, 2) x and y, m.
        edges: (E, 2) nodes at the ends of each line.
        lines: (E,) shapely LineStrings, m.
        length: (E,) m.
    """

    nodes: Floats
    edges: Ints
    lines: NDArray[Any]
    length: Floats

    @classmethod
    def from_lines(cls, lines: Iterable[Any]) -> Roads:
        """Make a network of lines in metres; they are joined where they share a vertex."""
        parts = shapely.get_parts(np.asarray(list(lines), object))
        parts = parts[~(shapely.is_missing(parts) | shapely.is_empty(parts))]
        coords, owner = shapely.get_coordinates(parts, return_index=True)
        keys = np.rint(coords / _GRAIN).astype(np.int64)
        vertices, first, index = np.unique(keys, axis=0, return_index=True, return_inverse=True)
        index = index.reshape(-1)
        same = owner[1:] == owner[:-1]
        pairs = np.sort(np.stack([index[:-1][same], index[1:][same]], axis=1), axis=1)
        pairs = np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0)
        return _noded(coords[first].reshape(-1, 2), pairs, len(vertices))

    @property
    def degree(self) -> Ints:
        """(N,) edge ends at each node; a loop counts twice."""
        return np.bincount(self.edges.ravel(), minlength=len(self.nodes))

    @cached_property
    def matrix(self) -> Any:
        """(N, N) sparse lengths of the shortest edge between two nodes."""
        count = len(self.nodes)
        plain = self.edges[:, 0] != self.edges[:, 1]
        pair, length = np.sort(self.edges[plain], axis=1), self.length[plain]
        order = np.lexsort((length, pair[:, 1], pair[:, 0]))
        pair, length = pair[order], length[order]
        first = np.ones(len(pair), bool)
        first[1:] = (pair[1:] != pair[:-1]).any(axis=1)
        one, two = pair[first].T
        return csr_matrix((length[first], (one, two)), shape=(count, count))

    def connectivity(self) -> dict[str, float]:
        """Return kilometres, nodes, edges, connected components and dead ends."""
        parts = connected_components(self.matrix, directed=False)[0] if len(self.nodes) else 0
        return {
            "length_km": float(self.length.sum()) / 1000.0,
            "nodes": len(self.nodes),
            "edges": len(self.edges),
            "components": int(parts),
            "dead_ends": int((self.degree == 1).sum()),
        }


def _noded(xy: Floats, pairs: Ints, count: int) -> Roads:
    """Join segments through vertices of degree 2."""
    if not len(pairs):
        return Roads(np.empty((0, 2)), np.empty((0, 2), np.int64), np.empty(0, object), np.zeros(0))
    degree = np.bincount(pairs.ravel(), minlength=count)
    near: dict[int, list[int]] = defaultdict(list)
    for one, two in pairs.tolist():
        near[one].append(two)
        near[two].append(one)
    chains = list(_chains(near, degree))
    ends = np.array([(c[0], c[-1]) for c in chains])
    used, edges = np.unique(ends, return_inverse=True)
    sizes = [len(c) for c in chains]
    lines = shapely.linestrings(
        xy[np.concatenate(chains)], indices=np.repeat(np.arange(len(chains)), sizes)
    )
    return Roads(xy[used], edges.reshape(-1, 2), lines, shapely.length(lines))


def _chains(near: dict[int, list[int]], degree: Ints) -> Iterator[list[int]]:
    """Yield the vertices of every edge from node to node; a ring begins at its least vertex."""
    left = {(a, b) for a, others in near.items() for b in others}
    starts = [v for v in sorted(near) if degree[v] != 2]
    for begin in (*starts, *sorted(near)):
        for onward in sorted(near[begin]):
            if (begin, onward) not in left:
                continue
            chain = [begin, onward]
            while degree[chain[-1]] == 2 and chain[-1] != begin:
                one, two = near[chain[-1]]
                chain.append(two if one == chain[-2] else one)
            left.difference_update(pairwise(chain))
            left.difference_update(pairwise(chain[::-1]))
            yield chain


@dataclass(frozen=True)
class Places:
    """M places on a network.

    Attributes:
        edge: (M,) the edge; -1 where the network is out of reach.
        along: (M,) m from the edge's beginning.
        xy: (M, 2) m.
    """

    edge: Ints
    along: Floats
    xy: Floats


@dataclass(frozen=True)
class AplsOptions:
    """The numbers of APLS; the defaults are those of SpaceNet (CosmiQ ``apls.py``).

    Args:
        spacing: Control points are put this far apart along an edge, m.
        curved: An edge gets control points between its nodes only where its length differs from
            the diagonal of its bounding box by this share or more; below 0 every edge does.
        max_nodes: A network of more nodes has its nodes alone as control points.
        snap: Control points further from the other network are missing there, m.
        min_path: Shorter paths are not compared, m.
    """

    spacing: float = 50.0
    curved: float = 0.012
    max_nodes: int = 500
    snap: float = 4.0
    min_path: float = 10.0

    @property
    def definition(self) -> str:
        """The definition in words, for a report."""
        return (
            f"APLS as SpaceNet (CosmiQ): control points at nodes and every {self.spacing:g} m of "
            f"curved edges (up to {self.max_nodes} nodes), snap {self.snap:g} m, paths from "
            f"{self.min_path:g} m, both directions, harmonic mean"
        )


def apls(truth: Roads, proposal: Roads, options: AplsOptions = AplsOptions()) -> dict[str, Any]:
    """Return the average path length similarity of two networks.

    Van Etten, Lindenbaum, Bacastow, "SpaceNet: A remote sensing dataset and challenge series",
    2018, Eqs 1-2. Every path between two control points of one network is compared with the path
    between the same places on the other: ``1 - mean(min(1, |L - L'| / L))``; a missing path counts
    1. Where no path is as long as ``min_path``, all paths count.

    Args:
        truth: The true network, m.
        proposal: The network to be judged, m, in the same coordinates.
        options: The numbers.

    Returns:
        ``apls`` (harmonic mean of both directions), ``apls_truth_to_proposal``,
        ``apls_proposal_to_truth``, all 0..1, and ``definition``. An empty network scores 0, two
        empty ones 1.
    """
    if not len(truth.edges) or not len(proposal.edges):
        both = float(not len(truth.edges) and not len(proposal.edges))
        forward = backward = both
    else:
        forward = _similarity(truth, proposal, options)
        backward = _similarity(proposal, truth, options)
    total = forward + backward
    return {
        "apls": 2 * forward * backward / total if total > 0 else 0.0,
        "apls_truth_to_proposal": forward,
        "apls_proposal_to_truth": backward,
        "definition": options.definition,
    }


def control_points(roads: Roads, options: AplsOptions) -> Places:
    """Return a network's nodes and the points between them at which paths begin and end."""
    node_edge = np.full(len(roads.nodes), -1)
    node_along = np.zeros(len(roads.nodes))
    for side in (1, 0):
        node_edge[roads.edges[:, side]] = np.arange(len(roads.edges))
        node_along[roads.edges[:, side]] = side * roads.length
    edge, along = node_edge, node_along
    if len(roads.nodes) <= options.max_nodes:
        between = [_between(roads, e, options) for e in range(len(roads.edges))]
        edge = np.concatenate([edge, np.repeat(np.arange(len(between)), [len(b) for b in between])])
        along = np.concatenate([along, *between])
    xy = shapely.get_coordinates(shapely.line_interpolate_point(roads.lines[edge], along))
    return Places(edge, along, xy)


def _between(roads: Roads, edge: int, options: AplsOptions) -> Floats:
    length = roads.length[edge]
    west, south, east, north = shapely.bounds(roads.lines[edge])
    straight = np.hypot(east - west, north - south)
    if abs(straight - length) / length < options.curved or length < 0.75 * options.spacing:
        return np.zeros(0)
    if length <= options.spacing:
        return np.array([length / 2])
    count = int(np.ceil(length / options.spacing)) + 1
    return np.linspace(0.0, length, count)[1:-1]


def snap(roads: Roads, xy: Floats, reach: float) -> Places:
    """Return the nearest places of a network within ``reach``, m.

    Of edges at the same distance the one counts that has a node nearest.
    """
    edge = np.full(len(xy), -1)
    along = np.zeros(len(xy))
    points = shapely.points(xy)
    found, lines = shapely.STRtree(roads.lines).query_nearest(points, max_distance=reach)
    at = shapely.line_locate_point(roads.lines[lines], points[found])
    order = np.lexsort((lines, np.minimum(at, roads.length[lines] - at), found))
    found, lines, at = found[order], lines[order], at[order]
    first = np.ones(len(found), bool)
    first[1:] = found[1:] != found[:-1]
    edge[found[first]], along[found[first]] = lines[first], at[first]
    return Places(edge, along, xy)


def path_lengths(roads: Roads, places: Places, rows: Ints) -> Floats:
    """(R, M) metres of the shortest paths from some places to all; inf where there is none.

    Paths run between the ends of the places' edges, and along an edge where both lie on it.
    """
    here = places.edge >= 0
    edge = np.where(here, places.edge, 0)
    ends = roads.edges[edge]
    to_end = np.stack([places.along, roads.length[edge] - places.along], axis=1)
    sources, index = np.unique(ends[rows], return_inverse=True)
    far = dijkstra(roads.matrix, directed=False, indices=sources)
    index = index.reshape(-1, 2)
    best = np.full((len(rows), len(edge)), np.inf)
    for one in (0, 1):
        from_end = far[index[:, one]] + to_end[rows, one][:, None]
        for two in (0, 1):
            np.minimum(best, from_end[:, ends[:, two]] + to_end[:, two], out=best)
    row, col = np.nonzero(edge[rows][:, None] == edge[None, :])
    direct = np.abs(places.along[rows][row] - places.along[col])
    best[row, col] = np.minimum(best[row, col], direct)
    best[~here[rows]] = np.inf
    best[:, ~here] = np.inf
    return best


def _similarity(one: Roads, two: Roads, options: AplsOptions) -> float:
    """Return how far the paths of one network are found again in the other, 0..1."""
    points = control_points(one, options)
    other = snap(two, points.xy, options.snap)
    sums = np.zeros((2, 2))  # all paths; paths of min_path and more: difference, number
    for begin in range(0, len(points.edge), _ROWS):
        rows = np.arange(begin, min(begin + _ROWS, len(points.edge)))
        true, found = path_lengths(one, points, rows), path_lengths(two, other, rows)
        for i, least in enumerate((1e-9, options.min_path)):
            kept = np.isfinite(true) & (true >= least)
            length, match = true[kept], found[kept]
            gone = ~np.isfinite(match)
            differ = np.abs(length - np.where(gone, 0.0, match)) / length
            differ[differ < 1e-9] = 0.0  # rounding of places on lines
            sums[i] += np.minimum(np.where(gone, 1.0, differ), 1.0).sum(), len(length)
    differ, number = sums[1] if sums[1, 1] else sums[0]
    return float(1.0 - differ / number) if number else 0.0


@dataclass(frozen=True)
class TopoOptions:
    """The numbers of TOPO.

    Args:
        spacing: Starts lie at nodes and this far apart along edges, m.
        max_starts: More starts are thinned evenly.
        radius: From a start, what can be reached within this is compared, m.
        interval: Holes and marbles lie this far apart along edges, m.
        reach: A marble fills a hole within this, m.
    """

    spacing: float = 50.0
    max_starts: int = 500
    radius: float = 300.0
    interval: float = 10.0
    reach: float = 8.0

    @property
    def definition(self) -> str:
        """The definition in words, for a report."""
        return (
            f"TOPO (Biagioni and Eriksson 2012): starts every {self.spacing:g} m, radius "
            f"{self.radius:g} m, holes and marbles every {self.interval:g} m, matched one to one "
            f"within {self.reach:g} m"
        )


def topo(truth: Roads, proposal: Roads, options: TopoOptions = TopoOptions()) -> dict[str, Any]:
    """Return TOPO's precision, recall and F1 of two networks.

    Biagioni, Eriksson, "Inferring road maps from GPS traces", Transportation Research Record 2291,
    2012, section 5. From starts on the truth both networks are explored; holes on the truth and
    marbles on the proposal are matched one to one (as many as possible), and counted over all
    starts.

    Args:
        truth: The true network, m.
        proposal: The network to be judged, m, in the same coordinates.
        options: The numbers.

    Returns:
        ``topo_f1``, ``topo_precision``, ``topo_recall``, 0..1, and ``definition``. An empty network
        scores 0, two empty ones 1.
    """
    if not len(truth.edges) or not len(proposal.edges):
        both = float(not len(truth.edges) and not len(proposal.edges))
        return _topo(both, both, both, options)
    starts = _starts(truth, options)
    holes, marbles = _spread(truth, options.interval), _spread(proposal, options.interval)
    near = _matches(holes, marbles, options.reach)
    counts = np.zeros(3)
    for begin in range(0, len(starts.edge), _ROWS):
        rows = np.arange(begin, min(begin + _ROWS, len(starts.edge)))
        part = Places(starts.edge[rows], starts.along[rows], starts.xy[rows])
        seen = _reached(truth, part, holes, options.radius)
        found = _reached(proposal, snap(proposal, part.xy, options.reach), marbles, options.radius)
        for one, two in zip(seen, found, strict=True):
            counts += _matched(near, one, two), one.sum(), two.sum()
    matched, all_holes, all_marbles = counts
    precision = matched / all_marbles if all_marbles else 0.0
    recall = matched / all_holes if all_holes else 0.0
    f1 = 2 * precision * recall / (precision + recall) if matched else 0.0
    return _topo(f1, precision, recall, options)


def _topo(f1: float, precision: float, recall: float, options: TopoOptions) -> dict[str, Any]:
    return {
        "topo_f1": float(f1), "topo_precision": float(precision), "topo_recall": float(recall),
        "definition": options.definition,
    }  # fmt: skip


def _starts(roads: Roads, options: TopoOptions) -> Places:
    everywhere = AplsOptions(spacing=options.spacing, curved=-1.0, max_nodes=len(roads.nodes))
    places = control_points(roads, everywhere)
    order = np.lexsort((places.xy[:, 1], places.xy[:, 0]))
    count = min(len(order), options.max_starts)
    chosen = order[np.linspace(0, len(order) - 1, count).round().astype(int)]
    return Places(places.edge[chosen], places.along[chosen], places.xy[chosen])


def _spread(roads: Roads, interval: float) -> Places:
    """Return places at even distances along all edges, at least one on each."""
    count = np.maximum(np.rint(roads.length / interval).astype(np.int64), 1)
    edge = np.repeat(np.arange(len(count)), count)
    step = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
    along = (step + 0.5) * (roads.length / count)[edge]
    xy = shapely.get_coordinates(shapely.line_interpolate_point(roads.lines[edge], along))
    return Places(edge, along, xy)


def _matches(holes: Places, marbles: Places, reach: float) -> Any:
    near = cKDTree(holes.xy).sparse_distance_matrix(
        cKDTree(marbles.xy), reach, output_type="coo_matrix"
    )
    ones = np.ones(len(near.row), np.int8)
    return csr_matrix((ones, (near.row, near.col)), shape=(len(holes.edge), len(marbles.edge)))


def _reached(roads: Roads, starts: Places, places: Places, radius: float) -> NDArray[np.bool_]:
    """(S, M) places that can be reached from each start within ``radius``."""
    count = len(starts.edge)
    joined = Places(
        np.concatenate([starts.edge, places.edge]),
        np.concatenate([starts.along, places.along]),
        np.concatenate([starts.xy, places.xy]),
    )
    near: NDArray[np.bool_] = path_lengths(roads, joined, np.arange(count))[:, count:] <= radius
    return near


def _matched(near: Any, holes: NDArray[np.bool_], marbles: NDArray[np.bool_]) -> int:
    if not holes.any() or not marbles.any():
        return 0
    part = near[np.flatnonzero(holes)][:, np.flatnonzero(marbles)]
    return int((maximum_bipartite_matching(part, perm_type="column") >= 0).sum())
