"""Metres on the WGS 84 ellipsoid: short steps, and areas and lengths of what is drawn in pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terradapt.grid import Window

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_A, _E2 = 6378137.0, 6.69437999014e-3  # semi-major axis (m), squared eccentricity
_GAUSS = (0.5 - 0.75**0.5 / 3, 0.5 + 0.75**0.5 / 3)  # of two places; exact for cubics


def short_steps(start: Floats, stop: Floats) -> Floats:
    """Return (M, 2) metres east and north of steps, by the radii of curvature at their middle.

    The shorter way around counts, so a step across the antimeridian is short.

    Args:
        start: (M, 2) longitudes and latitudes, degrees.
        stop: (M, 2) likewise.
    """
    turn = stop[:, 0] - start[:, 0]
    lon = np.radians((turn + 180.0) % 360.0 - 180.0)
    lat = np.radians(stop[:, 1] - start[:, 1])
    middle = np.radians((start[:, 1] + stop[:, 1]) / 2)
    bend = 1.0 - _E2 * np.sin(middle) ** 2
    east = lon * np.cos(middle) * _A / np.sqrt(bend)
    north = lat * _A * (1.0 - _E2) / bend**1.5
    return np.stack([east, north], axis=1)


def geocentric(lonlat: Floats) -> Floats:
    """Return (M, 3) metres from the Earth's centre; poles and antimeridian are places like others.

    Args:
        lonlat: (M, 2) degrees.
    """
    lon, lat = np.radians(lonlat).T
    normal = _A / np.sqrt(1.0 - _E2 * np.sin(lat) ** 2)
    flat = normal * np.cos(lat)
    return np.stack(
        [flat * np.cos(lon), flat * np.sin(lon), normal * (1.0 - _E2) * np.sin(lat)], axis=1
    )


@dataclass(frozen=True)
class Surface:
    """The ground under a raster: what pixels measure anywhere in it.

    The map from pixels to the ellipsoid has a first fundamental form, the squares and the product
    of the steps that a pixel takes right and down. It is smooth, so it is known from a few places
    by splines, and no vertex of a line or polygon need be transformed. A place is (row, column);
    whole numbers are corners of pixels.

    Args:
        rows: (N,) rows at which the form is known, ascending, at least 4.
        cols: (M,) columns at which it is known, likewise.
        form: (3, N, M) square metres: right . right, right . down, down . down.
        height: Rows of the raster, px.
        width: Columns of the raster, px.
    """

    rows: Floats
    cols: Floats
    form: Floats
    height: int
    width: int

    def _spline(self, values: Floats) -> Any:
        from scipy.interpolate import RectBivariateSpline

        return RectBivariateSpline(
            self.rows, self.cols, values, bbox=[0, self.height, 0, self.width]
        )

    @cached_property
    def _form_splines(self) -> tuple[Any, Any, Any]:
        right, both, down = (self._spline(values) for values in self.form)
        return right, both, down

    @cached_property
    def _pixel(self) -> Floats:
        """(N, M) square metres of a pixel at the known places."""
        right, both, down = self.form
        pixel: Floats = np.sqrt(np.maximum(right * down - both**2, 0.0))
        return pixel

    @cached_property
    def _area_spline(self) -> Any:
        """Square metres left of a place, per row of height: Green's theorem wants no more."""
        from scipy.interpolate import CubicSpline

        total = CubicSpline(self.cols, self._pixel, axis=1).antiderivative()
        return self._spline(total(self.cols) - total(0.0)[:, None])

    def pixel_areas(self, window: Window) -> Floats:
        """Return the (H, W) square metres of a window's pixels."""
        rows = np.arange(window.row, window.bottom) + 0.5
        cols = np.arange(window.col, window.right + 1.0)
        # between two places of the lattice rows follow a cubic, and four of them tell the others
        inner = self.rows[(self.rows > rows[0]) & (self.rows < rows[-1])]
        parts = [p for p in np.split(rows, np.searchsorted(rows, inner)) if len(p)]
        few = np.cos(np.pi * np.arange(4) / 3)
        ends = [p if len(p) <= 4 else p[0] + (few[::-1] + 1) / 2 * (len(p) - 1) for p in parts]
        known = np.diff(self._area_spline(np.concatenate(ends), cols), axis=1)
        areas, solved = [], np.linalg.inv(np.vander(few[::-1]))
        for part, some in zip(
            parts, np.split(known, np.cumsum([len(e) for e in ends])[:-1]), strict=True
        ):
            powers = np.vander(np.linspace(-1, 1, len(part)), 4)
            areas.append(some if len(part) <= 4 else powers @ (solved @ some))
        return np.asarray(np.concatenate(areas), np.float64)

    def pixel_area(self, rows: Ints, cols: Ints) -> Floats:
        """Return the (M,) square metres of single pixels; what is equal up to 1e-9 is equal."""
        area: Floats = self._area_spline.ev(rows + 0.5, cols + 1.0)
        area -= self._area_spline.ev(rows + 0.5, cols)
        unit = self._pixel[len(self.rows) // 2, len(self.cols) // 2] * 2.0**-30
        return np.asarray(np.rint(area / unit) * unit)

    def ring_areas(self, places: Floats, sizes: Ints) -> Floats:
        """Return the (R,) square metres within closed rings, whichever way they turn.

        Args:
            places: (M, 2) vertices of one ring after the other.
            sizes: (R,) vertices of each, the first again at the end.
        """
        at, step, owner = self._pieces(places, sizes, rising=True)
        parts = self._area_spline.ev(*at.T) * step[:, 0]
        areas: Floats = np.abs(np.bincount(owner, parts, minlength=len(sizes))).astype(np.float64)
        return areas

    def line_lengths(self, places: Floats, sizes: Ints) -> Floats:
        """Return the (E,) metres of lines, along the ground under what is drawn.

        Args:
            places: (M, 2) vertices of one line after the other.
            sizes: (E,) vertices of each.
        """
        at, step, owner = self._pieces(places, sizes)
        right, both, down = (spline.ev(*at.T) for spline in self._form_splines)
        row, col = step.T
        square = right * col**2 + 2.0 * both * row * col + down * row**2
        steps = np.sqrt(np.maximum(square, 0.0))
        lengths: Floats = np.bincount(owner, steps, minlength=len(sizes)).astype(np.float64)
        return lengths

    def _pieces(
        self, places: Floats, sizes: Ints, rising: bool = False
    ) -> tuple[Floats, Floats, Ints]:
        """Cut edges into pieces no longer than known places lie apart; look at two places in each.

        Args:
            places: Vertices.
            sizes: Vertices of each line.
            rising: Leave out edges along a row.

        Returns:
            (K, 2) places, (K, 2) rows and columns that each stands for, and (K,) their lines.
        """
        line = np.repeat(np.arange(len(sizes)), sizes)
        step = np.diff(places, axis=0)
        kept = line[1:] == line[:-1]
        if rising:
            kept &= step[:, 0] != 0
        kept = np.flatnonzero(kept)
        start, step, owner = places[kept], step[kept], line[kept]
        most = np.array([np.diff(self.rows).max(), np.diff(self.cols).max()])
        count = np.maximum(np.ceil(np.abs(step / most).max(axis=1, initial=0)), 1).astype(np.int64)
        if count.max(initial=1) > 1:
            index = np.repeat(np.arange(len(step)), count)
            before = np.arange(len(index)) - np.repeat(np.cumsum(count) - count, count)
            step, owner = (step / count[:, None])[index], owner[index]
            start = start[index] + step * before[:, None]
        at = np.concatenate([start + step * share for share in _GAUSS])
        return at, np.tile(step / 2, (2, 1)), np.tile(owner, 2)
