"""Metres from pixels: the local metric of a raster, widths of roads, lengths and areas."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from terradapt.raster import Georef
from terradapt.vector.directions import COL_STEP, ROW_STEP
from terradapt.vector.trace import Ints

Floats = NDArray[np.float64]
_BATCH = 8192  # polygons measured at a time
SCALE = 1 << 16
"""Widths (m) and scores are summed as integers of this fraction, so that no order matters."""


@dataclass(frozen=True)
class Metric:
    """How far one pixel reaches on the ground, at one place of a raster.

    Args:
        matrix: (2, 2) metres east and north for one pixel right (column 0) and down (column 1).
    """

    matrix: Floats

    @classmethod
    def of(cls, georef: Georef) -> Metric:
        """Return the metric at a raster's centre."""
        return cls(georef.matrix)

    @cached_property
    def steps(self) -> Floats:
        """(8,) metres of one step in each direction of a chain."""
        return self.length(ROW_STEP, COL_STEP)

    @property
    def pixel(self) -> float:
        """Metres of a pixel's shorter side."""
        return float(min(self.steps[0], self.steps[6]))

    def length(self, rows: NDArray[Any], cols: NDArray[Any]) -> Floats:
        """Return the metres of displacements in pixels."""
        offset = np.stack([np.asarray(cols, float), np.asarray(rows, float)], axis=-1)
        lengths: Floats = np.hypot(*np.moveaxis(offset @ self.matrix.T, -1, 0))
        return lengths


def line_lengths(points: Floats, sizes: Ints, georef: Georef) -> Floats:
    """Return the metres of lines given by all their vertices, one line after the other.

    Args:
        points: (M, 2) CRS coordinates.
        sizes: (E,) vertices of each line.
        georef: Their raster.
    """
    return georef.line_lengths(georef.pixels(points), sizes)


def polygon_areas(shapes: NDArray[Any], georef: Georef) -> Floats:
    """Return the (P,) square metres of polygons.

    Args:
        shapes: (P,) shapely Polygons in (column, row) of pixel corners.
        georef: Their raster.
    """
    areas: list[Floats] = [np.zeros(0)]
    for first in range(0, len(shapes), _BATCH):
        some = shapes[first : first + _BATCH]
        rings, owner = shapely.get_rings(some, return_index=True)
        corners, ring = shapely.get_coordinates(rings, return_index=True)
        within = georef.ring_areas(corners[:, ::-1] - 0.5, np.bincount(ring, minlength=len(rings)))
        hole = np.concatenate([[False], owner[1:] == owner[:-1]])  # the first is the outline
        signed = np.where(hole, -within, within)
        areas.append(np.bincount(owner, signed, minlength=len(some)).astype(np.float64))
    return np.concatenate(areas)


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
