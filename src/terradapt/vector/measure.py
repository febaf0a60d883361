"""Metres from pixels: the local metric of a raster, widths of roads, lengths on the ellipsoid."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terradapt.raster.crs import move_points, parse_crs
from terradapt.vector.directions import COL_STEP, ROW_STEP
from terradapt.vector.trace import Ints

Floats = NDArray[np.float64]
SCALE = 1 << 16
"""Widths (m) and scores are summed as integers of this fraction, so that no order matters."""

_A, _E2 = 6378137.0, 6.69437999014e-3  # WGS 84


@dataclass(frozen=True)
class Metric:
    """How far one pixel reaches on the ground, at one place of a raster.

    Args:
        matrix: (2, 2) metres east and north for one pixel right (column 0) and down (column 1).
    """

    matrix: Floats

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


@dataclass(frozen=True)
class Georef:
    """Where the pixels of a raster lie.

    Args:
        transform: Pixel to CRS, six numbers (a, b, c, d, e, f) first.
        crs: A CRS that ``str`` or ``to_wkt`` describes, or None: units of the transform are metres.
        height: Rows, px.
        width: Columns, px.
    """

    transform: Any
    crs: Any
    height: int
    width: int

    def xy(self, places: Floats) -> Floats:
        """Return (M, 2) CRS coordinates of pixel centres given as (row, column)."""
        t = self.transform
        row, col = places[:, 0] + 0.5, places[:, 1] + 0.5
        return np.stack([t.a * col + t.b * row + t.c, t.d * col + t.e * row + t.f], axis=1)

    def pixels(self, xy: Floats) -> Floats:
        """Return (M, 2) rows and columns of CRS coordinates; a pixel's centre is a whole number."""
        t = ~self.transform
        x, y = xy[:, 0], xy[:, 1]
        return np.stack([t.d * x + t.e * y + t.f, t.a * x + t.b * y + t.c], axis=1) - 0.5

    @cached_property
    def metric(self) -> Metric:
        """The metric at the raster's centre."""
        centre = np.array([[(self.height - 1) / 2, (self.width - 1) / 2]])
        return Metric(self.matrices(centre)[0])

    def matrices(self, places: Floats) -> Floats:
        """(M, 2, 2) metrics at pixels given as (row, column); see :class:`Metric`."""
        here = self.xy(places)
        right, down = (self.vectors(here, self.xy(places + step)) for step in ([0, 1], [1, 0]))
        return np.stack([right, down], axis=2)

    @cached_property
    def unit(self) -> float | None:
        """Metres of a unit of a projected CRS; None where only the ellipsoid tells.

        A projected CRS counts at its nominal scale unless that is more than 1 % off the ground at
        the centre, as in Web Mercator far from the equator. Without a CRS a unit is a metre.
        """
        if self.crs is None:
            return 1.0
        own = parse_crs(self.crs, "the raster")
        if own.is_geographic:
            return None
        centre = self.xy(np.array([[self.height / 2, self.width / 2]]))
        nominal = _unit(own)
        ground = _ellipsoid_vectors(
            centre, self.xy(np.array([[self.height / 2, self.width / 2 + 1]])), own
        )
        if ground is None:
            return nominal
        step = np.hypot(self.transform.a, self.transform.d) * nominal
        return nominal if abs(float(np.hypot(*ground[0])) / step - 1) <= 0.01 else None

    def vectors(self, start: Floats, stop: Floats) -> Floats:
        """Return (M, 2) metres east and north from ``start`` to ``stop``, CRS coordinates."""
        if self.unit is not None:
            return (stop - start) * self.unit
        vectors = _ellipsoid_vectors(start, stop, parse_crs(self.crs, "the raster"))
        return stop - start if vectors is None else vectors


def _unit(crs: Any) -> float:
    try:
        return float(crs.linear_units_factor[1])
    except Exception:  # a CRS without a linear unit
        return 1.0


def _ellipsoid_vectors(start: Floats, stop: Floats, crs: Any) -> Floats | None:
    """Measure short steps with the ellipsoid's radii of curvature at their middle (WGS 84).

    The shorter way around counts, so a step across the antimeridian is short. None where the CRS
    has no way to the globe.
    """
    try:
        lonlat = move_points(np.concatenate([start, stop]), crs, parse_crs("EPSG:4326", "WGS 84"))
    except Exception:  # GDAL: a local or engineering CRS
        return None
    if not np.isfinite(lonlat).all():
        return None
    one, two = lonlat[: len(start)], lonlat[len(start) :]
    turn = two[:, 0] - one[:, 0]
    lon = np.radians((turn + 180.0) % 360.0 - 180.0)
    lat = np.radians(two[:, 1] - one[:, 1])
    middle = np.radians((one[:, 1] + two[:, 1]) / 2)
    bend = 1.0 - _E2 * np.sin(middle) ** 2
    east = lon * np.cos(middle) * _A / np.sqrt(bend)
    north = lat * _A * (1.0 - _E2) / bend**1.5
    return np.stack([east, north], axis=1)


def line_lengths(points: Floats, sizes: Ints, georef: Georef) -> Floats:
    """Return the metres of lines given by all their vertices, one line after the other.

    Args:
        points: (M, 2) CRS coordinates.
        sizes: (E,) vertices of each line.
        georef: Their CRS.
    """
    if not len(sizes):
        return np.zeros(0)
    line = np.repeat(np.arange(len(sizes)), sizes)
    same = line[1:] == line[:-1]
    steps = np.hypot(*georef.vectors(points[:-1][same], points[1:][same]).T)
    lengths = np.bincount(line[1:][same], steps, minlength=len(sizes))
    return lengths.astype(np.float64)


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
