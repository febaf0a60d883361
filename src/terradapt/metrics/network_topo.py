"""TOPO: how much of what lies around many starts is in both road networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching
from scipy.spatial import cKDTree

from terradapt.metrics.network import ROWS, Places, Roads, path_lengths, snap
from terradapt.metrics.network_apls import AplsOptions, control_points


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
    holes, marbles = (
        evenly_placed(truth, options.interval),
        evenly_placed(proposal, options.interval),
    )
    near = _matches(holes, marbles, options.reach)
    counts = np.zeros(3)
    for begin in range(0, len(starts.edge), ROWS):
        rows = np.arange(begin, min(begin + ROWS, len(starts.edge)))
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
        "topo_f1": float(f1),
        "topo_precision": float(precision),
        "topo_recall": float(recall),
        "definition": options.definition,
    }


def _starts(roads: Roads, options: TopoOptions) -> Places:
    everywhere = AplsOptions(spacing=options.spacing, curved=-1.0, max_nodes=len(roads.nodes))
    places = control_points(roads, everywhere)
    order = np.lexsort((places.xy[:, 1], places.xy[:, 0]))
    count = min(len(order), options.max_starts)
    chosen = order[np.linspace(0, len(order) - 1, count).round().astype(int)]
    return Places(places.edge[chosen], places.along[chosen], places.xy[chosen])


def evenly_placed(roads: Roads, interval: float) -> Places:
    """Return places at even distances along all edges, at least one on each.

    Args:
        roads: The network.
        interval: About how far apart they lie, m.
    """
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
