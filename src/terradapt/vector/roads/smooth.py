"""Smooth lines from chains of pixels."""

from __future__ import annotations

import numpy as np

from terradapt.vector.lattice.graph import Floats
from terradapt.vector.lattice.trace import Ints


def smooth(points: Floats, sizes: Ints, reach: Ints) -> Floats:
    """Average each point with its neighbours to both sides along its line, twice.

    Near a line's ends fewer neighbours count, as many to one side as to the other, so the ends
    stay where they are and a straight line stays straight.

    Args:
        points: (M, 2) vertices of all lines, one line after the other.
        sizes: (E,) vertices of each line.
        reach: (E,) neighbours to each side.
    """
    stop = np.cumsum(sizes)
    at = np.arange(len(points))
    begin, last = np.repeat(stop - sizes, sizes), np.repeat(stop - 1, sizes)
    half = np.minimum(np.minimum(at - begin, last - at), np.repeat(reach, sizes))
    low, high, count = at - half, at + half + 1, (2 * half + 1)[:, None]
    total = np.zeros(len(points) + 1, complex)  # rows and columns at once
    points = np.ascontiguousarray(points)
    for _ in range(2):
        np.cumsum(points.view(complex).ravel(), out=total[1:])
        points = (total.take(high) - total.take(low)).view(float).reshape(-1, 2)
        points /= count
    return points
