"""Small regions join the neighbour with which they share the longest border."""

from __future__ import annotations

import heapq
from collections import defaultdict

import numpy as np

from terradapt.classes import IGNORE
from terradapt.vector.lattice.graph import Floats
from terradapt.vector.lattice.trace import Ints
from terradapt.vector.polygons.regions import OUTSIDE, Partition


def sieve(partition: Partition, area: Floats, least: float) -> Ints:
    """Return the region that each region becomes a part of; itself where it stays.

    The smallest goes first; of equal borders the region that comes first in the scene wins.
    Regions without data, and the outside, neither join others nor take them in.

    Args:
        partition: Regions and borders.
        area: (R,) square metres.
        least: Regions smaller than this join a neighbour.
    """
    count = len(partition.value)
    parent = np.arange(count)
    real = (partition.value != OUTSIDE) & (partition.value != IGNORE)
    if not (real & (area < least)).any():
        return parent
    border = _shared_borders(partition)
    size = area.copy()
    queue = [(float(size[r]), int(r)) for r in np.flatnonzero(real & (area < least))]
    heapq.heapify(queue)
    while queue:
        asked, region = heapq.heappop(queue)
        if parent[region] != region or asked != size[region]:
            continue
        others = [(length, -other) for other, length in border[region].items() if real[other]]
        if not others:
            continue
        host = -max(others)[1]
        _absorb(host, region, border, parent, size)
        if size[host] < least:
            heapq.heappush(queue, (float(size[host]), host))
    return _roots(parent)


def _shared_borders(partition: Partition) -> dict[int, dict[int, int]]:
    border: dict[int, dict[int, int]] = defaultdict(dict)
    sizes = partition.borders.chains.sizes.tolist()
    for (one, two), length in zip(partition.sides.tolist(), sizes, strict=True):
        border[one][two] = border[one].get(two, 0) + length
        border[two][one] = border[two].get(one, 0) + length
    return border


def _absorb(
    host: int, region: int, border: dict[int, dict[int, int]], parent: Ints, size: Floats
) -> None:
    parent[region] = host
    size[host] += size[region]
    for other, length in border.pop(region).items():
        del border[other][region]
        if other != host:
            border[host][other] = border[host].get(other, 0) + length
            border[other][host] = border[other].get(host, 0) + length


def _roots(parent: Ints) -> Ints:
    while True:
        above = parent[parent]
        if np.array_equal(above, parent):
            return parent
        parent = above
