"""Gaps of roads under trees and shadows, closed where direction and score speak for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter
from scipy.spatial import cKDTree

from terradapt.grid import Window
from terradapt.raster import Georef
from terradapt.vector.lattice.graph import Chains, Floats, Graph, line_codes, spans
from terradapt.vector.lattice.metric import Metric
from terradapt.vector.lattice.trace import Ints
from terradapt.vector.roads.along import Scores
from terradapt.vector.roads.clean import append
from terradapt.vector.roads.network import Tips, dead_ends
from terradapt.vector.roads.skeleton import SAMPLED
from terradapt.vector.roads.source import MaskSource
from terradapt.vector.roads.widths import SCALE

_BATCH = 50_000  # px looked at at once


@dataclass(frozen=True)
class BridgeOptions:
    """When a gap is closed.

    Args:
        max_gap: Longest gap between the ends of two roads, m; 0 closes none. From a dead end to the
            side of a road half of it counts where there are no scores to speak for it.
        max_turn: Greatest angle between a dead end's direction and the bridge, degrees.
        min_score: Least mean score along the bridge, where there are scores.
    """

    max_gap: float = 25.0
    max_turn: float = 35.0
    min_score: float = 0.1


def bridge(graph: Graph, source: MaskSource, options: BridgeOptions) -> Graph:
    """Return the graph with bridges from dead ends to dead ends, and from dead ends to roads.

    The cheapest bridges come first: short, straight ahead, along high scores. A dead end takes
    part in one bridge.

    Args:
        graph: A cleaned graph.
        source: Gives the scores; a source without scores lets direction alone decide.
        options: Limits.
    """
    tips = dead_ends(graph, source.georef)
    if options.max_gap <= 0 or not len(tips.node):
        return graph
    plans = sorted(_Planner(graph, tips, source, options).plans(), key=lambda p: p.rank)
    used: set[int] = set()
    chosen = []
    for plan in plans:
        if not used & plan.nodes:
            used |= plan.nodes
            chosen.append(plan)
    return _build(graph, chosen, source.georef) if chosen else graph


@dataclass(frozen=True)
class _Plan:
    """A bridge from a dead end to another, or to a pixel of an edge."""

    cost: float
    start: int
    stop: int  # node, or -1
    edge: int  # edge to be split, or -1
    step: int  # pixel of that edge
    pixels: tuple[int, int, int, int]
    score: float

    @property
    def rank(self) -> tuple[float, int, int, int]:
        return self.cost, self.start, self.stop, self.edge

    @property
    def nodes(self) -> set[int]:
        return {self.start} | ({self.stop} if self.stop >= 0 else set())


class _Planner:
    def __init__(
        self, graph: Graph, tips: Tips, source: MaskSource, options: BridgeOptions
    ) -> None:
        self.graph, self.tips, self.options = graph, tips, options
        self.metric = Metric.of(source.georef)
        self.scores = Scores(source)
        self.pixel = np.rint(graph.place[tips.node]).astype(np.int64)
        self.at = self._metres(self.pixel)
        way = tips.way @ self.metric.matrix[:, ::-1].T
        self.way = way / np.maximum(np.linalg.norm(way, axis=1), 1e-12)[:, None]
        self.half = graph.radius[tips.node]  # a tip lies this far inside its road
        self.least = np.cos(np.radians(options.max_turn))
        scored = source.read(Window(0, 0, 1, 1))[1] is not None
        self._to_side = options.max_gap if scored else options.max_gap / 2
        self._edge_half = graph.sums[:, 1] / np.maximum(graph.sums[:, 0], 1) / 2
        far = self._to_side + float(self.half.max()) + float(self._edge_half.max(initial=0.0))
        # no point of a cone is further than this from the point half-way along its axis
        self._reach = 1.001 * far * float(np.sqrt(max(1.25 - self.least, 0.25)))
        self._ahead = self.at + self.way * far / 2
        self._tree = cKDTree(self._ahead)
        self._shift, self._cells = self._near_cells(source.georef)

    def _near_cells(self, georef: Georef) -> tuple[int, NDArray[np.bool_]]:
        """Return the binary logarithm of a cell's side, and the cells to which a bridge may lead.

        Cell (0, 0) begins two cells above and left of the scene.
        """
        shift = int(np.log2(max(self._reach / self.metric.pixel, 1)))
        cells = np.zeros(((georef.height >> shift) + 5, (georef.width >> shift) + 5), bool)
        place = self._ahead @ np.linalg.inv(self.metric.matrix).T
        at = (np.floor(place[:, ::-1]).astype(np.int64) >> shift) + 2
        last = np.array(cells.shape) - 1
        cells[tuple(np.clip(at, 0, last).T)] = True
        steps = np.abs(np.linalg.inv(self.metric.matrix)).sum(axis=1).max() * self._reach
        around = 2 * (int(steps / 2**shift) + 1) + 1
        value: NDArray[np.bool_] = maximum_filter(cells, around)
        return shift, value

    def _metres(self, places: NDArray[Any]) -> Floats:
        metres: Floats = places[:, ::-1] @ self.metric.matrix.T
        return metres

    def plans(self) -> Iterator[_Plan]:
        yield from self._to_tips()
        yield from self._to_edges()

    def _to_tips(self) -> Iterator[_Plan]:
        reach = self.options.max_gap + 2 * float(self.half.max())
        pairs = cKDTree(self.at).query_pairs(reach, output_type="ndarray")
        one, two = pairs[:, 0], pairs[:, 1]
        between = self.at[two] - self.at[one]
        gap = np.maximum(np.linalg.norm(between, axis=1), 1e-9)
        ahead = (self.way[one] * between).sum(1) / gap
        back = -(self.way[two] * between).sum(1) / gap
        same = self.tips.edge[one] == self.tips.edge[two]
        near = gap <= self.options.max_gap + self.half[one] + self.half[two]
        good = (np.minimum(ahead, back) >= self.least) & near & ~same
        for i, j, g, turn in zip(
            one[good], two[good], gap[good], (2 - ahead - back)[good], strict=True
        ):
            plan = self._plan(i, self.pixel[j], float(g * (1 + turn)), stop=int(self.tips.node[j]))
            if plan is not None:
                yield plan

    def _to_edges(self) -> Iterator[_Plan]:
        """Plan the cheapest bridge from each dead end to a pixel of another edge."""
        found = [np.empty((0, 4)), *(self._candidates(i) for i in self._batches())]
        rows = np.concatenate(found)
        rows = rows[np.lexsort(rows.T[::-1])]  # by tip, cost, edge, pixel
        first = np.ones(len(rows), bool)
        first[1:] = rows[1:, 0] != rows[:-1, 0]
        for tip, cost, edge, step in rows[first].tolist():
            chain = self.graph.chains.take(np.array([int(edge)]))
            place = chain.points()[0][int(step)].astype(np.int64)
            plan = self._plan(int(tip), place, cost, edge=int(edge), step=int(step))
            if plan is not None:
                yield plan

    def _batches(self) -> list[Ints]:
        batch = np.cumsum(self.graph.chains.sizes) // _BATCH
        return np.split(np.arange(len(self.graph)), np.flatnonzero(np.diff(batch)) + 1)

    def _candidates(self, index: Ints) -> Floats:
        """(M, 4) dead end, cost, edge and pixel of bridges to some edges, ahead of the dead end."""
        rows, cols, sizes = self.graph.chains.take(index).pixels()
        cell = (rows >> self._shift) + 2, (cols >> self._shift) + 2
        near = np.flatnonzero(self._cells[cell])
        if not len(near):
            return np.empty((0, 4))
        owner = np.searchsorted(np.cumsum(sizes), near, side="right")
        step, edge = near - (np.cumsum(sizes) - sizes)[owner], index[owner]
        at = self._metres(np.stack([rows[near], cols[near]], axis=1))
        pairs = self._tree.sparse_distance_matrix(cKDTree(at), self._reach, output_type="ndarray")
        tip, pixel = pairs["i"], pairs["j"]
        between = at[pixel] - self.at[tip]
        gap = np.maximum(np.hypot(between[:, 0], between[:, 1]), 1e-9)
        ahead = (between * self.way[tip]).sum(axis=1) / gap
        edge = edge[pixel]
        good = (ahead >= self.least) & (edge != self.tips.edge[tip])
        good &= gap <= self._to_side + self.half[tip] + self._edge_half[edge]
        cost = gap * (2.2 - ahead)
        value: Floats = np.stack([tip, cost, edge, step[pixel]], axis=1)[good]
        return value

    def _plan(
        self, tip: int, target: Ints, cost: float, *, stop: int = -1, edge: int = -1, step: int = 0
    ) -> _Plan | None:
        row, col = (int(v) for v in self.pixel[tip])
        to_row, to_col = (int(v) for v in target)
        score = self.scores.along(row, col, to_row, to_col)
        if score is not None and score < self.options.min_score:
            return None
        cost *= 1.0 if score is None else 1.5 - score
        node = int(self.tips.node[tip])
        return _Plan(cost, node, stop, edge, step, (row, col, to_row, to_col), score or 0.0)


def _build(graph: Graph, plans: list[_Plan], georef: Georef) -> Graph:
    """Split the edges that bridges lead to, and add the bridges."""
    splits: dict[int, list[int]] = {}
    for plan in plans:
        if plan.edge >= 0:
            splits.setdefault(plan.edge, []).append(plan.step)
    graph, node_at = _split(graph, splits)
    rows = []
    for plan in plans:
        stop = plan.stop if plan.edge < 0 else node_at[plan.edge, plan.step]
        codes = line_codes(*plan.pixels)
        if not len(codes):
            continue
        width = 2 * graph.radius[plan.start]
        values = SAMPLED * np.array([1.0, width, plan.score, 1.0])
        sums = (len(codes) + 1) * np.rint(values * SCALE).astype(np.int64)
        rows.append(([plan.start, int(stop)], *plan.pixels[:2], codes, sums))
    return append(graph, rows)


def _split(graph: Graph, splits: dict[int, list[int]]) -> tuple[Graph, dict[tuple[int, int], int]]:
    """Cut edges at some of their pixels; return the node at each cut."""
    node_at: dict[tuple[int, int], int] = {}
    places: list[Ints] = []
    radii: list[float] = []
    rows = []
    for edge, steps in sorted(splits.items()):
        chain = graph.chains.take(np.array([edge]))
        points = chain.points()[0].astype(np.int64)
        size = int(chain.sizes[0])
        cuts = sorted(set(steps))
        stations = [0]
        nodes = [int(graph.ends[edge, 0])]
        for step in cuts:
            if step in (0, size):
                node_at[edge, step] = int(graph.ends[edge, int(step > 0)])
                continue
            node = len(graph.place) + len(places)
            node_at[edge, step] = node
            places.append(points[step])
            radii.append(graph.sums[edge, 1] / max(graph.sums[edge, 0], 1) / 2)
            stations.append(step)
            nodes.append(node)
        stations.append(size)
        nodes.append(int(graph.ends[edge, 1]))
        for i in range(len(stations) - 1):
            one, two = stations[i], stations[i + 1]
            sums = graph.sums[edge] * (two - one + 1) // (size + 1)
            first = int(points[one, 0]), int(points[one, 1])
            rows.append(([nodes[i], nodes[i + 1]], *first, chain.codes[one:two], sums))
    cut = np.zeros(len(graph), bool)
    cut[list(splits)] = True
    grown = replace(
        graph,
        place=np.concatenate([graph.place, np.array(places, float).reshape(-1, 2)]),
        radius=np.concatenate([graph.radius, np.array(radii, float)]),
        fixed=np.concatenate([graph.fixed, np.zeros(len(places), bool)]),
    )
    return append(grown.without(cut), rows), node_at


__all__ = ["BridgeOptions", "Chains", "bridge", "spans"]
