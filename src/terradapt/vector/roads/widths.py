"""Widths of a mask across the lines in it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from terradapt.vector.lattice.metric import Floats, Metric
from terradapt.vector.lattice.trace import Ints

SCALE = 1 << 16
"""Widths (m) and scores are summed as integers of this fraction, so that no order matters."""


class Widths:
    """Widths of a mask across lines in it.

    At a pixel, the nearest background gives one half of the width and its direction; the other
    half is what lies in the opposite direction.

    Args:
        metric: The raster's metric.
        reach: Half widths are not looked for beyond this, m.
    """

    def __init__(self, metric: Metric, reach: float) -> None:
        self.metric = metric
        side = np.abs(np.linalg.inv(metric.matrix)).sum(axis=1).max() * reach
        self.radius = int(np.ceil(side)) + 1
        rows, cols = np.mgrid[-self.radius : self.radius + 1, -self.radius : self.radius + 1]
        far = metric.length(rows, cols)
        order = np.argsort(far, axis=None, kind="stable")
        order = order[far.ravel()[order] <= reach][1:]
        self._offsets = np.stack([rows.ravel()[order], cols.ravel()[order]], axis=1)
        self._far = far.ravel()[order]
        self._half = self._far - self._far / np.maximum(np.hypot(*self._offsets.T), 1) / 2
        self._reach = reach
        square = np.maximum.accumulate(np.abs(self._offsets).max(axis=1, initial=0))
        self._beyond = np.searchsorted(square, np.arange(self.radius + 1), side="right")

    def nearest(
        self, mask: NDArray[np.bool_], row: Ints, col: Ints, depth: Ints
    ) -> tuple[Floats, Ints]:
        """Return the half widths at pixels of a mask, m, and the offsets to the nearest background.

        Args:
            mask: (H, W); pixels looked at lie ``radius`` + 2 px and more from its edges.
            row: (M,) rows.
            col: (M,) columns.
            depth: (M,) all pixels are set within so many rows and columns.
        """
        if not len(self._far):
            return np.full(len(row), self._reach), np.zeros((len(row), 2), int)
        found = self._first_outside(mask, row * mask.shape[1] + col, depth)
        unknown = found == len(self._far)
        at = np.where(unknown, 0, found)
        return np.where(unknown, self._reach, self._half[at]), self._offsets[at]

    def _first_outside(self, mask: NDArray[np.bool_], place: Ints, depth: Ints) -> Ints:
        """Return the number of the nearest offset at which each place meets background."""
        steps = self._offsets[:, 0] * mask.shape[1] + self._offsets[:, 1]
        flat, low = mask.ravel(), -int(steps.min(initial=0))
        found = np.full(len(place), len(steps))
        begin = self._beyond[np.minimum(depth, self.radius)]
        place = place - low
        left = np.empty(0, np.int64)
        for one, two in pairwise([*np.unique(begin).tolist(), len(steps)]):
            left = np.concatenate([left, np.flatnonzero(begin == one)])
            here = place[left]
            for i in range(one, two):
                inside = flat[steps[i] + low :].take(here)
                if not inside.all():
                    found[left[~inside]] = i
                    left, here = left[inside], here[inside]
                    if not len(left):
                        break
        return found

    def opposite(
        self, mask: NDArray[np.bool_], row: Ints, col: Ints, toward: Ints, half: Floats
    ) -> Floats:
        """March from pixels away from the nearest background, in steps of half a pixel.

        Args:
            mask: (H, W), as for :meth:`nearest`.
            row: (M,) rows.
            col: (M,) columns.
            toward: (M, 2) offsets to the nearest background.
            half: (M,) half widths on that side, m.

        Returns:
            (M,) half widths on the other side, m.
        """
        pixels = np.maximum(np.hypot(*toward.T), 1)
        down, right = toward.T / pixels
        per_pixel = self.metric.length(down, right)
        gone = half / np.maximum(per_pixel, 1e-12)
        flat, stride, place = mask.ravel(), mask.shape[1], row * mask.shape[1] + col
        left = np.arange(len(row))
        for _ in range(8):
            rows, cols = (np.rint(gone[left] * -x[left]).astype(int) for x in (down, right))
            left = left[flat.take(place[left] + rows * stride + cols)]
            if not len(left):
                break
            gone[left] += 0.5
        value: Floats = np.minimum(gone * per_pixel, self._reach)
        return value
