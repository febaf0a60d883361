"""APLS: the average path length similarity of two road networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely

from terradapt.metrics.network import ROWS, Floats, Places, Roads, path_lengths, snap


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


def _similarity(one: Roads, two: Roads, options: AplsOptions) -> float:
    """Return how far the paths of one network are found again in the other, 0..1."""
    points = control_points(one, options)
    other = snap(two, points.xy, options.snap)
    sums = np.zeros((2, 2))  # all paths; paths of min_path and more: difference, number
    for begin in range(0, len(points.edge), ROWS):
        rows = np.arange(begin, min(begin + ROWS, len(points.edge)))
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
