"""The score of change of two dates: a pure function of two blocks of class probabilities.

``C(x) = 1 - max over |d| <= r of sum over classes of min(p1_k(x), p2_k(x + d))``: 0 where what was
there is still there, at most r away. Borders of two dates never lie on each other to the pixel, so
a plain difference is drowned in them; but C loses a rim of r pixels of what is new. It is given
back where the plain difference D (C at r = 0) is high too: ``min(D(x), max over |d| <= r of
C(x + d))``. Where nothing differs both are 0.

Probabilities are whole steps of 0.004 that sum to exactly 1: all is done in single bytes, and no
sum rounds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from terradapt.changes.sampling import Steps
from terradapt.scene.options import STEPS

_ALL = np.uint8(STEPS)


def disc(reach: int) -> list[tuple[int, int]]:
    """Return the whole shifts (rows, columns) of at most ``reach`` pixels."""
    span = range(-reach, reach + 1)
    return [(r, c) for r in span for c in span if r * r + c * c <= reach * reach]


def score_of_change(
    old: Steps, new: Steps, seen: tuple[NDArray[np.bool_], NDArray[np.bool_]], reach: int
) -> tuple[Steps, NDArray[np.bool_]]:
    """Return the score of change of a block.

    Args:
        old: (K, H + 4 r, W + 4 r) probabilities, steps that sum to 250; 0 where there is no data.
        new: The same of the new date.
        seen: (H + 4 r, W + 4 r) where each has data.
        reach: r, px.

    Returns:
        (H, W) steps of 0.004, 0..250, and (H, W) where both dates have data; elsewhere the score
        is 0.
    """
    height, width = old.shape[1] - 2 * reach, old.shape[2] - 2 * reach
    rows, cols = slice(reach, reach + height), slice(reach, reach + width)
    before = old[:, rows, cols]
    agreed, alike = np.zeros((height, width), np.uint8), np.zeros(0, np.uint8)
    lower = np.empty((height, width), np.uint8)
    for down, right in disc(reach):
        there = new[:, reach + down : reach + down + height, reach + right : reach + right + width]
        total = np.minimum(before[0], there[0])
        for k in range(1, len(old)):
            np.minimum(before[k], there[k], out=lower)
            total += lower
        if not down and not right:
            alike = total
        np.maximum(agreed, total, out=agreed)
    both = seen[0] & seen[1]
    far = (_ALL - agreed) * both[rows, cols]
    inner = (slice(reach, height - reach), slice(reach, width - reach))
    size = inner[0].stop - inner[0].start, inner[1].stop - inner[1].start
    here = np.s_[2 * reach : 2 * reach + size[0], 2 * reach : 2 * reach + size[1]]
    spread = np.zeros(size, np.uint8)
    for down, right in disc(reach):
        np.maximum(
            spread,
            far[reach + down : reach + down + size[0], reach + right : reach + right + size[1]],
            out=spread,
        )
    valid = both[here]
    return np.minimum(_ALL - alike[inner], spread) * valid, valid
