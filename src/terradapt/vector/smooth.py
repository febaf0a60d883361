"""Smooth lines from chains of pixels."""

from __future__ import annotations

import numpy as np

from terradapt.vector.graph import Floats
from terradapt.vector.trace import Ints


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
    line = np.repeat(np.arange(len(sizes)), sizes)
    half = np.minimum(np.minimum(at - (stop - sizes)[line], stop[line] - 1 - at), reach[line])
    for _ in range(2):
        total = np.concatenate([np.zeros((1, 2)), np.cumsum(points, axis=0)])
        points = (total[at + half + 1] - total[at - half]) / (2 * half + 1)[:, None]
    return points
