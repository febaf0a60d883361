"""Network: roads as lines between nodes, in the scene's CRS, with lengths in metres."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from numpy.typing import NDArray

from terradapt.errors import MissingExtraError
from terradapt.raster import CRS, Georef
from terradapt.raster.georef import crs_name
from terradapt.vector.lattice.directions import COL_STEP, ROW_STEP
from terradapt.vector.lattice.graph import Chains, Floats, Graph, spans
from terradapt.vector.lattice.metric import Metric, line_lengths
from terradapt.vector.lattice.trace import Ints, components
from terradapt.vector.roads.smooth import smooth

if TYPE_CHECKING:
    import networkx as nx

_CHUNK = 50_000  # px of chains turned into lines at once


@dataclass(frozen=True, repr=False)
class Network:
    """N nodes and E edges; parallel edges and loops are edges of their own.

    ``geopandas.GeoDataFrame.from_features`` takes it as it is, as lines.

    Attributes:
        nodes: (N, 2) x and y in the CRS.
        edges: (E, 2) nodes at the beginning and at the end of each line.
        lines: (E,) shapely LineStrings in the CRS.
        length: (E,) in ``unit``; m on the ellipsoid when there is a CRS.
        width: (E,) mean width of the road, in ``unit``.
        score: (E,) mean score along the line, 0..1; 1 for a mask without scores.
        bridged: (E,) share of the line that closes gaps of the mask, 0..1.
        crs: The scene's CRS, or None.
        unit: ``m``, or what a scene without a CRS counts in; see ``Georef.unit``.
    """

    nodes: Floats
    edges: Ints
    lines: NDArray[Any]
    length: Floats
    width: Floats
    score: Floats
    bridged: Floats
    crs: CRS | None = None
    unit: str = "m"

    def __len__(self) -> int:
        return len(self.edges)

    def __repr__(self) -> str:
        total = float(self.length.sum())
        length = f"{total / 1000:.3f} km" if self.unit == "m" else f"{total:.1f} {self.unit}"
        return (
            f"<road network: {len(self)} edges, {len(self.nodes)} nodes, {length}, "
            f"{self.components} parts, {self.dead_ends} dead ends, {crs_name(self.crs)}>"
        )

    @property
    def __geo_interface__(self) -> dict[str, Any]:
        """A GeoJSON feature collection of the edges, in the network's own CRS."""
        keys = ("from_node", "to_node", f"length_{self.unit}", f"width_{self.unit}")
        columns = (*self.edges.T, self.length, self.width, self.score, self.bridged)
        rows = zip(*(c.tolist() for c in columns), strict=True)
        features = [
            {
                "type": "Feature",
                "geometry": line.__geo_interface__,
                "properties": dict(zip((*keys, "score", "bridged"), row, strict=True)),
            }
            for line, row in zip(self.lines, rows, strict=True)
        ]
        return {"type": "FeatureCollection", "features": features}

    @property
    def degree(self) -> Ints:
        """(N,) edge ends at each node; a loop counts twice."""
        return np.bincount(self.edges.ravel(), minlength=len(self.nodes))

    @property
    def components(self) -> int:
        """Number of connected parts."""
        if not len(self.nodes):
            return 0
        return int(components(len(self.nodes), self.edges).max()) + 1

    @property
    def dead_ends(self) -> int:
        """Number of nodes of degree 1."""
        return int((self.degree == 1).sum())

    def summary(self) -> dict[str, float]:
        """Return nodes, edges, length (``length_m``, or of another unit), components, dead ends."""
        return {
            "nodes": len(self.nodes),
            "edges": len(self),
            f"length_{self.unit}": float(self.length.sum()),
            "components": self.components,
            "dead_ends": self.dead_ends,
        }

    def graph(self) -> nx.MultiGraph:
        """Return a networkx MultiGraph; edges carry length, width, score, bridged, geometry.

        Raises:
            MissingExtraError: networkx is not installed.
        """
        crs = None if self.crs is None else str(self.crs)
        graph = import_networkx().MultiGraph(crs=crs, unit=self.unit)
        for i, ((x, y), degree) in enumerate(zip(self.nodes.tolist(), self.degree, strict=True)):
            graph.add_node(i, x=x, y=y, degree=int(degree))
        columns = (self.length, self.width, self.score, self.bridged)
        rows = zip(self.edges.tolist(), *(c.tolist() for c in columns), self.lines, strict=True)
        for (u, v), length, width, score, bridged, line in rows:
            graph.add_edge(
                u, v, length=length, width=width, score=score, bridged=bridged, geometry=line
            )
        return graph


def import_networkx() -> Any:
    """Return the networkx package.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import networkx
    except ImportError as error:
        raise MissingExtraError("a road network as GraphML", "graph") from error
    return networkx


def build_network(graph: Graph, georef: Georef, simplify: float) -> Network:
    """Return the network of a cleaned graph: smooth lines, then simplified.

    Args:
        graph: Nodes and chains in pixels.
        georef: Where the pixels lie.
        simplify: Greatest deviation of the simplified from the smooth line, m (Douglas and
            Peucker 1973).
    """
    graph = straighten(reach_ends(graph, georef), georef)
    pixel = Metric.of(georef).pixel
    count = np.maximum(graph.sums[:, 0], 1)
    at_ends = graph.radius[graph.ends].sum(axis=1)  # for edges too short to be sampled
    width = np.where(graph.sums[:, 0] > 0, graph.sums[:, 1] / count, at_ends)
    score = np.where(graph.sums[:, 0] > 0, graph.sums[:, 2] / count, 1.0)
    lines, length = [np.empty(0, object)], [np.zeros(0)]
    for index in _batches(graph.chains.sizes):
        reach = np.clip(np.rint(width[index] / pixel / 2), 2, 12).astype(np.int64)
        part = _lines(graph.take(index), georef, reach, simplify / pixel)
        coords, owner = shapely.get_coordinates(part, return_index=True)
        lines.append(part)
        length.append(line_lengths(coords, np.bincount(owner, minlength=len(index)), georef))
    return Network(
        georef.xy(_inside(graph.place, georef)),
        graph.ends,
        np.concatenate(lines),
        np.concatenate(length),
        width,
        score,
        graph.sums[:, 3] / count,
        georef.crs,
        georef.unit,
    )


def _batches(sizes: Ints) -> list[Ints]:
    batch = np.cumsum(sizes) // _CHUNK
    return np.split(np.arange(len(sizes)), np.flatnonzero(np.diff(batch)) + 1)


def _lines(graph: Graph, georef: Georef, reach: Ints, tolerance: float) -> NDArray[Any]:
    """Return the lines of a few edges, from node to node."""
    pixels, sizes = _trimmed(graph, georef)
    points = np.empty((len(pixels) + 2 * len(sizes), 2))
    stop = np.cumsum(sizes + 2)
    points[stop - sizes - 2] = graph.place[graph.ends[:, 0]]
    points[stop - 1] = graph.place[graph.ends[:, 1]]
    points[spans(stop - sizes - 1, sizes)] = pixels
    points = smooth(points, sizes + 2, reach)
    points[stop - sizes - 2] = graph.place[graph.ends[:, 0]]  # sums round: ends are their nodes
    points[stop - 1] = graph.place[graph.ends[:, 1]]
    points = _inside(points, georef)
    edge = np.repeat(np.arange(len(sizes)), sizes + 2)
    lines = shapely.linestrings(points[:, ::-1], indices=edge)
    simple = shapely.simplify(lines, tolerance, preserve_topology=False)
    coords, owner = shapely.get_coordinates(simple, return_index=True)
    return np.asarray(shapely.linestrings(georef.xy(coords[:, ::-1]), indices=owner))


def _trimmed(graph: Graph, georef: Georef) -> tuple[Floats, Ints]:
    """Return the edges' pixels without those that lie within a junction, where skeletons bend."""
    pixels, sizes = graph.chains.points()
    junction = graph.inside > 0
    steps = np.where(junction, graph.inside / Metric.of(georef).pixel, 0).astype(np.int64)
    off = np.minimum(steps[graph.ends], (sizes[:, None] - 1) // 3)
    left = sizes - off.sum(axis=1)
    begin = np.cumsum(sizes) - sizes + off[:, 0]
    return pixels[spans(begin, left)], left


def straighten(graph: Graph, georef: Georef) -> Graph:
    """Put junctions of three roads back onto the road that goes through.

    A skeleton bends towards the third road. The node moves onto the straight line between the
    places at which the through road enters and leaves the junction, by no more than the road's
    half width.
    """
    inner = np.where(graph.degree >= 3, graph.radius, 0.0)
    graph = replace(graph, inside=inner)
    edge, side = np.nonzero(graph.degree[graph.ends] == 3)
    node = graph.ends[edge, side]
    order = np.argsort(node, kind="stable")
    edge, side, node = edge[order], side[order], node[order].reshape(-1, 3)[:, 0]
    if not len(node):
        return graph
    half = np.repeat(graph.radius[node], 3) / Metric.of(georef).pixel
    back = _tail(graph.chains, edge, side, np.maximum(np.ceil(2 * half), 4).astype(np.int64))
    row, col = graph.chains.stops()
    ends = np.where(
        side[:, None] == 1,
        np.stack([row, col], axis=1)[edge],
        np.stack([graph.chains.row, graph.chains.col], axis=1)[edge],
    )
    gates = (ends - back).reshape(-1, 3, 2)
    moved = _onto_through_road(graph.place[node], gates, half[::3])
    place = graph.place.copy()
    place[node] = moved
    return replace(graph, place=place)


def _onto_through_road(here: Floats, gates: Floats, limit: Floats) -> Floats:
    """Return (M, 2) places moved onto the line between the two most opposite of three gates."""
    arms = gates - here[:, None]
    unit = arms / np.maximum(np.linalg.norm(arms, axis=2), 1e-9)[:, :, None]
    pairs = np.array([[0, 1], [0, 2], [1, 2]])
    turn = (unit[:, pairs[:, 0]] * unit[:, pairs[:, 1]]).sum(axis=2)
    best = turn.argmin(axis=1)
    rows = np.arange(len(here))
    one, two = (gates[rows, pairs[best, i]] for i in (0, 1))
    along = (two - one) / np.maximum(np.linalg.norm(two - one, axis=1), 1e-9)[:, None]
    shift = one - here
    shift -= (shift * along).sum(axis=1)[:, None] * along
    far = np.linalg.norm(shift, axis=1)
    through = (turn[rows, best] < -0.8) & (far <= limit)
    moved: Floats = here + np.where(through[:, None], shift, 0.0)
    return moved


def _inside(places: Floats, georef: Georef) -> Floats:
    """Pull places to the scene's rectangle; pixel centres are whole numbers."""
    return np.clip(places, -0.5, [georef.height - 0.5, georef.width - 0.5])


def reach_ends(graph: Graph, georef: Georef) -> Graph:
    """Move dead ends outward by the road's half width, which thinning took off."""
    tips = dead_ends(graph, georef)
    place = graph.place.copy()
    place[tips.node] += tips.way * graph.radius[tips.node][:, None]
    return replace(graph, place=place)


@dataclass(frozen=True)
class Tips:
    """Dead ends within the scene: T of them.

    Attributes:
        node: (T,) nodes.
        edge: (T,) the edge that ends there.
        side: (T,) 0 where the edge begins there, 1 where it ends.
        way: (T, 2) rows and columns per metre in the direction in which the road ends.
    """

    node: Ints
    edge: Ints
    side: Ints
    way: Floats


def dead_ends(graph: Graph, georef: Georef) -> Tips:
    """Return the dead ends within the scene and their directions."""
    free = (graph.degree == 1) & ~graph.fixed
    edge, side = np.nonzero(free[graph.ends])
    node = graph.ends[edge, side]
    steps = np.ceil(3 * graph.radius[node] / Metric.of(georef).pixel).astype(np.int64)
    step = _tail(graph.chains, edge, side, np.maximum(steps, 6))
    metres = np.maximum(Metric.of(georef).length(step[:, 0], step[:, 1]), 1e-9)
    return Tips(node, edge, side, step / metres[:, None])


def _tail(chains: Chains, edge: Ints, side: Ints, steps: Ints) -> Floats:
    """Return the displacement (rows, columns) over the last steps of chains, outward."""
    size = np.minimum(steps, chains.sizes[edge])
    begin = chains.offsets[edge] + np.where(side == 1, chains.sizes[edge] - size, 0)
    codes = chains.codes[spans(begin, size)]
    owner = np.repeat(np.arange(len(edge)), size)
    sign = np.where(side == 1, 1, -1)
    moves = [np.bincount(owner, s[codes], len(edge)) * sign for s in (ROW_STEP, COL_STEP)]
    return np.stack(moves, axis=1)


__all__ = ["Network", "build_network", "dead_ends"]
