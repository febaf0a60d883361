"""Cleaning of a road graph: junctions merged, spurs and small islands removed, chains joined."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace

import numpy as np

from terradapt.vector.lattice.graph import Bools, Chains, Floats, Graph, line_codes, spans
from terradapt.vector.lattice.metric import Metric
from terradapt.vector.lattice.trace import Codes, Ints, components

_ROUNDS = 8


@dataclass(frozen=True)
class CleanOptions:
    """Sizes below which parts of a network are taken for noise; metres and square metres.

    Args:
        min_spur: Dead ends that show less than this beyond the road that they leave; where the
            scene's edge cuts a road off, half of it.
        min_island: Loops and parallel roads around less than this area.
        min_component: Connected roads shorter than this together.
        merge: Junctions closer than this times the half width of the road are one.
    """

    min_spur: float = 8.0
    min_island: float = 40.0
    min_component: float = 16.0
    merge: float = 2.0


def clean(graph: Graph, metric: Metric, options: CleanOptions) -> Graph:
    """Return the graph without noise; the same for every order of the input's edges.

    Args:
        graph: A graph of pixel chains.
        metric: The raster's metric.
        options: Sizes.
    """
    for _ in range(_ROUNDS):
        before = len(graph)
        graph = merge_junctions(graph, metric, options.merge)
        graph = graph.without(_islands(graph, metric, options.min_island))
        graph = graph.without(_spurs(graph, metric, options.min_spur))
        graph = join_chains(graph)
        if len(graph) == before:
            break
    return drop_components(graph, metric, options.min_component)


def lengths(graph: Graph, metric: Metric) -> Floats:
    """(E,) metres along the pixels of each edge."""
    metres: Floats = graph.chains.counts() @ metric.steps
    return metres


def merge_junctions(graph: Graph, metric: Metric, factor: float) -> Graph:
    """Make one node of junctions that lie in each other's road.

    Two junctions joined by an edge shorter than ``factor`` times the greater half width are one,
    unless a second edge joins them: then they are a small roundabout or a divided road.
    """
    if not len(graph):
        return graph
    near = factor * graph.radius[graph.ends].max(axis=1)
    short = (graph.degree[graph.ends] >= 3).all(axis=1) & (lengths(graph, metric) <= near)
    short &= ~_parallel(graph) & (graph.ends[:, 0] != graph.ends[:, 1])
    if not short.any():
        return graph
    group = components(len(graph.place), graph.ends[short])
    count = int(group.max()) + 1
    size = np.bincount(group, minlength=count)
    place = np.stack([np.bincount(group, graph.place[:, i], count) / size for i in (0, 1)], axis=1)
    radius = np.zeros(count)
    np.maximum.at(radius, group, graph.radius)
    fixed = np.bincount(group, graph.fixed, count) > 0
    merged = replace(graph, place=place, radius=radius, fixed=fixed, ends=group[graph.ends])
    return merged.without(short).compact()


def _parallel(graph: Graph) -> Bools:
    """True for edges that share both ends with another edge."""
    pair = np.sort(graph.ends, axis=1)
    key = pair[:, 0] * len(graph.place) + pair[:, 1]
    _, index, counts = np.unique(key, return_inverse=True, return_counts=True)
    value: Bools = (counts > 1)[index]
    return value


def _spurs(graph: Graph, metric: Metric, min_spur: float) -> Bools:
    """True for dead ends that hardly leave the road they stem from.

    The visible length is the length less the half width of the road at the junction; the road's
    own width counts too, since a wide stump is a bulge of the other road's border. Half of the
    limit holds for a road that leaves the scene, since it goes on.
    """
    degree = graph.degree[graph.ends]
    dead = (degree.min(axis=1) == 1) & (degree.max(axis=1) >= 3)
    junction = np.where(degree[:, 0] >= 3, graph.ends[:, 0], graph.ends[:, 1])
    visible = lengths(graph, metric) - graph.radius[junction]
    tip = np.where(degree[:, 0] == 1, graph.ends[:, 0], graph.ends[:, 1])
    least = np.where(graph.fixed[tip], min_spur / 2, np.maximum(min_spur, 2 * graph.radius[tip]))
    value: Bools = dead & (visible < least)
    return value


def _islands(graph: Graph, metric: Metric, min_area: float) -> Bools:
    """True for loops, and for the longer of parallel edges, around a small area."""
    found = np.zeros(len(graph), bool)
    loop = graph.ends[:, 0] == graph.ends[:, 1]
    maybe = np.flatnonzero(loop | _parallel(graph))
    length = lengths(graph, metric)
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for edge in maybe[np.argsort(length[maybe], kind="stable")]:
        one, two = sorted(graph.ends[edge].tolist())
        groups[one, two].append(int(edge))
    for (one, two), edges in groups.items():
        if one == two:
            alone = graph.degree[one] == 2
            small = [e for e in edges if _area(graph, metric, [e]) < min_area]
            found[small] = True
            found[edges[0]] &= not (alone and length[edges[0]] ** 2 > 16 * min_area)
            continue
        kept = [edges[0]]
        for edge in edges[1:]:
            if any(_area(graph, metric, [k, edge]) < min_area for k in kept):
                found[edge] = True
            else:
                kept.append(edge)
    return found


def _area(graph: Graph, metric: Metric, edges: list[int]) -> float:
    """Return the square metres within a loop, or between two edges of the same ends."""
    points, sizes = graph.chains.take(np.array(edges)).points()
    if len(edges) == 2:
        second = points[sizes[0] :]
        same = graph.ends[edges[0], 0] == graph.ends[edges[1], 0]
        points = np.concatenate([points[: sizes[0]], second[::-1] if same else second])
    row, col = points[:, 0], points[:, 1]
    twice = np.dot(row, np.roll(col, 1)) - np.dot(col, np.roll(row, 1))
    return float(abs(twice) / 2 * abs(np.linalg.det(metric.matrix)))


def join_chains(graph: Graph) -> Graph:
    """Make one edge of edges that meet at a node of degree 2."""
    passing = np.flatnonzero((graph.degree == 2) & ~graph.fixed)
    loops = graph.ends[graph.ends[:, 0] == graph.ends[:, 1], 0]
    passing = np.setdiff1d(passing, loops)
    if not len(passing):
        return graph
    runs = _runs(graph, passing)
    used = np.zeros(len(graph), bool)
    used[[edge for run in runs for edge, _ in run]] = True
    joined = [_joined(graph, run) for run in runs]
    rest = graph.without(used) if used.any() else graph
    return append(rest, joined).compact()


_Run = list[tuple[int, int]]  # edges in a row, each with the side at which it is entered


def _runs(graph: Graph, passing: Ints) -> list[_Run]:
    """Return the rows of edges through nodes of degree 2, begun at the least edge."""
    through = np.zeros(len(graph.place), bool)
    through[passing] = True
    edge, side = np.nonzero(through[graph.ends])
    at: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for e, s in zip(edge.tolist(), side.tolist(), strict=True):
        at[int(graph.ends[e, s])].append((e, s))
    left = dict.fromkeys(edge.tolist())
    runs = []
    for first in list(left):
        open_sides = [s for s in (0, 1) if not through[graph.ends[first, s]]]
        if first in left and open_sides:
            runs.append(_follow(graph, first, open_sides[0], at, left))
    while left:
        runs.append(_follow(graph, next(iter(left)), 0, at, left))
    return runs


def _follow(
    graph: Graph, edge: int, side: int, at: dict[int, list[tuple[int, int]]], left: dict[int, None]
) -> _Run:
    run = []
    while True:
        del left[edge]
        run.append((edge, side))
        out = (edge, 1 - side)
        onward = [x for x in at.get(int(graph.ends[out]), []) if x != out]
        if not onward or onward[0][0] not in left:
            return run
        edge, side = onward[0]


def _joined(graph: Graph, run: _Run) -> tuple[list[int], int, int, Codes, Ints]:
    """Return the ends, first pixel, steps and sums of a row of edges made one."""
    index = np.array([e for e, _ in run])
    sides = np.array([s for _, s in run])
    chains = graph.chains.take(index).turned(sides == 1)
    stop_row, stop_col = chains.stops()
    offsets = chains.offsets
    codes = [chains.codes[: offsets[1]]]
    for i in range(1, len(run)):
        gap = stop_row[i - 1], stop_col[i - 1], chains.row[i], chains.col[i]
        codes += [line_codes(*map(int, gap)), chains.codes[offsets[i] : offsets[i + 1]]]
    ends = [int(graph.ends[run[0]]), int(graph.ends[run[-1][0], 1 - run[-1][1]])]
    first = int(chains.row[0]), int(chains.col[0])
    return ends, *first, np.concatenate(codes), graph.sums[index].sum(axis=0)


def append(graph: Graph, more: list[tuple[list[int], int, int, Codes, Ints]]) -> Graph:
    """Add edges to a graph, in their order after its own."""
    if not more:
        return graph
    ends, row, col, codes, sums = zip(*more, strict=True)
    old = graph.chains
    chains = Chains(
        np.concatenate([old.row, np.array(row)]),
        np.concatenate([old.col, np.array(col)]),
        np.concatenate([old.sizes, np.array([len(c) for c in codes])]),
        np.concatenate([old.codes, *codes]),
    )
    return replace(
        graph,
        ends=np.concatenate([graph.ends, np.array(ends)]),
        chains=chains,
        sums=np.concatenate([graph.sums, np.stack(sums)]),
    )


def drop_components(graph: Graph, metric: Metric, min_length: float) -> Graph:
    """Drop connected roads that are shorter than this together, m."""
    if not len(graph):
        return graph
    group = graph.components()[graph.ends[:, 0]]
    total = np.bincount(group, lengths(graph, metric))
    return graph.without(total[group] < min_length).compact()


__all__ = ["CleanOptions", "clean", "drop_components", "join_chains", "merge_junctions", "spans"]
