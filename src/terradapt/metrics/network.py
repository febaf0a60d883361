"""Road networks as graphs of lines: places on them, and the ways between places.

Lines are noded at shared vertices and joined through every vertex of degree 2, so that neither the
splitting of a line, nor its direction, nor the order of the file changes anything.
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
from scipy.sparse.csgraph import connected_components, dijkstra

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_GRAIN = 1e-3  # m: vertices closer than this are one
ROWS = 256
"""Places whose paths are compared at once."""


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


def snap(roads: Roads, xy: Floats, reach: float) -> Places:
    """Return the nearest places of a network within ``reach``, m.

    Of edges at the same distance the one counts that has a node nearest.
    """
    edge = np.full(len(xy), -1)
    along = np.zeros(len(xy))
    points = np.asarray(shapely.points(xy))
    found, lines = shapely.STRtree(roads.lines).query_nearest(points, max_distance=reach)
    at = np.asarray(shapely.line_locate_point(roads.lines[lines], points[found]))
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
